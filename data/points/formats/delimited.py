"""Points in CSV: a header, then one row per point; comma, semicolon, tab or bar; UTF-8, or as its byte order mark says.

If all coordinates of the file are whole, they are pixel indices and moved to the pixels' centres (+0.5). Coordinates of
napari's points layers always count from the first pixel's centre.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from data.points.columns import (
    at_centres,
    checked_columns,
    find_columns,
    has_ids,
    is_napari,
    missing_columns,
    row_record,
)
from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.values import parse_number, shown

DELIMITERS = (",", ";", "\t", "|")
SUFFIXES = (".csv", ".tsv")
MAX_CELL, MAX_JSON_CELL = 2**17, 2**26
"""Characters of a cell of ordinary tables, and of those whose cells are JSON."""


def header_of(file: PointFile, delimiter: str) -> list[str]:
    """The first non-blank line, split; empty if it can't be."""
    line = next((line for line in io.StringIO(file.text or "") if line.strip()), "")
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def delimiter_of(file: PointFile, options: Options) -> str:
    """The delimiter that gives the most known columns of the header, then the most columns."""

    def score(delimiter: str) -> tuple[int, int]:
        header = header_of(file, delimiter)
        return len(find_columns(header, options.columns)), len(header)

    return max(DELIMITERS, key=score)


def sniff(file: PointFile, options: Options) -> bool:
    """Text whose header has x and y; also any text with a CSV's suffix, for a better message."""
    if file.text is None or not file.text.strip():
        return False
    found = find_columns(header_of(file, delimiter_of(file, options)), options.columns)
    return {"x", "y"} <= found.keys() or file.path.suffix.lower() in SUFFIXES


def rows_of(file: PointFile, delimiter: str, max_cell: int = MAX_CELL) -> Iterator[tuple[int, list[str]]]:
    """The non-blank rows, each with the number of its last line.

    Raises:
        DataError: not text, or unmatched quotes.
    """
    if file.text is None:
        raise file.fault(
            str(file.text_error), "text in UTF-8, or with a byte order mark", "save it as CSV in UTF-8"
        )
    # newline="": the csv module handles line ends in quotes itself.
    reader = csv.reader(io.StringIO(file.text, newline=""), delimiter=delimiter, strict=True)
    while True:
        csv.field_size_limit(max_cell)  # of the process: another reader may have changed it
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise file.fault(
                f"a cell that can't be read ({error})",
                f"cells between {delimiter!r}, quotes in pairs",
                "correct the quotes in this line or above",
                f"line {reader.line_num}",
            ) from None
        if any(cell.strip() for cell in row):
            yield reader.line_num, row


def read(file: PointFile, options: Options) -> Iterator[PointRecord]:
    """One record per row; a row of another length than the header is faulty.

    Raises:
        DataError: not text, no header, missing or repeated columns, unmatched quotes.
    """
    delimiter = delimiter_of(file, options)
    rows = rows_of(file, delimiter)
    header = next(rows, (0, []))[1]
    if not header:
        raise file.fault("an empty file", "a header and one row per point", "export the points again")
    columns = checked_columns(file, header, options.columns)
    ids, missing = has_ids(header, columns), missing_columns(header, columns)
    records = []
    for line, row in rows:
        place = f"line {line}"
        if len(row) != len(header):
            problem = Problem("bad_record", f"{len(row)} cells: {shown(row)}", f"{len(header)} cells")
            key = f"bad {line}"
            records.append(PointRecord(file.name, place, None, None, None, None, problem=problem, key=key))
            continue
        values = {field: row[i].strip() for field, i in columns.items()}
        x, y = (parse_number(values[axis], decimal_comma=delimiter != ",") for axis in ("x", "y"))
        records.append(row_record(file, place, values, x, y, ids, missing))
    yield from at_centres(records, always=is_napari(header, columns))


IMPORTER = Importer("csv", sniff, read)
