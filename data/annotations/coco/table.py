"""Annotations of a COCO file as INSTANCES rows, in batches.

A batch without faults is checked column by column, and its polygons are drawn from one array. A batch with faults or
unusual values is checked row by row by `data.annotations.coco.checks`, which reports what is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from data.annotations.coco.checks import (
    HIGHEST,
    Faults,
    WrongAreas,
    WrongSize,
    annotation_problem,
    has_mask,
    valid_rows,
    without_degenerate_parts,
)
from data.masks import rle
from data.masks.polygons import MAX_OUTLINE, REACH, draw_polygons, from_segmentation
from data.masks.rle import FloatArray, IntArray
from data.schemas import INSTANCES

_ABSENT = object()


class AnnotationReader:
    """Checks annotations and turns them into rows, batch by batch.

    Args:
        sizes: (height, width) in pixels of each image, by id; (0, 0) of a faulty one.
        category_ids: of the file.
        need_masks: whether an annotation without a mask is a fault.
        faults: extended by faults that end the reading.
        rejected: extended by faults of annotations, which are then left out; None: `faults` is extended instead.
    """

    def __init__(
        self,
        sizes: Mapping[int, tuple[int, int]],
        category_ids: Collection[int],
        need_masks: bool,
        faults: Faults,
        rejected: Faults | None = None,
    ) -> None:
        self.used: set[int] = set()
        """Category ids of the annotations."""
        self.wrong_areas = WrongAreas()
        self.sizes = sizes
        self.categories = dict.fromkeys(sorted(category_ids))
        self.need_masks = need_masks
        self.faults = faults
        self.rejected = rejected
        self.tables = [INSTANCES.empty_table()]
        self._ids: set[int] = set()
        self._count = 0
        self._image_ids = np.array(sorted(sizes), dtype=np.int64)
        self._sizes = np.array([sizes[i] for i in self._image_ids.tolist()], dtype=np.int64).reshape(-1, 2)
        self._category_ids = np.array(list(self.categories), dtype=np.int64)

    def add(self, rows: list[Any]) -> None:
        """Check the next annotations; keep those with a mask unless the file has a fault."""
        batch = _plain(rows)
        table = None if batch is None else self._drawn(batch)
        if batch is None or table is None or not self._are_new(batch.ids):
            good = self.valid(rows)
            table = INSTANCES.empty_table()
            if not self.faults.found:
                table = instances_table(good, self.sizes, self.wrong_areas)
        else:
            self._count += len(rows)
            self.used.update(np.unique(batch.category_ids).tolist())
        if not self.faults.found:
            self.tables.append(table)

    def valid(self, rows: list[Any]) -> list[dict[str, Any]]:
        """The annotations without a fault; faults of the others are added."""

        def problem(row: dict[str, Any]) -> tuple[str, str] | WrongSize | None:
            return annotation_problem(row, self.sizes, self.categories, self.need_masks)

        faults = self.faults
        if self.rejected is not None:
            faults = self.rejected
            rows = [without_degenerate_parts(row, faults) for row in rows]
        good = list(valid_rows(rows, "annotation", problem, faults, self._ids, self._count))
        self._count += len(rows)
        self.used.update(row["category_id"] for row in good)
        return good

    def _are_new(self, ids: IntArray) -> bool:
        """Whether all ids are new; if so, they are recorded."""
        values = set(ids.tolist())
        if len(values) < len(ids) or not self._ids.isdisjoint(values):
            return False
        self._ids |= values
        return True

    def _drawn(self, batch: _Batch) -> pa.Table | None:
        """The rows of a batch that have a mask; None if anything is wrong or unusual."""
        if not (self._image_ids.size and self._category_ids.size):
            return None
        at = np.minimum(np.searchsorted(self._image_ids, batch.image_ids), self._image_ids.size - 1)
        sizes = self._sizes[at]
        known = (self._image_ids[at] == batch.image_ids).all() and sizes.all()
        if not known or not np.isin(batch.category_ids, self._category_ids).all():
            return None
        with_mask = [n for n, value in enumerate(batch.segmentations) if value]
        if len(with_mask) < len(batch.segmentations) and (
            self.need_masks or not _are_void(batch.segmentations)
        ):
            return None
        codes = _codes([batch.segmentations[n] for n in with_mask], sizes[with_mask])
        if codes is None:
            return None
        rest = list(zip(codes, sizes[with_mask].tolist(), strict=True))
        areas = [batch.areas[n] for n in with_mask]
        boxes = [batch.boxes[n] for n in with_mask]
        return pa.table(
            {
                "instance_id": batch.ids[with_mask],
                "image_id": batch.image_ids[with_mask],
                "category_id": batch.category_ids[with_mask],
                "bbox_xywh": [
                    rle.bbox_xywh(code, *size) if box is None else list(map(float, box))
                    for box, (code, size) in zip(boxes, rest, strict=True)
                ],
                "area": [
                    float(self.wrong_areas.usable(own, None if area is _ABSENT else area, code, *size))
                    for own, area, (code, size) in zip(
                        batch.ids[with_mask].tolist(), areas, rest, strict=True
                    )
                ],
                "iscrowd": [bool(batch.crowds[n]) for n in with_mask],
                "rle_counts": codes,
                "source": ["annotator"] * len(with_mask),
                "score": pa.nulls(len(with_mask), INSTANCES.field("score").type),
            },
            schema=INSTANCES,
        )


class _Batch(NamedTuple):
    """Annotations by column, of the right types."""

    ids: IntArray
    image_ids: IntArray
    category_ids: IntArray
    crowds: list[int]
    areas: list[Any]
    """Finite and not negative, or _ABSENT."""
    boxes: list[list[float] | None]
    segmentations: list[Any]
    """Not checked."""


def _plain(rows: list[Any]) -> _Batch | None:
    """The rows by column; None if any value is unusual for a COCO file."""
    if not set(map(type, rows)) <= {dict}:  # not `DuplicateKeys`
        return None
    try:
        ids, image_ids, category_ids = (
            _whole_numbers([row[name] for row in rows]) for name in ("id", "image_id", "category_id")
        )
        crowds = [row.get("iscrowd", 0) for row in rows]
        areas = [row.get("area", _ABSENT) for row in rows]
        boxes = [row.get("bbox") for row in rows]
        given = [box for box in boxes if box is not None]
        fours = all(type(box) is list and len(box) == 4 for box in given)
        binary = set(crowds) <= {0, 1}
        area, flat = _numbers([one for one in areas if one is not _ABSENT]), _numbers(chain(*given))
    except (KeyError, TypeError, OverflowError, AttributeError):
        return None
    if not (fours and binary) or (area < 0).any() or (flat.reshape(-1, 4)[:, 2:] < 0).any():
        return None
    segmentations = [row.get("segmentation") for row in rows]
    return _Batch(ids, image_ids, category_ids, crowds, areas, boxes, segmentations)


def _whole_numbers(values: list[Any]) -> IntArray:
    if not set(map(type, values)) <= {int}:
        raise TypeError
    return np.array(values, dtype=np.int64)


def _numbers(values: Iterable[Any]) -> FloatArray:
    """The values as float64.

    Raises:
        TypeError: a value that is no number, or that the tables can't hold.
    """
    listed = list(values)
    if not set(map(type, listed)) <= {int, float}:
        raise TypeError
    numbers = np.array(listed, dtype=np.float64)
    if not (np.abs(numbers) <= HIGHEST).all():
        raise TypeError
    return numbers


def _are_void(segmentations: list[Any]) -> bool:
    return all(value is None or value in ([], {}) for value in segmentations if not value)


def _codes(segmentations: list[Any], sizes: IntArray) -> list[bytes] | None:
    """Compressed RLEs of segmentations, given image sizes [n, 2]; None if one is faulty or unusual."""
    polygons = [n for n, value in enumerate(segmentations) if type(value) is list]
    codes: list[bytes] = [b""] * len(segmentations)
    try:
        for n, value in enumerate(segmentations):
            if type(value) is not list:
                codes[n] = from_segmentation(value, *sizes[n].tolist())
        parts = list(chain.from_iterable(segmentations[n] for n in polygons))
        if not set(map(type, parts)) <= {list}:
            return None
        lengths = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
        values = _numbers(chain.from_iterable(parts))
    except (TypeError, ValueError, OverflowError):
        return None
    if not parts:
        return codes
    counts = [len(segmentations[n]) for n in polygons]
    side = np.repeat(sizes[polygons].max(axis=1), counts)
    if (lengths % 2).any() or lengths.min() < 6 or (lengths * 2 * side > MAX_OUTLINE).any():
        return None
    stops = np.cumsum(lengths)
    if (np.maximum.reduceat(np.abs(values), stops - lengths) > REACH * side).any():
        return None
    cut = np.split(values, stops[:-1])
    first = 0
    for n, count in zip(polygons, counts, strict=True):
        codes[n] = draw_polygons(cut[first : first + count], *sizes[n].tolist())
        first += count
    return codes


def instances_table(
    rows: Iterable[dict[str, Any]], sizes: Mapping[int, tuple[int, int]], wrong_areas: WrongAreas
) -> pa.Table:
    """Valid annotations with a mask as INSTANCES rows, in the given order.

    Args:
        rows: of one file.
        sizes: (height, width) in pixels by image id.
        wrong_areas: extended.
    """
    columns: dict[str, list[Any]] = {name: [] for name in INSTANCES.names}
    for row in rows:
        if not has_mask(row):
            continue
        height, width = sizes[row["image_id"]]
        counts = from_segmentation(row["segmentation"], height, width)
        box = row.get("bbox") or None
        columns["instance_id"].append(row["id"])
        columns["image_id"].append(row["image_id"])
        columns["category_id"].append(row["category_id"])
        box = rle.bbox_xywh(counts, height, width) if box is None else box
        # float: pyarrow refuses whole numbers that float32 rounds.
        columns["bbox_xywh"].append(list(map(float, box)))
        columns["area"].append(float(wrong_areas.usable(row["id"], row.get("area"), counts, height, width)))
        columns["iscrowd"].append(bool(row.get("iscrowd", 0)))
        columns["rle_counts"].append(counts)
        columns["source"].append("annotator")
        columns["score"].append(None)
    return pa.table(columns, schema=INSTANCES)
