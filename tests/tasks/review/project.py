"""A project whose tables are written by hand: four points on three weak images, one without a mask."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.masks import rle as masks
from data.tables import IMAGES, INSTANCES, PSEUDO, Category, write_parquet, write_split
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


def write_project(root: Path) -> Path:
    """Writes params.yaml, an empty folder of decisions and the workspace, whose path is returned."""
    shutil.copy(ROOT / "params.yaml", root)
    (root / "decisions").mkdir()
    workspace = root / "workspace"
    for split, ids in (("weak", (7, 8, 9)), ("val", (1,)), ("strong", ())):
        rows = [
            dict(
                zip(
                    IMAGES.names, (i, f"{i}.png", f"{i}.png", WIDTH, HEIGHT, "", split, "", "ok"), strict=True
                )
            )
            for i in ids
        ]
        write_split(
            workspace / "dataset" / split,
            pa.Table.from_pylist(rows, schema=IMAGES),
            INSTANCES.empty_table(),
            CLASSES,
            "images",
        )
    for n, part in enumerate((ROWS[:2], ROWS[2:])):
        write_parquet(pa.Table.from_pylist(part, schema=PSEUDO), workspace / f"pseudo/part-{n:04d}.parquet")
    return workspace
