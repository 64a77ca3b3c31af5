"""Corrected exports of label tools: the images that they have, and the objects on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from data.annotations.coco.file import CocoFile
from data.annotations.detect import format_of
from data.annotations.frames import below
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.errors import Fault
from data.masks.polygons import from_segmentation
from data.masks.rle import area
from data.points.lookup import Categories, Images
from data.points.record import Problem
from data.tables import Split

_STEP = "correct this record in the tool, and export again"


class Corrected(NamedTuple):
    """An object as it came back.

    Attributes:
        record: its place in the file.
        point_id: the attribute; None: it has none.
        tool_ids: ids of the tool that are a point_id if there is such a point.
        category: name of a class of the data set; empty: an unknown class, which is a fault.
        counts: compressed RLE of the image's size.
        is_polygon: it was drawn as an outline, which tools round.
    """

    record: str
    point_id: str | None
    tool_ids: tuple[str, ...]
    category: str
    counts: bytes
    is_polygon: bool


class CorrectedImage(NamedTuple):
    """An image of the file.

    Attributes:
        file_name: as ingest has it.
        is_marked: the file says that a person finished it: an annotation that was submitted in Label Studio, a tag
            `reviewed` in CVAT.
    """

    file_name: str
    height: int
    width: int
    is_marked: bool
    objects: tuple[Corrected, ...]


class Corrections(NamedTuple):
    """What a file has.

    Attributes:
        images: by name.
        boxes: rectangles, which are no masks, were left out.
        faults: of all records.
    """

    images: list[CorrectedImage]
    boxes: int
    faults: list[Fault]


def read_corrections(path: Path, weak: Split) -> Corrections:
    """
    Raises:
        DataError: the file can't be read; all faults of its records are listed.
    """
    coco = read_annotations(path, options=ReadOptions(images=_SplitImages(weak), any_place=True))
    is_coco = format_of(path) == "coco"
    images, categories = Images(weak), Categories(weak, None)
    sides = (weak.images[name].to_pylist() for name in ("image_id", "file_name", "height", "width"))
    known = {image_id: tuple(rest) for image_id, *rest in zip(*sides, strict=True)}
    faults: list[Fault] = []
    names = _class_names(coco, categories, weak, faults)
    by_image: dict[int, list[dict[str, Any]]] = {}
    for row in coco.annotations:
        by_image.setdefault(row["image_id"], []).append(row)
    found: dict[str, CorrectedImage] = {}
    boxes = 0
    for image in coco.images:
        record = f"image {image['file_name']!r}"[:200]
        image_id = images.find(image["file_name"])
        if isinstance(image_id, Problem):
            step = "export the weak images alone, or remove this one"
            faults.append(Fault(coco.path, record, image_id.found, image_id.expected, step))
            continue
        name, height, width = known[image_id]
        size = (image.get("height", height), image.get("width", width))
        if size != (height, width):
            expected = f"{width} x {height}, the image's size"
            step = "make the tool's task from the images that ingest read"
            faults.append(Fault(coco.path, record, f"{size[1]} x {size[0]} pixels", expected, step))
            continue
        if name in found:
            faults.append(Fault(coco.path, record, f"image {name!r} again", "each image once", _STEP))
            continue
        objects = []
        for row in by_image.get(image["id"], []):
            if row.get("iscrowd") and not is_coco:
                boxes += 1
                continue
            one = _object(row, names, height, width)
            if one is not None:
                objects.append(one)
        found[name] = CorrectedImage(name, height, width, bool(image.get("reviewed")), tuple(objects))
    return Corrections([found[name] for name in sorted(found)], boxes, faults)


def _class_names(coco: CocoFile, categories: Categories, weak: Split, faults: list[Fault]) -> dict[int, str]:
    """The data set's name of each class that has objects; an unknown one is one fault."""
    used = Counter(row["category_id"] for row in coco.annotations)
    own = {category.id: category.name for category in weak.categories}
    names = {}
    for category in coco.categories:
        if not used[category.id]:
            continue
        found = categories.find(category.name)
        if isinstance(found, Problem):
            record = f"class {category.name!r}, of {used[category.id]:,} objects"[:200]
            step = "give these objects a class of the data set"
            faults.append(Fault(coco.path, record, found.found, found.expected, step))
        else:
            names[category.id] = own[found]
    return names


def _object(row: dict[str, Any], names: dict[int, str], height: int, width: int) -> Corrected | None:
    """None for an empty mask."""
    counts = from_segmentation(row["segmentation"], height, width)
    if area(counts, height, width) == 0:
        return None
    attributes = row.get("attributes")
    given = row.get("point_id") or (attributes.get("point_id") if isinstance(attributes, dict) else None)
    return Corrected(
        record=str(row.get("place") or f"annotation {row['id']}"),
        point_id=str(given) if given else None,
        tool_ids=tuple(row.get("tool_ids", ())),
        category=names.get(row["category_id"], ""),
        counts=counts,
        is_polygon=bool(row.get("is_polygon", not isinstance(row["segmentation"], dict))),
    )


class _SplitImages:
    """The images of a split, in which readers of label files look up names and sizes."""

    def __init__(self, split: Split) -> None:
        columns = (split.images[name].to_pylist() for name in ("file_name", "width", "height"))
        self._sizes = {name: (width, height) for name, width, height in zip(*columns, strict=True)}
        self._root = split.image_root

    def names(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self._sizes)

    def below_root(self, path: Path) -> str | None:
        """A local path relative to the image root; None if it isn't below."""
        return below(self._root, path)

    def prepare(self, names: Collection[str]) -> None:
        """Nothing to do: the sizes are in the table."""

    def size(self, file_name: str) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._sizes[file_name]
