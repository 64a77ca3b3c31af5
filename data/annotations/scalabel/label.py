"""One label of a Scalabel frame: its class, flags and mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data.annotations.frames import FLAGS
from data.annotations.scalabel.classes import resolve
from data.annotations.strict_json import is_number
from data.masks import bezier
from data.masks.polygons import from_polygons, from_segmentation


class LabelError(Exception):
    """A label that can't be used: what was found, and what was expected."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"found {found}; expected {expected}")
        self.found = found
        self.expected = expected


class UnknownClassError(LabelError):
    """A label of a class that the data set doesn't have; `expected` has the nearest name."""

    def __init__(self, name: str, expected: str) -> None:
        super().__init__(f"category {name!r}", expected)
        self.name = name


def annotation_of(label: Any, ids: Mapping[str, int], height: int, width: int) -> tuple[dict[str, Any], bool]:
    """A label as a COCO annotation without ids, and whether it has only a box, which becomes a region to ignore.

    Args:
        label: the JSON object.
        ids: class ids by name.
        height: of the image, pixels.
        width: of the image, pixels.

    Raises:
        LabelError: what is wrong with it.
    """
    if not isinstance(label, dict):
        raise LabelError(type(label).__name__, "an object with category and rle or poly2d")
    category = label.get("category")
    if not isinstance(category, str):
        raise LabelError(f"category {short(category)}", "the name of a class")
    category_id, to_ignore, expected = resolve(category, ids)
    if category_id is None:
        raise UnknownClassError(category, expected)
    score = label.get("score")
    if score is not None and not is_number(score):
        raise LabelError(f"score {short(score)}", "a finite number, or none")
    attributes = label.get("attributes") or {}
    flags = _flags(attributes)
    try:
        counts, is_box = _mask(label, height, width)
    except ValueError as error:
        raise LabelError(str(error), "an RLE of the image's size, closed outlines, or a box") from None
    if to_ignore or is_box:
        flags.add("ignored")
    annotation: dict[str, Any] = {
        "category_id": category_id,
        "segmentation": {"size": [height, width], "counts": counts},
        "iscrowd": int(bool(flags & {"crowd", "ignored"})),
        "attributes": {flag: flag in flags for flag in FLAGS},
    }
    if score is not None:
        annotation["score"] = float(score)
    if isinstance(attributes.get("point_id"), str):
        annotation["point_id"] = attributes["point_id"]
    return annotation, is_box


def _flags(attributes: Any) -> set[str]:
    if not isinstance(attributes, dict):
        raise LabelError(f"attributes of type {type(attributes).__name__}", "an object")
    flags = set()
    for key, value in attributes.items():
        if key.lower() in FLAGS:  # BDD100K's tracking labels have Occluded
            if not isinstance(value, bool | None):
                raise LabelError(f"{key} {short(value)}", "true or false")
            if value:
                flags.add(key.lower())
    return flags


def _mask(label: Mapping[str, Any], height: int, width: int) -> tuple[bytes, bool]:
    """Compressed RLE of a label, and whether it is that of its box.

    Raises:
        ValueError: what is wrong with it.
    """
    if label.get("rle") is not None:
        if not isinstance(label["rle"], dict):
            raise ValueError(f"rle of type {type(label['rle']).__name__}")
        return from_segmentation(label["rle"], height, width), False
    if label.get("poly2d"):
        parts = bezier.polygons(label["poly2d"], height, width)
        return from_polygons(parts, height, width), False
    if label.get("box2d") is None:
        raise ValueError("neither rle nor poly2d nor box2d")
    x1, y1, x2, y2 = _corners(label["box2d"])
    return from_polygons([[x1, y1, x2, y1, x2, y2, x1, y2]], height, width), True


def _corners(box: Any) -> list[float]:
    """x1, y1, x2, y2 of a box2d in pixels, as outer edges: Scalabel's x2 and y2 are the last pixels inside."""
    given = [box.get(key) for key in ("x1", "y1", "x2", "y2")] if isinstance(box, dict) else []
    corners = [float(value) for value in given if is_number(value)]
    if len(corners) != 4 or corners[2] < corners[0] or corners[3] < corners[1]:
        raise ValueError(f"box2d {short(box)}, not numbers with x1 <= x2 and y1 <= y2")
    return [*corners[:2], corners[2] + 1, corners[3] + 1]


def short(value: Any) -> str:
    """A value as messages show it."""
    return repr(value)[:100]
