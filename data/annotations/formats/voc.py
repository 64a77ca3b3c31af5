"""Masks of Pascal VOC: SegmentationObject (a number an object) and SegmentationClass (the class of each pixel).

PNGs have a palette, whose indices are the numbers, or colours. Pixels of 255 (as a colour: 224, 224, 192) are borders
and belong to no object. Classes are those of `labelmap.txt` (CVAT, Datumaro), else VOC's 20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from data.annotations.coco.file import CocoFile
from data.annotations.label_image import objects_of, open_label_image
from data.annotations.records import ReadOptions, Records
from data.errors import DataError, Fault
from data.masks import rle
from data.storage import is_safe, list_files, open_regular

OBJECTS, CLASSES, LABEL_MAP = "SegmentationObject", "SegmentationClass", "labelmap.txt"
VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_BORDER, _BORDER_COLOUR = 255, (224, 224, 192)

Colours = Mapping[tuple[int, int, int], int]


def root_of(path: Path) -> Path | None:
    """The VOC folder of a path: the folder itself, one of its list files or one of its folders of masks."""
    for folder in (path, *path.parents[:3]):
        if (folder / OBJECTS).is_dir() and (folder / CLASSES).is_dir():
            return folder
    return None


def read(path: Path, options: ReadOptions) -> CocoFile:
    """A VOC folder, or one of its lists in ImageSets/Segmentation, whose images are read.

    Raises:
        DataError: all faults of all files.
    """
    root = root_of(path)
    if root is None:
        expected = f"a folder with {OBJECTS} and {CLASSES}, or a list in its ImageSets"
        raise DataError(Fault(str(path), "folder", "none of VOC", expected, "correct the path"))
    names, colours = _classes(root)
    every = list_files(root / OBJECTS, (".png",))
    maps = [
        root / folder / name for folder in (OBJECTS, CLASSES) for name in list_files(root / folder, (".png",))
    ]
    records = Records(path, options, maps)
    for name in _listed(path, records) if path.is_file() else every:
        _read(root, name, names, colours, records)
    numbers = sorted(names)
    return records.file([names[n] for n in numbers], numbers)


def _listed(path: Path, records: Records) -> list[str]:
    """The files of a list: a name a line, without suffix; more words of a line are no part of it."""
    try:
        with open_regular(path) as file:
            words = [line.split() for line in file.read().decode("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        records.fault(path, "file", f"unreadable ({error})", "a name a line", "export it again")
        return []
    names = [one[0] for one in words if one]
    for name in names:
        if not is_safe(name):
            records.fault(path, "file", f"name {name!r}", "a name below the folder")
    return [f"{name}.png" for name in names if is_safe(name)]


def _classes(root: Path) -> tuple[dict[int, str], Colours]:
    """Names by number, and numbers by colour: those of VOC, or of a file with lines `name:r,g,b:parts:actions`."""
    file = root / LABEL_MAP
    if not file.is_file():
        colours = {_palette(n): n for n in range(256)}
        return dict(enumerate(VOC, start=1)), colours
    names: dict[int, str] = {}
    table: dict[tuple[int, int, int], int] = {}
    faults = []
    try:
        with open_regular(file) as opened:
            lines = opened.read().decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            Fault(str(file), "file", f"unreadable ({error})", "text", "export it again")
        ) from None
    rows = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    first = (
        0 if rows and re.match(r"background *:|[^:]*:0,0,0:", rows[0]) else 1
    )  # the number of the first line
    for n, line in enumerate(rows, start=first):
        name, _, rest = line.partition(":")
        # Datumaro writes no colours where it has none.
        rgb = rest.partition(":")[0].split(",") if rest.partition(":")[0] else list(map(str, _palette(n)))
        sound = len(rgb) == 3 and all(re.fullmatch(r" *[0-9]{1,3} *", one) and int(one) < 256 for one in rgb)
        if not name or name in names.values() or not sound:
            record, expected = f"line {n - first + 1}", "name:r,g,b::, names that differ"
            faults.append(Fault(str(file), record, repr(line[:100]), expected, "correct it"))
            continue
        r, g, b = map(int, rgb)
        table[r, g, b] = n
        if n:
            names[n] = name
    if faults:
        raise DataError(faults)
    return names, table


def _palette(n: int) -> tuple[int, int, int]:
    """VOC's colour of a number: its bits, three at a time, are the highest bits of red, green and blue."""
    rgb = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            rgb[channel] |= (n >> (3 * bit + channel) & 1) << (7 - bit) if 3 * bit + channel < 8 else 0
    return rgb[0], rgb[1], rgb[2]


def _read(root: Path, name: str, names: Mapping[int, str], colours: Colours, records: Records) -> None:
    file = root / OBJECTS / name
    bare = PurePosixPath(name).with_suffix("").as_posix()
    found = records.find(file, "image", f"JPEGImages/{bare}", bare)
    if found is None:
        return
    if not records.options.need_masks:
        records.image(file, "image", found, None)
        return
    try:
        objects = _numbers(open_label_image(file), None)
        kinds = _numbers(open_label_image(root / CLASSES / name), colours)
        masks = objects_of(file, objects)
    except DataError as error:
        records.add_faults(error)
        return
    if kinds.shape != objects.shape:
        size = "{1} x {0} pixels".format(*kinds.shape)
        records.fault(
            root / CLASSES / name, "pixels", size, "{1} x {0}, as in {2}".format(*objects.shape, OBJECTS)
        )
        return
    image = records.image(file, "image", found, (objects.shape[0], objects.shape[1]))
    if image is None:
        return
    for number, counts in masks.items():
        own = kinds[rle.object_pixels(counts, image.height)]
        values, counted = np.unique(own[own > 0], return_counts=True)
        kind = int(values[counted.argmax()]) if len(values) else 0
        if kind in names:
            records.add(image, names[kind], counts)
        else:
            expected = f"one of the {len(names)} classes in {CLASSES}"
            records.fault(file, f"object {number}", f"class {kind or 'none'}", expected)


def _numbers(pixels: npt.NDArray[np.uint8], colours: Colours | None) -> npt.NDArray[np.int64]:
    """Numbers [H, W] of a map with a palette or in colours; 0 for borders, -1 for an unknown colour.

    Args:
        pixels: indices [H, W], or colours [H, W, channels].
        colours: numbers by colour; None: each colour is a number of its own.
    """
    if pixels.ndim == 2:
        numbers = pixels.astype(np.int64)
        numbers[numbers == _BORDER] = 0
        return numbers
    red, green, blue = (pixels[..., min(n, pixels.shape[2] - 1)].astype(np.int64) for n in range(3))
    codes, at = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    table = np.zeros(len(codes), np.int64)
    for n, code in enumerate(codes.tolist()):
        rgb = (code >> 16, code >> 8 & 255, code & 255)
        if rgb != _BORDER_COLOUR and code:
            table[n] = n + 1 if colours is None else colours.get(rgb, -1)
    return table[at.reshape(pixels.shape[:2])]
