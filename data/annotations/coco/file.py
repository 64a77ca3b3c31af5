"""COCO instances and results: read, with all faults listed, and written.

Masks may be polygons, uncompressed or compressed RLE. Crowds, empty images and empty masks are kept.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data import storage
from data.annotations.coco.checks import (
    Faults,
    WrongAreas,
    category_problem,
    image_problem,
    keys_problem,
    valid_rows,
)
from data.annotations.coco.table import AnnotationReader, instances_table
from data.annotations.json_stream import JsonFile
from data.annotations.strict_json import DELETE, duplicate_fault, to_json
from data.errors import DataError, Fault
from data.masks import rle
from data.tables import Category, concat_instances

log = logging.getLogger(__name__)

__all__ = [
    "CocoFile", "read_coco", "to_instances", "write_coco", "write_json", "write_results",
]  # fmt: skip

BATCH = 4096  # records read at once
_IMAGE_KEYS = ("id", "file_name", "width", "height")


@dataclass(frozen=True)
class CocoFile:
    """A validated COCO instances file: its records, sorted by id."""

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    """Empty if they were read as INSTANCES rows."""
    categories: list[Category]
    path: str
    instances: pa.Table | None = None
    """The annotations with a mask as INSTANCES rows, if they were read as such."""
    rejected: tuple[Fault, ...] = ()
    """Faults of the annotations that were left out."""
    not_images: frozenset[str] = frozenset()
    """Image files below the image root that are label maps."""
    wrong_areas: WrongAreas = field(default_factory=WrongAreas)
    """Of the annotations that were read as INSTANCES rows."""


def write_json(value: Any, path: str | os.PathLike[str]) -> None:
    """Write compact JSON, atomically; the same value gives the same bytes."""
    with storage.atomic_write(path) as partial:
        partial.write_text(to_json(value) + "\n", "utf-8")


def read_coco(
    path: str | os.PathLike[str],
    *,
    need_masks: bool = True,
    keep_annotations: bool = True,
    reject: bool = False,
    any_place: bool = False,
) -> CocoFile:
    """Read and validate a COCO instances file in parts.

    Args:
        path: the JSON file.
        need_masks: whether an annotation without ``segmentation`` is a fault. Files of weak images may have boxes or
            points instead, which only point importers read.
        keep_annotations: return the records themselves, some kilobytes each. False is for files of COCO's size:
            annotations become INSTANCES rows, and images keep only id, file_name, width and height.
        reject: leave out faulty annotations, and degenerate parts of polygons if other parts remain, and list them in
            `CocoFile.rejected`. False: they are faults of the file.
        any_place: allow file names that lead out of the image root, which the caller looks up. False: they are faults.

    Raises:
        DataError: all faults of the file: missing or wrong fields, repeated ids, unknown image or category ids,
            degenerate polygons, RLEs of another size than their image.
    """
    file = JsonFile.open(path)
    faults = Faults(str(path))
    for name in ("images", "annotations", "categories"):
        if name not in file.lists:
            faults.add("file", f"no list {name!r}", "a COCO file: images, annotations, categories")
    faults.found += [duplicate_fault(str(path), *one) for one in file.duplicates]
    images: dict[int, dict[str, Any]] = {}
    categories: dict[int, dict[str, Any]] = {}
    for kind, name, problem, by_id in (
        ("image", "images", partial(image_problem, any_place=any_place), images),
        ("category", "categories", category_problem, categories),
    ):
        for row in valid_rows(chain.from_iterable(_batches(file, name)), kind, problem, faults, set()):
            kept = row if keep_annotations else {key: row[key] for key in _IMAGE_KEYS if key in row}
            by_id[row["id"]] = kept if kind == "image" else row
    sizes = {i: (row["height"], row["width"]) for i, row in images.items()}
    rejected = Faults(str(path))
    reader = AnnotationReader(sizes, categories, need_masks, faults, rejected if reject else None)
    annotations = []
    for rows in _with_ids(_batches(file, "annotations")):
        if keep_annotations:
            annotations += reader.valid(rows)
        else:
            reader.add(rows)
    for name in sorted(file.lists.keys() - {"images", "annotations", "categories"}):
        # Not used, but it must be valid JSON.
        for n, row in enumerate(chain.from_iterable(_batches(file, name))):
            if (wrong := keys_problem(row)) is not None:
                faults.add(f"{name[:50]} #{n}", *wrong, DELETE)
    _drop_parents(categories, reader.used, faults)
    if faults.found:
        raise DataError(faults.found)
    if reader.wrong_areas.count:
        log.warning("%s: %s", path, reader.wrong_areas)
    return CocoFile(
        images=[images[i] for i in sorted(images)],
        annotations=sorted(annotations, key=itemgetter("id")),
        categories=sorted(Category(i, row["name"]) for i, row in categories.items()),
        path=str(path),
        instances=None if keep_annotations else concat_instances(reader.tables),
        rejected=tuple(rejected.found),
        wrong_areas=reader.wrong_areas,
    )


def _drop_parents(categories: dict[int, dict[str, Any]], used: Set[int], faults: Faults) -> None:
    """Remove categories that only group others, as in Roboflow's class tables: supercategories without annotations.

    Of a group of one name with a class that class is kept. Any other two categories of one name are a fault.
    """
    names = Counter(row["name"] for row in categories.values())
    for name in sorted(name for name, number in names.items() if name and number > 1):
        twins = [i for i, row in sorted(categories.items()) if row["name"] == name]
        kept = [i for i in twins if i in used or categories[i].get("supercategory") == name]
        if len(kept) != 1 or categories[kept[0]].get("supercategory") != name:
            faults.add(f"category {name!r}", "two categories of this name", "names that differ")
            continue
        for i in set(twins) - set(kept):
            del categories[i]
            log.info("%s: category %d is the parent of class %r; left out", faults.path, i, name)
    parents = {
        row.get("supercategory") for row in categories.values() if row.get("supercategory") != row["name"]
    }
    for i, row in sorted(categories.items()):
        if i not in used and row["name"] in parents and row.get("supercategory") != row["name"]:
            del categories[i]
            log.info("%s: category %d, %r, only groups others; left out", faults.path, i, row["name"])


def _batches(file: JsonFile, name: str) -> Iterator[list[Any]]:
    return file.batches(name, BATCH) if name in file.lists else iter(())


def _with_ids(batches: Iterator[list[Any]]) -> Iterator[list[Any]]:
    """The annotations, numbered from 1 if the first one has no id."""
    first = next(batches, [])
    numbers = count(1)
    is_numbered = bool(first) and isinstance(first[0], dict) and "id" not in first[0]
    for rows in chain([first], batches):
        if is_numbered:  # in place, since a record with duplicate keys is of a class of its own
            for row, number in zip(rows, numbers, strict=False):
                if isinstance(row, dict):
                    row["id"] = number
        yield rows


def to_instances(coco: CocoFile) -> pa.Table:
    """Annotations with a mask as INSTANCES rows (source "annotator"), by image_id, then instance_id.

    Box and area are those in the file (COCO's evaluation uses that area), else the mask's own; the mask's own also
    replaces an area that can't be right (`WrongAreas`).
    """
    if coco.instances is not None:
        return coco.instances
    sizes = {row["id"]: (row["height"], row["width"]) for row in coco.images if "height" in row}
    return concat_instances([instances_table(coco.annotations, sizes, coco.wrong_areas)])


def write_coco(
    path: str | os.PathLike[str], images: pa.Table, instances: pa.Table, categories: Iterable[Category]
) -> None:
    """Write IMAGES and INSTANCES rows as a COCO instances file, masks as compressed RLE.

    ``source`` and ``score`` of pseudo labels are additional fields.
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
            "area": tidy(row["area"]),
            "bbox": [tidy(value) for value in row["bbox_xywh"]],
            "iscrowd": int(row["iscrowd"]),
        }
        if row["source"] != "annotator":
            annotation |= {"source": row["source"], "score": tidy(row["score"])}
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


def tidy(value: Any) -> Any:
    """The shortest decimal that is the same float32: 39.74, not 39.74000167846; None for None."""
    return None if value is None else float(str(np.float32(value)))


def write_results(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write detections as a COCO results file, in memory that doesn't grow with their number.

    Args:
        path: the JSON file to write.
        rows: image_id, category_id (the data set's own), score, height, width, rle_counts (bytes).
    """
    with storage.atomic_write(Path(path)) as partial, partial.open("w", encoding="utf-8") as file:
        # One detection a line: long files can be diffed and read in part.
        file.write("[")
        for n, row in enumerate(rows):
            file.write((",\n" if n else "") + to_json(result(row)))
        file.write("]\n")


def result(row: Mapping[str, Any]) -> dict[str, Any]:
    """A detection as COCO's results have it; ``row`` as ``write_results`` takes it."""
    height, width = int(row["height"]), int(row["width"])
    return {
        "image_id": int(row["image_id"]),
        "category_id": int(row["category_id"]),
        "segmentation": {"size": [height, width], "counts": row["rle_counts"].decode("ascii")},
        "bbox": list(rle.bbox_xywh(row["rle_counts"], height, width)),
        "score": float(row["score"]),
    }
