"""Masks of Cityscapes: gtFine's `_instanceIds.png` of 16 bits, class * 1000 + number, or a class alone below 1000.

Classes are the eight of the benchmark, with Cityscapes' ids. A group of objects (a class alone) is a region to ignore,
and so is what the benchmark leaves out: caravans (of car) and trailers (of truck).
"""

from __future__ import annotations

from pathlib import Path

from data.annotations.coco.file import CocoFile
from data.annotations.label_image import objects_of, read_label_image
from data.annotations.records import ReadOptions, Records
from data.errors import DataError, Fault
from data.storage import list_files

CLASSES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
IGNORED = {29: 26, 30: 27}
ENDING = "_instanceIds.png"
_NUMBERED = 1000


def instance_files(folder: Path) -> list[str]:
    """The files of object numbers in a folder, as sorted paths below it."""
    return [name for name in list_files(folder, (".png",)) if name.endswith(ENDING)]


def read(path: Path, options: ReadOptions) -> CocoFile:
    """A folder, such as gtFine or gtFine/train.

    Raises:
        DataError: all faults of all files.
    """
    names = instance_files(path)
    if not names:
        raise DataError(Fault(str(path), "folder", f"no *{ENDING}", "Cityscapes' gtFine", "correct the path"))
    records = Records(path, options, [path / name for name in list_files(path, (".png",)) if "_gt" in name])
    for name in names:
        # .../train/city/city_000000_000019_gtFine_instanceIds.png
        frame = name.removesuffix(ENDING).rpartition("_gt")[0]
        bare = frame.rpartition("/")[2]
        found = records.find(path / name, "image", f"{frame}_leftImg8bit", f"{bare}_leftImg8bit", frame, bare)
        if found is not None:
            _read(path / name, found, records)
    return records.file(list(CLASSES.values()), list(CLASSES))


def _read(file: Path, found: str, records: Records) -> None:
    if not records.options.need_masks:
        records.image(file, "image", found, None)
        return
    try:
        numbers = read_label_image(file)
        masks = objects_of(file, numbers)
    except DataError as error:
        records.add_faults(error)
        return
    image = records.image(file, "image", found, (numbers.shape[0], numbers.shape[1]))
    if image is None:
        return
    for number, counts in masks.items():
        kind = number // _NUMBERED or number
        name = CLASSES.get(IGNORED.get(kind, kind))
        if name is not None:
            records.add(image, name, counts, is_region=number < _NUMBERED or kind in IGNORED)
