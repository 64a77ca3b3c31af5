"""Points on an object that has an earlier point: in the same pixel, or another annotator's click close by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.points.record import PointRecord, Problem
from data.points.values import moment


def find_duplicates(
    records: Sequence[PointRecord],
    image_ids: NDArray[np.int64],
    category_ids: NDArray[np.int64],
    radius: float,
) -> dict[int, Problem]:
    """The problem of each duplicate record, by its index; the earliest by time, then by order, is kept.

    - "same_record": another file has the same point of the same annotator (exports that overlap);
    - "duplicate_annotator": another annotator clicked in the same pixel, or within ``radius``. A point absorbs at most
      one click of each other annotator, since two clicks of one annotator are two objects;
    - "duplicate_point": the same pixel otherwise, such as a double click; objects don't share a pixel.

    Only points of the same image and class are compared.

    Args:
        records: with x and y, in the order of import. K points.
        image_ids: int64 [K].
        category_ids: int64 [K].
        radius: in pixels; 0 compares pixels only.
    """
    if not records:
        return {}
    x = np.array([record.x for record in records], np.float64)
    y = np.array([record.y for record in records], np.float64)
    times = {time: moment(time) for time in {record.labelled_at for record in records}}
    when = np.array([times[record.labelled_at] for record in records])
    when[np.isneginf(when)] = np.inf  # records without a time come last
    columns, rows = np.floor(x), np.floor(y)
    order = np.lexsort((np.arange(len(records)), when, columns, rows, category_ids, image_ids))
    key = np.stack([image_ids, category_ids, rows.astype(np.int64), columns.astype(np.int64)], axis=1)[order]
    repeated = np.zeros(len(records), bool)
    repeated[1:] = (key[1:] == key[:-1]).all(axis=1)
    firsts = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(records))))
    problems = {
        int(n): _same_pixel(records[n], records[first])
        for n, first in zip(order[repeated], order[firsts[repeated]], strict=True)
    }
    if radius > 0:
        rest = np.array([n for n in np.lexsort((np.arange(len(records)), when)) if n not in problems])
        problems |= _close_by(records, rest, image_ids, category_ids, radius)
    return problems


def _described(record: PointRecord) -> str:
    return f"{record.source_file}: {record.source_record}, at ({record.x:g}, {record.y:g})"


def _other_annotator(a: PointRecord, b: PointRecord) -> bool:
    return a.annotator is not None and b.annotator is not None and a.annotator != b.annotator


def _same_pixel(record: PointRecord, first: PointRecord) -> Problem:
    found = f"the pixel of {_described(first)}"
    if _other_annotator(record, first):
        return Problem("duplicate_annotator", found, "one point an object; the earlier one counts")
    exactly = (record.x, record.y, record.annotator) == (first.x, first.y, first.annotator)
    if exactly and record.source_file != first.source_file:
        return Problem("same_record", found, "each point in one file; the first counts")
    return Problem("duplicate_point", found, "one point an object")


def _close_by(
    records: Sequence[PointRecord],
    order: NDArray[np.int64],
    image_ids: NDArray[np.int64],
    category_ids: NDArray[np.int64],
    radius: float,
) -> dict[int, Problem]:
    """Clicks within ``radius`` of an earlier kept one of another annotator that has absorbed none of theirs yet."""
    problems: dict[int, Problem] = {}
    kept: dict[tuple[Any, ...], list[int]] = {}  # cells of side `radius`: neighbours are in 3 x 3 of them
    absorbed: dict[int, set[str]] = {}
    for n in order.tolist():
        record = records[n]
        assert record.x is not None and record.y is not None
        group = (int(image_ids[n]), int(category_ids[n]))
        column, row = int(record.x // radius), int(record.y // radius)
        near = []
        if record.annotator is not None:
            for cell in ((c, r) for c in range(column - 1, column + 2) for r in range(row - 1, row + 2)):
                for other in kept.get((*group, *cell), ()):
                    o = records[other]
                    assert o.x is not None and o.y is not None
                    distance = np.hypot(o.x - record.x, o.y - record.y)
                    taken = record.annotator in absorbed.get(other, ())
                    if distance <= radius and _other_annotator(o, record) and not taken:
                        near.append((float(distance), other))
        if near:
            distance, other = min(near)
            absorbed.setdefault(other, set()).add(str(record.annotator))
            found = f"{distance:.1f} px from {_described(records[other])}"
            problems[n] = Problem("duplicate_annotator", found, "one point an object; the earlier one counts")
        else:
            kept.setdefault((*group, column, row), []).append(n)
    return problems
