"""Records and files of points that can't be used, as faults: one for all records of a file with the same cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data.points.columns import NAME_COLUMN
from data.points.record import SET_ASIDE
from data.tables import REJECTED, Fault

BAD_FILE = "bad_file"
"""Reason of a row of rejected.parquet that is a whole file."""
EXAMPLES = 3
"""Faults of one cause in one file that are listed one by one; more are one fault with so many examples."""
SHOWN_FOUND = 200
"""Characters of an example."""

STEPS = {
    "unknown_image": "correct the image's name",
    "unknown_category": "map the name in points.classes (see docs/points.md), or correct it",
    "rejected_image": "restore the image",
    "other_split": "take these clicks out, or make it a weak image",
    "bad_object": "give each object a name of its own, or correct its clicks",
    "no_click_inside": "give it the object of a click inside (see docs/points.md), or remove it",
    "other_size": "export the clicks for the image as it is, restore the one that was annotated, or set points.scale",
}
"""What to do about records that name one image, class or object."""
NAME_STEP = "name the columns in points.columns, e.g. {image: file, category: type}, or correct the names"
CLASS_STEP = "give them a class, or map '' in points.classes (see docs/points.md)"
RECORD_STEP = "correct the record"
UNTIL = {
    "stop": ", or set points.on_reject: report to leave out what can't be used",
    "report": "; left out until then (points.on_reject: report)",
}


class Lost(NamedTuple):
    """A fault, the word for its cause, and how many records (or whole files) have it."""

    fault: Fault
    reason: str
    records: int


def lost_records(rows: Iterable[dict[str, Any]], on_reject: str) -> list[Lost]:
    """Rows of REJECTED that need a correction, as faults, the most frequent first.

    Records of one file that name the same unknown image or class are one fault.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for n, row in enumerate(rows):
        if row["reason"] in SET_ASIDE or row["reason"] == BAD_FILE:
            continue
        what = [row[name] for name in ("file", "reason", "found", "expected")]
        if row["reason"] not in STEPS:
            what.append(n)
        elif row["reason"] == "other_size":
            what.append(row["image"])
        groups.setdefault(tuple(what), []).append(row)
    found = [_lost(group, on_reject) for group in groups.values()]
    return sorted(found, key=lambda one: -one.records)


def _lost(rows: Sequence[dict[str, Any]], on_reject: str) -> Lost:
    first, count = rows[0], len(rows)
    record = first["record"] if count == 1 else f"{count:,} records, the first: {first['record']}"
    found = f"{first['found']} ({first['reason']})"
    one_image = first["reason"] not in STEPS or first["reason"] == "other_size"
    if one_image or (first["reason"] == "unknown_category" and count == 1):
        found += f" on image {first['image']}"
    step = _step(first) + UNTIL[on_reject]
    return Lost(Fault(first["file"], record, found, first["expected"], step), first["reason"], count)


def folded(lost: Sequence[Lost]) -> list[Lost]:
    """The faults for people to read: many of one cause in one file, or many files of one cause, are one."""
    causes: dict[tuple[str, ...], list[Lost]] = {}
    for one in lost:
        file = "" if one.reason == BAD_FILE else one.fault.file
        causes.setdefault((file, one.reason, one.fault.next_step), []).append(one)
    found: list[Lost] = []
    for some in causes.values():
        found += [_fold(some)] if len(some) > EXAMPLES else some
    return sorted(found, key=lambda one: -one.records)


def _fold(some: Sequence[Lost]) -> Lost:
    first, count = some[0].fault, sum(one.records for one in some)
    if some[0].reason == BAD_FILE:
        names = ", ".join(Path(one.fault.file).name for one in some[:EXAMPLES])
        record = f"{count:,} files, the first: {names}"
    else:
        records = (one.fault.record.rpartition("the first: ")[2] for one in some[:EXAMPLES])
        record = f"{count:,} records, the first: {', '.join(records)}"
    found = [one.fault.found[:SHOWN_FOUND] for one in some]
    shown = "; ".join(dict.fromkeys(found[:EXAMPLES]))
    if more := len(set(found) - set(found[:EXAMPLES])):
        shown += f"; and {more:,} more"
    expected = first.expected
    if any(one.fault.expected != expected for one in some):
        expected += " (for the first)"
    return Lost(replace(first, record=record, found=shown, expected=expected), some[0].reason, count)


def _step(row: dict[str, Any]) -> str:
    if NAME_COLUMN in row["expected"]:
        return NAME_STEP
    if row["reason"] == "unknown_category" and row["category"] is None:
        return CLASS_STEP
    return STEPS.get(row["reason"], RECORD_STEP)


def lost_files(faults: Sequence[Fault]) -> list[Lost]:
    """Files that can't be read."""
    return [Lost(fault, BAD_FILE, 1) for fault in faults]


def rows_of_files(faults: Sequence[Fault]) -> pa.Table:
    """Files that can't be read as rows of rejected.parquet."""
    rows = [
        {
            "file": Path(fault.file).name,
            "record": fault.record,
            "reason": BAD_FILE,
            "found": fault.found,
            "expected": fault.expected,
        }
        for fault in faults
    ]
    return pa.Table.from_pylist(rows, schema=REJECTED)
