"""Checks of single records of a COCO file. Each fault names the record, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from data import storage
from data.annotations.strict_json import ONCE, DuplicateKeys
from data.errors import Fault
from data.masks import rle
from data.masks.polygons import check_polygons, from_segmentation
from data.text import TEXT, is_text

HIGHEST = float(np.finfo(np.float32).max)  # largest number that the tables can hold
_SMALLEST_POLYGON = 6  # numbers: three corners
SHOWN_CHARACTERS = 300  # of what was found
SHOWN_AREAS = 3
MAX_PIXELS = 2**29  # of an image; more is a mistake or an attack on the memory


class Faults:
    """Collects the faults of one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: list[Fault] = []
        self._of_image: dict[tuple[int, str], tuple[int, int, int]] = {}

    def add(self, record: str, found: str, expected: str, next_step: str = "correct this record") -> None:
        """A fault of one record; long texts are cut."""
        self.found.append(Fault(self.path, record[:100], found[:SHOWN_CHARACTERS], expected, next_step))

    def add_size(self, annotation_id: int, wrong: WrongSize) -> None:
        """An RLE of another size than its image.

        All of one image are one fault: its record is more likely wrong, and a thousand lines would hide other faults.
        """
        key = (wrong.image_id, wrong.found)
        if key not in self._of_image:
            self._of_image[key] = (len(self.found), annotation_id, 1)
            found = f"segmentation: an RLE of size {wrong.found}, for [height, width] = {wrong.expected}"
            self.add(f"annotation {annotation_id}", found, "polygons or an RLE of the image's size")
            return
        at, first, count = self._of_image[key]
        self._of_image[key] = (at, first, count + 1)
        self.found[at] = Fault(
            self.path,
            f"image {wrong.image_id}",
            f"RLEs of size [height, width] = {wrong.found} in {count + 1} annotations, the first {first}",
            f"{wrong.expected}, as in the image's record",
            "correct the record of the image, or these annotations",
        )


@dataclass
class WrongAreas:
    """Areas in a file that can't be those of its masks; the masks' own areas replace them.

    A polygon's area differs a little from that of its pixels, and some tools write the area of the box. Both are kept,
    since COCO's evaluation uses the area in the file. None of 33,414 annotations of COCO and two other data sets is
    outside of these bounds.
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def usable(
        self, annotation_id: int, given: float | None, counts: bytes, height: int, width: int
    ) -> float:
        """The area to use, in pixels: the given one, unless it is below half the mask's or above twice its box's.

        Args:
            annotation_id: for the message.
            given: the area in the file, if any.
            counts: the mask, of `height` x `width` pixels.
        """
        own = rle.area(counts, height, width)
        if given is None:
            return own
        if own <= 2 * given <= 4 * own:
            return given
        w, h = rle.bbox_xywh(counts, height, width)[2:]
        # With a tolerance of a pixel, since outlines run between pixels.
        if own <= 2 * given + w + h and given <= 2 * (w + 1) * (h + 1):
            return given
        self.count += 1
        if len(self.first) < SHOWN_AREAS:
            self.first.append(f"annotation {annotation_id}: area {given:g}, of a mask of {own} pixels")
        return own

    def __str__(self) -> str:
        return (
            f"{self.count:,} annotations have an area that can't be their mask's; the mask's own is used; the first: "
            f"{'; '.join(self.first)}"
        )


class WrongSize(NamedTuple):
    """An RLE's size, and its image's, as [height, width]."""

    image_id: int
    found: str
    expected: str


def valid_rows(
    rows: Iterable[Any],
    kind: str,
    problem: Callable[[dict[str, Any]], tuple[str, str] | WrongSize | None],
    faults: Faults,
    known: set[int],
    first: int = 0,
) -> Iterator[dict[str, Any]]:
    """The rows without a fault; faults of the others are added to `faults`.

    A faulty image or category is replaced by a row with its id, an empty name and size 0, so that annotations which
    refer to it are no faults.

    Args:
        rows: of one kind.
        kind: image, category or annotation.
        problem: returns what is wrong with a row and what was expected, or None.
        faults: extended.
        known: the ids of earlier rows; extended.
        first: the number of the first row among all.
    """
    for n, row in enumerate(rows, start=first):
        if not isinstance(row, dict):
            faults.add(f"{kind} #{n}", type(row).__name__, "a JSON object")
        elif not is_id(row.get("id")):
            faults.add(f"{kind} #{n}", f"id {row.get('id')!r}", "a whole number as id")
        elif row["id"] in known:
            faults.add(f"{kind} {row['id']} (#{n})", "an id that an earlier record has", "ids that differ")
        elif isinstance(wrong := keys_problem(row) or problem(row), WrongSize):
            faults.add_size(row["id"], wrong)
        elif wrong is not None:
            faults.add(f"{kind} {row['id']}", *wrong)
            if kind != "annotation":
                known.add(row["id"])
                yield {"id": row["id"], "name": "", "height": 0, "width": 0}
        else:
            known.add(row["id"])
            yield row


def is_id(value: Any) -> bool:
    """Whether a value is a whole number that a table can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= HIGHEST


