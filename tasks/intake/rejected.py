"""The table of what ingest rejected of a split: rejected.parquet in its folder."""

from __future__ import annotations

import pyarrow as pa

from data.tables import Split, read_parquet

ANNOTATION = "annotation"
"""The reason of rows that are an annotation at fault, not an image."""
REJECTED_IMAGES = pa.schema(
    [
        ("file", pa.string()),  # as the data set's source names it, s3://... too
        ("record", pa.string()),
        ("reason", pa.string()),  # one word for counting, e.g. "truncated"
        ("found", pa.string()),
        ("expected", pa.string()),
        ("image_id", pa.int64()),  # null where no record names the file, and of annotations
        ("file_name", pa.string()),
        ("annotations", pa.int64()),  # of the image, left out with it; of an annotation's own row 1
    ]
)


def rejected_images(split: Split) -> dict[int, tuple[str, str]]:
    """Image id -> (file_name, reason) of the images that a split has lost; none where no such table is.

    Raises:
        DataError: the table can't be read, or is another version's.
    """
    path = split.root / "rejected.parquet"
    rows = read_parquet(path, REJECTED_IMAGES).to_pylist() if path.is_file() else []
    return {row["image_id"]: (row["file_name"], row["reason"]) for row in rows if row["image_id"] is not None}
