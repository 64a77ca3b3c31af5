"""A small workspace up to stage evaluate, written by hand: images with squares, their clicks, masks and detections."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from data.masks import rle
from data.tables import (
    IMAGES,
    INSTANCES,
    POINTS,
    PREDICTIONS,
    PSEUDO,
    Category,
    write_parquet,
    write_split,
)
from tasks.scoring.pseudo_quality import QUALITY

HEIGHT, WIDTH = 60, 80
CLASSES = [Category(1, "disc"), Category(2, "bar")]


def square(x: int, y: int, side: int) -> bytes:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + side, x : x + side] = True
    return rle.encode(mask)


def split(root: Path, name: str, ids: list[int], instances: list[dict[str, Any]]) -> None:
    """Grey images ID.png, and the rows of `instances`."""
    folder = root / "images"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for id in ids:
        done, code = cv2.imencode(".png", np.full((HEIGHT, WIDTH, 3), 128, np.uint8))
        assert done
        (folder / f"{id}.png").write_bytes(code.tobytes())
        digest = hashlib.sha256(code.tobytes()).hexdigest()
        rows.append(
            {"image_id": id, "file_name": f"{id}.png", "uri": f"{id}.png", "width": WIDTH, "height": HEIGHT}
            | {"sha256": digest, "split": name, "label": "mask", "status": "ok"}
        )
    table = pa.Table.from_pylist(rows, schema=IMAGES)
    true = pa.Table.from_pylist([dict.fromkeys(INSTANCES.names) | row for row in instances], schema=INSTANCES)
    write_split(root / "workspace/dataset" / name, table, true, CLASSES, str(folder))


def thing(instance_id: int, image_id: int, category_id: int, x: int, y: int, side: int) -> dict[str, Any]:
    """A true object: a square."""
    return {
        "instance_id": instance_id, "image_id": image_id, "category_id": category_id, "iscrowd": False,
        "bbox_xywh": [x, y, side, side], "area": side**2, "rle_counts": square(x, y, side), "source": "annotator",
    }  # fmt: skip


def found(image_id: int, category_id: int, score: float, x: int, y: int, side: int) -> dict[str, Any]:
    """A detection: a square."""
    return {
        "image_id": image_id, "category_id": category_id, "score": score, "bbox_xywh": [x, y, side, side],
        "area": side**2, "height": HEIGHT, "width": WIDTH, "rle_counts": square(x, y, side),
    }  # fmt: skip


def predictions(root: Path, rows: list[dict[str, Any]], min_score: float | None = 0.5) -> Path:
    """The outputs of stage evaluate for the report's val images: those of the student, none of the teacher."""
    folder = root / "workspace/evaluation"
    for name, own in (("student", rows), ("teacher", [])):
        write_parquet(pa.Table.from_pylist(own, schema=PREDICTIONS), folder / f"predictions/{name}.parquet")
    metrics = {name: {"min_score": min_score} for name in ("student", "teacher")}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "details.json").write_text(json.dumps({"max_detections": 100}))
    return root / "workspace"


def clicks(root: Path, rows: list[dict[str, Any]], quality: list[dict[str, Any]]) -> Path:
    """Points and pseudo masks: `rows` have PSEUDO's columns; clicks are at 5.5, 6.5."""
    points = [
        dict.fromkeys(POINTS.names) | {name: row[name] for name in ("point_id", "image_id", "category_id")}
        | {"x": 5.5, "y": 6.5}
        for row in rows
    ]  # fmt: skip
    workspace = root / "workspace"
    write_parquet(pa.Table.from_pylist(points, schema=POINTS), workspace / "points/points.parquet")
    table = pa.Table.from_pylist([dict.fromkeys(PSEUDO.names) | row for row in rows], schema=PSEUDO)
    write_parquet(table, workspace / "pseudo/part-00000.parquet")
    measured = [dict.fromkeys(QUALITY.names) | row for row in quality]
    write_parquet(
        pa.Table.from_pylist(measured, schema=QUALITY), workspace / "evaluation/pseudo_quality.parquet"
    )
    return workspace
