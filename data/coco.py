"""COCO instances and results: read with every fault listed, and written.

Masks come as polygons, uncompressed or compressed RLE; crowds, empty images and empty masks are kept.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data import masks, storage
from data.errors import DataError, Fault
from data.tables import INSTANCES, Category, concat_instances

MAX_PIXELS = 2**29  # of an image as annotated; more is a mistake, or meant to exhaust memory


@dataclass(frozen=True)
class CocoFile:
    """A validated COCO instances file: its records as they are, sorted by id."""

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[Category]
    path: str


class _Faults:
    """Collects the faults of one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: list[Fault] = []

    def add(self, record: str, found: str, expected: str, next_step: str = "correct this record") -> None:
        self.found.append(Fault(self.path, record, found, expected, next_step))


def load_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file.

    Raises:
        DataError: missing, unreadable or not JSON.
    """
    try:
        with Path(path).open("rb") as file:
            return json.load(file)
    except FileNotFoundError:
        found, step = "no such file", "correct the path in params.yaml"
    except (OSError, ValueError, RecursionError) as error:
        found, step = f"not readable as JSON ({error})", "export the file again"
    raise DataError(Fault(str(path), "file", found, "a COCO JSON file", step))


def write_json(value: Any, path: str | os.PathLike[str]) -> None:
    """Write compact JSON, atomically; the same value gives the same bytes."""
    with storage.atomic_write(path) as partial:
        partial.write_text(
            json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n", "utf-8"
        )


def read_coco(path: str | os.PathLike[str], *, need_masks: bool = True) -> CocoFile:
    """Read and validate a COCO instances file.

    Args:
        path: the JSON file.
        need_masks: whether an annotation without ``segmentation`` is a fault. Files of weak images
            may carry boxes or points instead, which only point importers read.

    Raises:
        DataError: all faults of the file: missing or wrong fields, repeated ids, unknown image or
            category ids, degenerate polygons, RLEs that don't fit their image.
    """
    document = load_json(path)
    faults = _Faults(str(path))
    parts: dict[str, list[dict[str, Any]]] = {}
    for name in ("images", "annotations", "categories"):
        value = document.get(name) if isinstance(document, dict) else None
        if not isinstance(value, list):
            faults.add("file", f"no list {name!r}", "a COCO file: images, annotations, categories")
            value = []
        parts[name] = value
    images = _valid(parts["images"], "image", _image_problem, faults)
    categories = _valid(parts["categories"], "category", _category_problem, faults)
    names = [row["name"] for row in categories.values()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.add(f"category {name!r}", "two categories of this name", "names that differ")

    sizes = {i: (row["height"], row["width"]) for i, row in images.items()}

    def annotation_problem(row: dict[str, Any]) -> tuple[str, str] | None:
        return _annotation_problem(row, sizes, categories, need_masks)

    annotations = _valid(parts["annotations"], "annotation", annotation_problem, faults)
    if faults.found:
        raise DataError(faults.found)
    return CocoFile(
        images=[images[i] for i in sorted(images)],
        annotations=[annotations[i] for i in sorted(annotations)],
        categories=sorted(Category(i, row["name"]) for i, row in categories.items()),
        path=str(path),
    )


def _valid(
    rows: list[Any],
    kind: str,
    problem: Callable[[dict[str, Any]], tuple[str, str] | None],
    faults: _Faults,
) -> dict[int, dict[str, Any]]:
    """The rows by id, those with a fault left out and reported."""
    by_id: dict[int, dict[str, Any]] = {}
    for n, row in enumerate(rows):
        if not isinstance(row, dict):
            faults.add(f"{kind} #{n}", type(row).__name__, "a JSON object")
        elif not _is_id(row.get("id")):
            faults.add(f"{kind} #{n}", f"id {row.get('id')!r}", "a whole number as id")
        elif row["id"] in by_id:
            faults.add(f"{kind} {row['id']} (#{n})", "an id that an earlier record has", "ids that differ")
        elif (wrong := problem(row)) is not None:
            faults.add(f"{kind} {row['id']}", *wrong)
            if kind != "annotation":
                by_id[row["id"]] = {"name": "", "height": 0, "width": 0}  # known: report it once only
        else:
            by_id[row["id"]] = row
    return by_id


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _image_problem(row: dict[str, Any]) -> tuple[str, str] | None:
    if not isinstance(row.get("file_name"), str) or not row["file_name"]:
        return f"file_name {row.get('file_name')!r}", "the name of an image file"
    if not storage.is_safe(row["file_name"]):
        return f"file_name {row['file_name']!r}", "a path under the image root"
    width, height = row.get("width"), row.get("height")
    if not (_is_id(width) and _is_id(height) and width > 0 and height > 0):  # type: ignore[operator]
        return f"width {width!r}, height {height!r}", "whole numbers above 0"
    if width * height > MAX_PIXELS:  # type: ignore[operator]
        return f"{width} x {height} pixels", f"at most {MAX_PIXELS} pixels"
    return None


def _category_problem(row: dict[str, Any]) -> tuple[str, str] | None:
    if not isinstance(row.get("name"), str) or not row["name"]:
        return f"name {row.get('name')!r}", "a class name"
    return None


def _annotation_problem(
    row: dict[str, Any],
    sizes: Mapping[int, tuple[int, int]],
    categories: Mapping[int, Any],
    need_masks: bool,
) -> tuple[str, str] | None:
    """What is wrong with an annotation, and what was expected."""
    image_id, category_id = row.get("image_id"), row.get("category_id")
    size = sizes.get(image_id) if _is_id(image_id) else None  # type: ignore[arg-type]
    if size is None:
        return f"image_id {image_id!r}", "the id of an image in this file"
    if not _is_id(category_id) or category_id not in categories:
        known = ", ".join(map(str, sorted(categories)[:20]))
        return f"category_id {category_id!r}", f"the id of a category in this file ({known})"
    for name, (is_valid, expected) in _OPTIONAL_FIELDS.items():
        if name in row and not is_valid(row[name]):
            return f"{name} {row[name]!r}", expected
    if not _has_mask(row):
        return ("no segmentation", "polygons or an RLE") if need_masks else None
    if 0 not in size:  # else the image itself is at fault, and reported
        try:
            _check_segmentation(row["segmentation"], *size)
        except ValueError as error:
            return f"segmentation: {error}", "polygons or an RLE of the image's size"
    return None


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0


_OPTIONAL_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "iscrowd": (lambda value: value in (0, 1), "0 or 1"),
    "area": (lambda value: _is_number(value) and value >= 0, "a number of 0 or more"),
    "bbox": (lambda value: value is None or _is_box(value), "[x, y, width, height]"),
}


def _has_mask(row: dict[str, Any]) -> bool:
    return row.get("segmentation") not in (None, [], {})


def _check_segmentation(segmentation: Any, height: int, width: int) -> None:
    # Polygons are checked without being drawn, which to_instances does once.
    if isinstance(segmentation, list):
        masks.check_polygons(segmentation, height, width)
    else:
        masks.from_segmentation(segmentation, height, width)


def to_instances(coco: CocoFile) -> pa.Table:
    """Annotations with a mask as INSTANCES rows (source "annotator"), by image_id, then instance_id.

    Box and area are the file's own where it has them (COCO's evaluation goes by the given area),
    else the mask's.
    """
    sizes = {row["id"]: (row["height"], row["width"]) for row in coco.images if "height" in row}
    columns: dict[str, list[Any]] = {name: [] for name in INSTANCES.names}
    for row in coco.annotations:
        if not _has_mask(row):
            continue
        height, width = sizes[row["image_id"]]
        counts = masks.from_segmentation(row["segmentation"], height, width)
        box = row.get("bbox")
        area = row.get("area")
        columns["instance_id"].append(row["id"])
        columns["image_id"].append(row["image_id"])
        columns["category_id"].append(row["category_id"])
        columns["bbox_xywh"].append(masks.bbox_xywh(counts, height, width) if box is None else box)
        columns["area"].append(masks.area(counts, height, width) if area is None else area)
        columns["iscrowd"].append(bool(row.get("iscrowd", 0)))
        columns["rle_counts"].append(counts)
        columns["source"].append("annotator")
        columns["score"].append(None)
    return concat_instances([pa.table(columns, schema=INSTANCES)])


def write_coco(
    path: str | os.PathLike[str], images: pa.Table, instances: pa.Table, categories: Iterable[Category]
) -> None:
    """Write IMAGES and INSTANCES rows as a COCO instances file, masks as compressed RLE.

    ``source`` and ``score`` of pseudo labels are kept as fields of their own.
    """
    sizes = {
        row["image_id"]: [row["height"], row["width"]]
        for row in images.select(["image_id", "height", "width"]).to_pylist()
    }
    annotations = []
    for row in instances.to_pylist():
        annotation = {
            "id": row["instance_id"],
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "segmentation": {"size": sizes[row["image_id"]], "counts": row["rle_counts"].decode("ascii")},
            "area": _tidy(row["area"]),
            "bbox": [_tidy(value) for value in row["bbox_xywh"]],
            "iscrowd": int(row["iscrowd"]),
        }
        if row["source"] != "annotator":
            annotation |= {"source": row["source"], "score": _tidy(row["score"])}
        annotations.append(annotation)
    document = {
        "images": [
            {"id": row["image_id"]} | {name: row[name] for name in ("file_name", "width", "height")}
            for row in images.to_pylist()
        ],
        "annotations": annotations,
        "categories": [{"id": c.id, "name": c.name} for c in categories],
    }
    write_json(document, path)


def _tidy(value: float | None) -> float | None:
    """The shortest decimal that is the same float32: 39.74, not 39.74000167846."""
    return None if value is None else float(str(np.float32(value)))


def write_results(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write detections as a COCO results file.

    Args:
        path: the JSON file to write.
        rows: image_id, category_id (the data set's own), score, height, width, rle_counts (bytes).
    """
    results = []
    for row in rows:
        height, width = int(row["height"]), int(row["width"])
        results.append(
            {
                "image_id": int(row["image_id"]),
                "category_id": int(row["category_id"]),
                "segmentation": {"size": [height, width], "counts": row["rle_counts"].decode("ascii")},
                "bbox": list(masks.bbox_xywh(row["rle_counts"], height, width)),
                "score": float(row["score"]),
            }
        )
    with storage.atomic_write(Path(path)) as partial:
        # One detection a line: long files stay diffable and can be read in part.
        lines = ",\n".join(json.dumps(row, allow_nan=False, separators=(",", ":")) for row in results)
        partial.write_text(f"[{lines}]\n", "utf-8")