def keys_problem(row: dict[str, Any]) -> tuple[str, str] | None:
    """The problem of a record with duplicate keys."""
    return (f"key {', '.join(row.duplicates)} twice", ONCE) if isinstance(row, DuplicateKeys) else None


def image_problem(row: dict[str, Any], any_place: bool = False) -> tuple[str, str] | None:
    """What is wrong with the record of an image, and what was expected; `any_place` allows names outside the root."""
    if not isinstance(row.get("file_name"), str) or not row["file_name"]:
        return f"file_name {row.get('file_name')!r}", "the name of an image file"
    if not is_text(row["file_name"]):
        return f"file_name {row['file_name']!r}", TEXT
    if not any_place and not storage.is_safe(row["file_name"]):
        return f"file_name {row['file_name']!r}", "a path under the image root"
    width, height = row.get("width"), row.get("height")
    if not (is_id(width) and is_id(height) and width > 0 and height > 0):  # type: ignore[operator]
        return f"width {width!r}, height {height!r}", "whole numbers above 0"
    if width * height > MAX_PIXELS:  # type: ignore[operator]
        return f"{width} x {height} pixels", f"at most {MAX_PIXELS} pixels"
    return None


def category_problem(row: dict[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a category, and what was expected."""
    if not is_text(row.get("name")):
        return f"name {row.get('name')!r}", f"a class name: {TEXT}" if row.get("name") else "a class name"
    return None


def annotation_problem(
    row: dict[str, Any],
    sizes: Mapping[int, tuple[int, int]],
    categories: Mapping[int, Any],
    need_masks: bool,
) -> tuple[str, str] | WrongSize | None:
    """What is wrong with an annotation, and what was expected."""
    image_id, category_id = row.get("image_id"), row.get("category_id")
    size = sizes.get(image_id) if is_id(image_id) else None  # type: ignore[arg-type]
    if size is None:
        return f"image_id {image_id!r}", "the id of an image in this file"
    if not is_id(category_id) or category_id not in categories:
        known = ", ".join(map(str, sorted(categories)[:20]))
        return f"category_id {category_id!r}", f"the id of a category in this file ({known})"
    for name, (is_valid, expected) in _OPTIONAL_FIELDS.items():
        if name in row and not is_valid(row[name]):
            return f"{name} {row[name]!r}", expected
    if not has_mask(row):
        return ("no segmentation", "polygons or an RLE") if need_masks else None
    # Size 0: the image itself is faulty and reported.
    return None if 0 in size else _mask_problem(row["segmentation"], int(row["image_id"]), size)


def _mask_problem(
    segmentation: Any, image_id: int, size: tuple[int, int]
) -> tuple[str, str] | WrongSize | None:
    given = segmentation.get("size") if isinstance(segmentation, dict) else None
    if isinstance(given, list) and all(map(is_id, given)) and given != list(size):
        return WrongSize(image_id, str(given)[:60], str(list(size)))
    try:
        # Polygons are only checked here; to_instances draws them.
        (check_polygons if isinstance(segmentation, list) else from_segmentation)(segmentation, *size)
    except ValueError as error:
        return f"segmentation: {error}", "polygons or an RLE of the image's size"
    return None


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0


_OPTIONAL_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "iscrowd": (lambda value: value in (None, 0, 1), "0 or 1"),
    "area": (lambda value: value is None or (_is_number(value) and value >= 0), "a number of 0 or more"),
    "bbox": (lambda value: value in (None, []) or _is_box(value), "[x, y, width, height]"),
}


def without_degenerate_parts(row: Any, faults: Faults) -> Any:
    """The annotation without polygons of fewer than three corners, if others remain; each is added to `faults`."""
    segmentation = row.get("segmentation") if isinstance(row, dict) else None
    if not isinstance(segmentation, list):
        return row
    short = [isinstance(part, list) and len(part) < _SMALLEST_POLYGON for part in segmentation]
    if not any(short) or all(short):
        return row
    for n, part in enumerate(segmentation):
        if short[n]:
            found = f"segmentation: part {n + 1} of {len(segmentation)} has {len(part)} numbers; left out"
            faults.add(f"annotation {row.get('id')}", found, "three corners or more: x, y, x, y, x, y")
    return row | {"segmentation": [part for part, out in zip(segmentation, short, strict=True) if not out]}


def has_mask(row: dict[str, Any]) -> bool:
    """Whether an annotation has a segmentation."""
    return row.get("segmentation") not in (None, [], {})
