"""Points of ImageJ's Results table: the measurements of point selections (Analyze > Measure), saved as CSV or text.

The column `Label` is the image: its title, which the name of the selection or of the slice may follow after a colon. If
all coordinates of the file are whole, they are pixel indices and moved to the pixels' centres (+0.5). The class is the
counter of the multi-point tool, if the file has several, a column with a usual name, or the selection's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data.points.columns import at_centres, find_columns, missing_columns, row_record
from data.points.formats.delimited import DELIMITERS, header_of, rows_of
from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.slices import of_slices
from data.points.values import parse_number, shown, without_suffix
from data.storage import IMAGE_SUFFIXES

MEASURES = frozenset(
    (
        "Area", "Mean", "StdDev", "Mode", "Min", "Max", "XM", "YM", "BX", "BY", "Median", "Slice", "Ch", "Frame",
        "Counter", "Count", "IntDen", "RawIntDen", "%Area", "Skew", "Kurt",
    )
)  # fmt: skip
"""Columns of a Results table that other tables hardly have."""
EXPECTED = "ImageJ's Results table: columns Label, X and Y"

_NUMBER = re.compile(r"[\d-]+")


def _delimiter(file: PointFile) -> str | None:
    """The delimiter with which the header is that of a Results table."""
    for delimiter in DELIMITERS:
        header = [name.strip() for name in header_of(file, delimiter)]
        # ImageJ heads the column of row numbers with a space; without that column, its own measurements show it.
        if {"Label", "X", "Y"} <= set(header):
            numbered = header_of(file, delimiter)[0] == " "
            if (numbered or MEASURES & set(header)) and "image" not in find_columns(header, None):
                return delimiter
    return None


def sniff(file: PointFile, _: Options) -> bool:
    """A table with columns Label, X, Y and what else ImageJ writes, and none with a usual name of an image."""
    return file.text is not None and _delimiter(file) is not None


def read(file: PointFile, options: Options) -> Iterator[PointRecord]:
    """One record a row; measurements of areas are set aside.

    Raises:
        DataError: not text, no column Label, X or Y, unmatched quotes.
    """
    delimiter = _delimiter(file)
    if delimiter is None:
        found = f"header {', '.join(header_of(file, ','))[:300] or 'nothing'}"
        step = "choose 'Display label' in Analyze > Set Measurements, then measure again"
        raise file.fault(found, EXPECTED, step, "header")
    rows = rows_of(file, delimiter)
    header = next(rows)[1]
    columns = find_columns(header, {**(options.columns or {}), "image": "Label", "x": "X", "y": "Y"})
    names = [name.strip() for name in header]
    counted = "Counter" in names and "category" not in columns
    missing = None if counted else missing_columns(header, columns)
    records: list[PointRecord] = []
    slices: list[int] = []
    title = file.stem
    for line, row in rows:
        place = f"line {line}"
        if len(row) != len(header):
            problem = Problem("bad_record", f"{len(row)} cells: {shown(row)}", f"{len(header)} cells")
            key = f"bad {line}"
            yield PointRecord(file.name, place, None, None, None, None, problem=problem, key=key)
            continue
        cells = dict(zip(names, (cell.strip() for cell in row), strict=True))
        values = {field: row[i].strip() for field, i in columns.items()}
        x, y = (parse_number(values[axis], decimal_comma=delimiter != ",") for axis in "xy")
        record = row_record(file, place, values, x, y, False, missing)
        if counted:
            record = record._replace(category=f"Counter {cells['Counter'] or 0}")
        title = cells["Label"].partition(":")[0] or title
        records.append(_labelled(record, cells))
        slices.append(_slice(cells))
    if {record.category for record in records} == {"Counter 0"}:
        records = [record._replace(choices=("Counter 0",)) for record in records]
    yield from of_slices(at_centres(records), slices, options.frame_name, without_suffix(title))


def _labelled(record: PointRecord, cells: dict[str, str]) -> PointRecord:
    """The record with its image, from a label TITLE, TITLE:SELECTION, TITLE:SLICE or TITLE:SELECTION:SLICE."""
    label = cells["Label"]
    title, *parts = label.split(":")
    names = tuple(part for part in parts if part and not _NUMBER.fullmatch(part))
    # A title without a suffix is that of a stack: the folder of its slices.
    images = (title, *names[::-1]) if title.lower().endswith(IMAGE_SUFFIXES) else (*names[::-1], title)
    record = record._replace(
        image=images[0] or None, also=images[1:], may_be_id=False,
        key=f"{label} {record.category} {record.x},{record.y}",
    )  # fmt: skip
    if record.category is None and names:
        record = record._replace(category=names[0], choices=names)
    area = parse_number(cells.get("Area", ""))
    if area and record.problem is None:
        problem = Problem("not_a_point", f"a selection with area {area:g}", "a point")
        return record._replace(problem=problem, x=None, y=None)
    return record


def _slice(cells: dict[str, str]) -> int:
    """The slice of a stack whose slices have no names; 0 otherwise."""
    number = parse_number(cells.get("Slice") or cells.get("Frame") or "")
    label = cells["Label"]
    unnamed = ":" not in label or bool(_NUMBER.fullmatch(label.rpartition(":")[2]))
    return int(number) if number and unnamed else 0


IMPORTER = Importer("imagej_results", sniff, read)
