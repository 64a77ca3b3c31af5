"""Label maps, a PNG or TIFF an image with one number an object; and binary masks, one an object or one an image.

- A folder of label maps: Cellpose (`_cp_masks`, `_masks`), StarDist, PennFudan (`_mask`). If some files end so, or are
  in a folder `masks` or `labels`, others are no label maps. A map has the name of its image, but for suffix and ending;
  it may be in a sub-folder with the name of a class.
- If all maps of a folder have no number but 1 or 255, they are binary masks: each connected part is an object.
- A folder for each image with a file for each object, as in the Data Science Bowl of 2018.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np

from data.annotations.coco.file import CocoFile
from data.annotations.image_index import stem
from data.annotations.label_image import SUFFIXES, objects_of, read_label_image
from data.annotations.records import DEFAULT_CLASS, ImageRow, ReadOptions, Records
from data.errors import DataError, Fault
from data.masks import rle
from data.storage import list_files

log = logging.getLogger(__name__)

ENDING = re.compile(r"^(.+?)[._-](cp_masks|masks?|labels?|instance_?ids?|instances?)$", re.IGNORECASE)
"""Of the name of a label map, without suffix."""
_BY_PRODUCTS = re.compile(r"[._-](cp_)?(flows|outlines?|output|cellprob|probs?)$", re.IGNORECASE)
"""Of names of other files that such tools write."""
NO_CLASS = frozenset((
    "mask", "masks", "label", "labels", "annotation", "annotations", "instance", "instances", "gt", "groundtruth",
    "ground_truth", "train", "training", "val", "valid", "validation", "test", "testing", "seg", "segmentation",
    "segmentations", "pedmasks", "maps", "label_maps", "labelmaps", "png", "tif", "tiff",
))  # fmt: skip
"""Names of folders that are no class."""
_MASKS = frozenset(("mask", "masks", "label", "labels"))
_IMAGES = frozenset(("image", "images", "img", "imgs"))


class _Map(NamedTuple):
    """A label map: its file, its image, the class of its objects and their masks by number."""

    file: Path
    image: ImageRow
    name: str
    objects: dict[int, bytes]


def label_maps(path: Path) -> list[str]:
    """The files of a folder that may be label maps, as sorted paths below it; for a file its name."""
    names = list_files(path, SUFFIXES) if path.is_dir() else [path.name]
    return (
        [name for name in names if ENDING.match(stem(PurePosixPath(name).name))]
        or [name for name in names if _folders(name) & _MASKS]
        or [name for name in names if not _folders(name) & _IMAGES]
    )


def _folders(name: str) -> set[str]:
    return {part.lower() for part in PurePosixPath(name).parts[:-1]}


def read(path: Path, options: ReadOptions) -> CocoFile:
    """A folder, searched to any depth, or a single label map.

    Raises:
        DataError: all faults of all files.
    """
    root = path if path.is_dir() else path.parent
    names = label_maps(path)
    if not names:
        raise DataError(Fault(str(path), "folder", "no .png or .tif in it", "label maps", "correct the path"))
    by_products = (
        [name for name in list_files(root, SUFFIXES) if _BY_PRODUCTS.search(stem(name))]
        if path.is_dir()
        else []
    )
    records = Records(path, options, [root / name for name in {*names, *by_products}])
    per_object = _folders_are_images(names, records)
    maps: list[_Map] = []
    for name in names:
        found = records.find(root / name, "image", *(_of_folder(name) if per_object else _of_file(name)))
        one = None if found is None else _read(root / name, name, found, per_object, records)
        if one is not None:
            maps.append(one)
    numbers = {number for one in maps for number in one.objects}
    if not per_object and numbers in ({1}, {255}):
        maps = _parts(path, maps, records)
    for one in maps:
        for counts in one.objects.values():
            records.add(one.image, one.name, counts)
    return records.file()


def _folders_are_images(names: Sequence[str], records: Records) -> bool:
    """Whether most folders have the masks of one image, a file an object."""
    folders = {PurePosixPath(name).parent.as_posix(): name for name in names}
    if "." in folders:
        return False
    if records.index is None or records.options.images is None:
        return all(folder.rpartition("/")[2].lower() == "masks" for folder in folders) and len(folders) > 1
    near = records.options.images.below_root(records.path)
    fits = sum(len(records.index.find(*_of_folder(name), near=near)) == 1 for name in folders.values())
    return 2 * fits > len(folders)


def _of_folder(name: str) -> tuple[str, ...]:
    """Names that the image of a folder of masks may have, without suffix."""
    folder = PurePosixPath(name).parent
    if folder.name.lower() in NO_CLASS and folder.parent.name:
        folder = folder.parent
    return (f"{folder}/images/{folder.name}", f"{folder}/{folder.name}", folder.as_posix(), folder.name)


def _of_file(name: str) -> tuple[str, ...]:
    """Names that the image of a label map may have, without suffix."""
    path = PurePosixPath(stem(name))
    ending = ENDING.match(path.name)
    bare = (
        [ending[1] + more for more in ("", "_img", "_image")] if ending is not None else []
    )  # Cellpose's data sets
    folders = [path.parent.as_posix()]
    if path.parent.parts:
        swapped = ["images" if part.lower() in ("masks", "labels") else part for part in path.parent.parts]
        folders.append("/".join(swapped))
    with_folder = [f"{folder}/{one}" for one in [*bare, path.name] for folder in folders if folder != "."]
    return tuple(dict.fromkeys([*with_folder, *bare, path.name]))


def _read(file: Path, name: str, found: str, per_object: bool, records: Records) -> _Map | None:
    """A label map; None after a fault."""
    if not records.options.need_masks:
        records.image(file, "image", found, None)
        return None
    try:
        numbers = read_label_image(file)
        objects = objects_of(file, numbers)
    except DataError as error:
        records.add_faults(error)
        return None
    height, width = numbers.shape
    image = records.image(file, "image", found, (height, width))
    return None if image is None else _Map(file, image, _class(name, found, per_object, records), objects)


def _class(name: str, image: str, per_object: bool, records: Records) -> str:
    """`mask_class`, or the name of the sub-folder where it is neither a part of the image's path nor a usual name."""
    folder = PurePosixPath(name).parent.name
    if records.options.mask_class is not None:
        return records.options.mask_class
    if per_object or not folder or folder.lower() in NO_CLASS or folder in PurePosixPath(image).parent.parts:
        return DEFAULT_CLASS
    return folder


def _parts(path: Path, maps: Sequence[_Map], records: Records) -> list[_Map]:
    """Binary masks with an object for each connected part."""
    several, found = 0, []
    for one in maps:
        objects: dict[int, bytes] = {}
        for counts in one.objects.values():
            mask = rle.decode(counts, one.image.height, one.image.width)
            count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            several += count > 2
            try:
                objects = objects_of(one.file, labels)
            except DataError as error:
                records.add_faults(error)
        found.append(one._replace(objects=objects))
    if several:
        log.warning(
            "%s: binary masks: each connected part is an object (%d masks have several); objects that touch are one",
            path, several,
        )  # fmt: skip
    return found
