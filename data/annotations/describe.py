"""What a file or folder of masks holds, before a project is set up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.annotations.coco.file import CocoFile, to_instances
from data.annotations.detect import format_of
from data.annotations.frames import ImageFiles
from data.annotations.image_index import ImageIndex, listed
from data.annotations.join import ImageIds, join_classes, join_files
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.errors import DataError, Fault

_NAMES = {"train": ("train", "training"), "val": ("valid", "val", "validation"), "test": ("test", "testing")}
_PLACES = (
    "ImageSets/Segmentation/{}.txt", "labels/{}", "{}/labels", "{}/_annotations.coco.json",
    "annotations/instances_{}.json", "instances_{}.json", "annotations/instances_{}2017.json", "annotations/{}.json",
    "gtFine/{}", "gtFine_trainvaltest/gtFine/{}", "masks/{}", "{}/masks", "{}.json", "{}.xml", "{}",
)  # fmt: skip
"""Where tools put the label files of a split, below the folder of the export; the first that exists."""


@dataclass(frozen=True)
class Described:
    """What was read.

    Attributes:
        format: one of `data.annotations.read.FORMATS`.
        images: images that the files name.
        with_masks: those that have a mask.
        instances: masks, without regions to ignore.
        ignored: regions to ignore.
        classes: number of masks by class, in the order of class ids; 0 for a class without.
        faults: records that can't be read, or whole files.
        not_images: files below the image root that are label maps.
        splits: files or folders of `train`, `val` and `test`, as paths below the one described; empty if it has none.
    """

    format: str
    images: int = 0
    with_masks: int = 0
    instances: int = 0
    ignored: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    not_images: frozenset[str] = frozenset()
    splits: dict[str, str] = field(default_factory=dict)


def splits_of(path: Path) -> dict[str, str]:
    """The label files or folders of train, val and test in an export, as paths below it; empty without train.

    So exports of Roboflow and Ultralytics, CVAT's and Datumaro's COCO, VOC's lists and Cityscapes come.
    """
    found: dict[str, str] = {}
    if not path.is_dir():
        return found
    for split, names in _NAMES.items():
        places = (place.format(name) for place in _PLACES for name in names)
        first = next((place for place in places if (path / place).exists()), None)
        if first is not None:
            found[split] = first
    return found if "train" in found else {}


def describe(path: Path, images: ImageFiles | None = None, mask_class: str | None = None) -> Described:
    """Reads all masks of a file or folder, and of all its splits.

    Args:
        path: as `ingest.strong` names it.
        images: the image files of the project; without them formats that have no sizes can't be read.
        mask_class: as `ingest.mask_class`.

    Raises:
        DataError: missing, of no known format (the message lists the readable ones), or several formats in one folder.
    """
    splits = splits_of(path)  # of a folder
    parts = [path / name for name in splits.values()] or [path]
    format = format_of(parts[0])
    options = ReadOptions(
        images=images, reject=True, keep_annotations=False, any_place=True, mask_class=mask_class
    )
    files: list[CocoFile] = []
    faults: list[Fault] = []
    for part in parts:
        try:
            files.append(read_annotations(part, options=options))
        except DataError as error:
            faults += error.faults
    faults += [fault for file in files for fault in file.rejected]
    if images is not None:
        index = ImageIndex(images.names())
        faults += [fault for file in files for fault in _missing(file, index, images)]
    if not files:
        return Described(format, faults=tuple(faults), splits=splits)
    return _counted(format, files, faults, splits)


def _missing(file: CocoFile, index: ImageIndex, images: ImageFiles) -> list[Fault]:
    """Images of a file that aren't among the image files, or whose name fits several."""
    near = images.below_root(Path(file.path).parent)
    faults: list[Fault] = []
    for row in file.images:
        fits = (
            [row["file_name"]] if row["file_name"] in index.names else index.find(row["file_name"], near=near)
        )
        if len(fits) != 1:
            found = (
                f"no image {row['file_name']!r}" if not fits else f"{row['file_name']!r}, of {listed(fits)}"
            )
            expected = "one image" if fits else index.expected(row["file_name"])
            step = "correct the folder of images, or the name"
            faults.append(Fault(file.path, f"image {row['id']}", found[:300], expected, step))
    return faults


def _counted(
    format: str, files: Sequence[CocoFile], faults: list[Fault], splits: dict[str, str]
) -> Described:
    categories, changes, class_faults = join_classes(files)
    joined, size_faults = join_files(files, ImageIds(), changes)
    table = to_instances(joined)
    crowd = table["iscrowd"].to_pylist()
    counts = Counter(
        one for one, ignored in zip(table["category_id"].to_pylist(), crowd, strict=True) if not ignored
    )
    return Described(
        format,
        images=len(joined.images),
        with_masks=len(set(table["image_id"].to_pylist())),
        instances=len(crowd) - sum(crowd),
        ignored=sum(crowd),
        classes={category.name: counts[category.id] for category in categories},
        faults=(*faults, *class_faults, *size_faults),
        not_images=joined.not_images,
        splits=splits,
    )
