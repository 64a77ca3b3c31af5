"""rejected.parquet of a split: the images and annotations that ingest rejected."""

from __future__ import annotations

import pyarrow as pa

from data.tables import Split, read_parquet

ANNOTATION = "annotation"
"""The reason of rows that are a rejected annotation, not an image."""
REJECTED_IMAGES = pa.schema(
    [
        ("file", pa.string()),  # as in the data set's source, also s3://...
        ("record", pa.string()),
        ("reason", pa.string()),  # one word for counting, e.g. "truncated"
        ("found", pa.string()),
        ("expected", pa.string()),
        ("image_id", pa.int64()),  # null for annotations, and where no record names the file
        ("file_name", pa.string()),
        ("annotations", pa.int64()),  # left out with the image; 1 for an annotation
    ]
)


def rejected_images(split: Split) -> dict[int, tuple[str, str]]:
    """Image id -> (file_name, reason) of the images that ingest rejected; empty without the table.

    Raises:
        DataError: the table can't be read, or was written by another version.
    """
    path = split.root / "rejected.parquet"
    rows = read_parquet(path, REJECTED_IMAGES).to_pylist() if path.is_file() else []
    return {row["image_id"]: (row["file_name"], row["reason"]) for row in rows if row["image_id"] is not None}
