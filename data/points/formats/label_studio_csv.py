"""Points in Label Studio's CSV and TSV exports: a row per annotation, whose regions are cells of JSON.

A row has what JSON_MIN has, and is read as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data.annotations.strict_json import ONCE, parse_json
from data.points.columns import find_columns
from data.points.formats.delimited import MAX_JSON_CELL, header_of, rows_of
from data.points.formats.label_studio import read_min
from data.points.record import Importer, Options, PointFile, PointRecord, Problem, Unit
from data.points.values import shown

COLUMNS = frozenset({"annotator", "annotation_id", "lead_time"})
IDS = ("id", "annotation_id")


def _delimiter(file: PointFile) -> str | None:
    return next((mark for mark in ",\t" if set(header_of(file, mark)) >= COLUMNS), None)


def sniff(file: PointFile, _: Options) -> bool:
    """A table with Label Studio's columns, and none for x and y."""
    if file.text is None or (delimiter := _delimiter(file)) is None:
        return False
    return not find_columns(header_of(file, delimiter), None).keys() >= {"x", "y"}


def read(file: PointFile, _: Options) -> Iterator[PointRecord | Unit]:
    """One record a region; those that aren't keypoints are set aside.

    Raises:
        DataError: not text, other columns, unmatched quotes.
    """
    delimiter = _delimiter(file) or ","
    rows = rows_of(file, delimiter, MAX_JSON_CELL)
    header = next(rows, (0, []))[1]
    if not set(header) >= COLUMNS:
        raise file.fault(
            f"header {', '.join(header)[:300] or 'nothing'}", f"columns {', '.join(sorted(COLUMNS))}",
            "export the annotations again as CSV or TSV", "header",
        )  # fmt: skip
    for n, (line, row) in enumerate(rows):
        problem = None
        if len(row) != len(header):
            problem = Problem("bad_record", f"{len(row)} cells: {shown(row)}", f"{len(header)} cells")
        task: dict[str, Any] = {}
        for name, cell in zip(header, row, strict=False):
            task[name] = cell
            if cell.startswith(("[", "{")):
                try:
                    task[name], duplicates = parse_json(cell)
                except ValueError:
                    continue  # a text of the task's data
                if duplicates:
                    problem = Problem("bad_record", f"{name}: key {duplicates[0][1]} twice"[:200], ONCE)
        if problem is not None:
            like = PointRecord(file.name, f"line {line}", None, None, None, None, key=f"bad {line}")
            yield like._replace(problem=problem)
            continue
        # A program that opens the table may write 11 as 11.0.
        task |= {name: task[name].removesuffix(".0") for name in IDS if isinstance(task.get(name), str)}
        yield from read_min(file, task, n)


IMPORTER = Importer("label_studio_csv", sniff, read)
