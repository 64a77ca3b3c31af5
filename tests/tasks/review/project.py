"""A project whose tables are written by hand: four points on three weak images, one without a mask."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.masks import rle as masks
from data.tables import IMAGES, INSTANCES, POINTS, PSEUDO, Category, write_parquet, write_split
from tests.tasks.conftest import ROOT

CLASSES = [Category(4, "disc"), Category(9, "ring")]
HEIGHT, WIDTH = 10, 16


def rle(x: int, y: int, side: int) -> bytes:
    """A square."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return masks.encode(mask)


def pseudo(point_id: str, image_id: int, **change: Any) -> dict[str, Any]:
    return {
        "point_id": point_id, "image_id": image_id, "category_id": 4, "status": "ok", "score": 0.7,
        "rough_rle": rle(1, 1, 4), "refined_rle": rle(1, 1, 5),
    } | change  # fmt: skip


ROWS = [
    pseudo("cc", 8, category_id=9, status="rough", refined_rle=None, score=0.2),
    pseudo("bb", 7, score=0.9, refined_rle=rle(8, 3, 5)),
    pseudo("aa", 7),
    pseudo("dd", 9, status="empty", rough_rle=None, refined_rle=None, score=None),
]


def write_tables(
    workspace: Path,
    rows: Sequence[dict[str, Any]],
    splits: Mapping[str, Sequence[int]],
    with_objects: Collection[str] = (),
) -> None:
    """Writes splits of these image ids, and pseudo rows in two parts; each image of `with_objects` has one object."""
    for split, ids in splits.items():
        images = [
            dict(
                zip(
                    IMAGES.names, (i, f"{i}.png", f"{i}.png", WIDTH, HEIGHT, "", split, "", "ok"), strict=True
                )
            )
            for i in ids
        ]
        instances = [
            dict(zip(INSTANCES.names, (i, i, 4, [1.0, 1.0, 4.0, 4.0], 16.0, False, rle(1, 1, 4), "annotator", None),
                     strict=True))
            for i in ids if split in with_objects
        ]  # fmt: skip
        write_split(
            workspace / "dataset" / split,
            pa.Table.from_pylist(images, schema=IMAGES),
            pa.Table.from_pylist(instances, schema=INSTANCES),
            CLASSES,
            "images",
        )
    for n, part in enumerate((rows[:2], rows[2:])):
        write_parquet(
            pa.Table.from_pylist(list(part), schema=PSEUDO), workspace / f"pseudo/part-{n:04d}.parquet"
        )


def write_project(root: Path) -> Path:
    """Writes params.yaml, an empty folder of decisions and the workspace, whose path is returned."""
    shutil.copy(ROOT / "params.yaml", root)
    (root / "decisions").mkdir()
    workspace = root / "workspace"
    write_tables(workspace, ROWS, {"weak": (7, 8, 9), "val": (1,), "strong": ()})
    write_points(workspace, [point(row) for row in ROWS])
    return workspace


def point(row: dict[str, Any], **change: Any) -> dict[str, Any]:
    """A POINTS row of a pseudo mask."""
    own = {name: row[name] for name in ("point_id", "image_id", "category_id")}
    source = {"source_file": "points.csv", "source_record": row["point_id"]}
    x = 2.5 + 7 * (row["point_id"] == "bb")  # in its mask
    return {**dict.fromkeys(POINTS.names), **own, **source, "x": x, "y": 4.5} | change


def write_points(workspace: Path, rows: Sequence[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: (row["image_id"], row["point_id"]))
    write_parquet(pa.Table.from_pylist(rows, schema=POINTS), workspace / "points/points.parquet")
