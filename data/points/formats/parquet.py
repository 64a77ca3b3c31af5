"""Points in Parquet: one row per point, columns as in CSV; also our own points.parquet, with its further clicks.

If all coordinates of the file are whole, they are pixel indices and moved to the pixels' centres (+0.5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.points.columns import at_centres, checked_columns, has_ids, is_napari, missing_columns, row_record
from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.values import number
from data.schemas import CLICKS

MAGIC = b"PAR1"
FURTHER = "further"
MAX_ROWS = 10_000_000  # a kilobyte can encode a billion equal rows


def sniff(file: PointFile, _: Options) -> bool:
    """The format's first four bytes."""
    return file.content.startswith(MAGIC)


def read(file: PointFile, options: Options) -> Iterator[PointRecord]:
    """One record per row.

    Raises:
        DataError: no Parquet file, or columns that are missing or of a wrong type.
    """
    expected = "a Parquet file with one row per point"
    try:
        parquet = pq.ParquetFile(pa.BufferReader(file.content))
        header = parquet.schema_arrow.names
    except (OSError, pa.ArrowException, ValueError) as error:
        raise file.fault(f"unreadable ({error})"[:300], expected, "write the file again") from None
    if parquet.metadata.num_rows > MAX_ROWS:
        found = f"{parquet.metadata.num_rows:,} rows"
        raise file.fault(found, f"at most {MAX_ROWS:,} points", "write several files")
    columns = checked_columns(file, header, options.columns)
    try:
        table = parquet.read(columns=[header[i] for i in columns.values()])
    except (OSError, pa.ArrowException, ValueError) as error:
        raise file.fault(f"unreadable ({error})"[:300], expected, "write the file again") from None
    values = {field: _values(file, field, header[i], table) for field, i in columns.items()}
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    ids, missing = has_ids(header, columns), missing_columns(header, columns)
    records = [
        row_record(file, f"row {n}", row, row["x"], row["y"], ids, missing) for n, row in enumerate(rows)
    ]
    if FURTHER in header and parquet.schema_arrow.field(FURTHER).type == CLICKS:
        records = _with_further(records, parquet.read(columns=[FURTHER])[FURTHER].to_pylist())
    yield from at_centres(records, always=is_napari(header, columns))


def _with_further(
    records: list[PointRecord], further: list[list[dict[str, Any]] | None]
) -> list[PointRecord]:
    """The records, each followed by its further clicks, which our own tables have."""
    found = []
    for record, clicks in zip(records, further, strict=True):
        name = record.object or record.source_record
        found.append(record._replace(object=name) if clicks else record)
        for k, click in enumerate(clicks or (), start=1):
            click = click or dict.fromkeys(("x", "y", "inside"))
            x, y = (number(click[axis]) for axis in ("x", "y"))
            found.append(
                record._replace(
                    x=x, y=y, inside=click["inside"] is not False, object=name,
                    source_record=f"{record.source_record}, click {k}", key=f"{record.key}, click {k}",
                    problem=Problem("bad_point", f"click {click}"[:200], "x and y") if None in (x, y) else None,
                )
            )  # fmt: skip
    return found


def _values(file: PointFile, field: str, name: str, table: pa.Table) -> list[Any]:
    """A column's values: finite floats or None for x and y, text or ids for image and class, else text."""
    column = table.column(name)
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    try:
        if pa.types.is_null(kind):
            return [None] * len(column)
        if field in ("x", "y") and numeric:
            found = column.cast(pa.float64(), safe=False).to_pylist()
            return [value if value is not None and math.isfinite(value) else None for value in found]
        if field in ("image", "category") and (is_text or pa.types.is_integer(kind)):
            return column.to_pylist()
        if field == "inside" and pa.types.is_boolean(kind):
            return column.to_pylist()
        if field in ("id", "annotator", "labelled_at", "object", "inside") and (
            is_text or pa.types.is_integer(kind) or pa.types.is_temporal(kind)
        ):
            return column.cast(pa.string()).to_pylist()
    except (pa.ArrowException, ValueError) as error:
        found = f"values that can't be read ({error})"[:300]
        raise file.fault(found, str(kind), "write the file again", f"column {name!r}") from None
    expected = "numbers" if field in ("x", "y") else "text or whole numbers"
    raise file.fault(f"type {kind}", expected, "write the column with that type", f"column {name!r}")


IMPORTER = Importer("parquet", sniff, read)
