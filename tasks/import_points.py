"""Reads the point files, looks up each point's image and class, and writes the points and the rejects."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa

from data.errors import SHOWN_FAULTS
from data.points import read_points
from data.points.merge import resolve
from data.storage import atomic_dir
from data.tables import DataError, Fault, Split, write_parquet
from tasks.config import Params
from tasks.step import stage_main, write_manifest

log = logging.getLogger(__name__)

NEXT_STEP = {
    "stop": "correct the record, or set points.on_reject: report to go on without it",
    "report": "correct the record and run again",
}


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/points: points.parquet, rejected.parquet, manifest.json.

    Raises:
        DataError: a point file can't be read; or, where `points.on_reject` is `stop`, any point has no image, no
            class, lies outside its image or is there twice. All of them are listed and nothing is written.
    """
    weak = Split.open(workspace / "dataset" / "weak")
    records = read_points(params.points.files, params.points.format)
    points, rejected = resolve(records, weak)
    faults = [rejection(row, NEXT_STEP[params.points.on_reject]) for row in rejected.to_pylist()]
    if faults and params.points.on_reject == "stop":
        raise DataError(faults)
    for fault in faults[:SHOWN_FAULTS]:
        log.warning("import_points: rejected: %s", fault)
    if len(faults) > SHOWN_FAULTS:
        log.warning("import_points: and %d more, all in rejected.parquet", len(faults) - SHOWN_FAULTS)
    images = len(points["image_id"].unique())
    with atomic_dir(workspace / "points") as folder:
        write_parquet(points, folder / "points.parquet")
        write_parquet(rejected, folder / "rejected.parquet")
        reasons = {
            row["values"]: row["counts"] for row in pa.compute.value_counts(rejected["reason"]).to_pylist()
        }
        counts = {
            "points": len(points),
            "images": images,
            "weak_images": len(weak),
            "rejected": len(rejected),
        }
        write_manifest(folder, "import_points", counts, rejected_because=reasons)
    log.info(
        "import_points: %d points on %d of %d weak images, %d rejected",
        len(points),
        images,
        len(weak),
        len(rejected),
    )


def rejection(row: dict[str, str], next_step: str) -> Fault:
    """A row of rejected.parquet as a fault."""
    found = f"{row['found']} ({row['reason']}) on image {row['image']}"
    return Fault(row["file"], row["record"], found, row["expected"], next_step)


if __name__ == "__main__":
    stage_main("import_points", run)
