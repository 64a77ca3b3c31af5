"""Predictions as files for other tools: a Parquet file and a file of COCO results, written as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.annotations.coco.file import write_results
from data.storage import atomic_write
from data.tables import PREDICTIONS
from tasks.inference.predict import Predictions


def as_results(table: pa.Table) -> list[dict[str, Any]]:
    """COCO results of PREDICTIONS: image_id, category_id, score, segmentation."""
    return [
        {
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "score": row["score"],
            "segmentation": {"size": [row["height"], row["width"]], "counts": row["rle_counts"]},
        }
        for row in table.select(
            ["image_id", "category_id", "score", "height", "width", "rle_counts"]
        ).to_pylist()
    ]


def write_predictions(predictions: Predictions, folder: Path, name: str) -> int:
    """Writes `folder`/NAME.parquet, one row group per part, and `folder`/NAME.json, COCO results.

    One part is in memory at a time.

    Returns:
        The number of detections.
    """
    count = 0
    with (
        atomic_write(folder / f"{name}.parquet") as partial,
        pq.ParquetWriter(partial, PREDICTIONS, compression="zstd") as writer,
    ):
        for n in range(len(predictions.rows)):
            table = predictions.table(n).combine_chunks()
            writer.write_table(table, row_group_size=max(1, len(table)))
            count += len(table)
    write_results(folder / f"{name}.json", _rows(predictions))
    return count


def _rows(predictions: Predictions) -> Iterator[dict[str, Any]]:
    columns = ["image_id", "category_id", "score", "height", "width", "rle_counts"]
    for n in range(len(predictions.rows)):
        yield from predictions.table(n).select(columns).to_pylist()
