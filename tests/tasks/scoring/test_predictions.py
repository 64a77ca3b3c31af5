"""Scores of predictions in parts: of the whole set at once, alone and by two real processes of unlike speed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from data.masks import rle
from data.tables import IMAGES, INSTANCES, PREDICTIONS, Category, Split, write_parquet, write_split
from tasks.common.config import EvaluateConfig, Params
from tasks.inference.predict import Predictions
from tasks.scoring.coco_eval import evaluate_masks
from tasks.scoring.predictions import score, true_masks, true_objects
from tests.tasks.coco_sets import random_set
from tests.tasks.conftest import ROOT, tiny_recipe

IMAGE_COUNT = 9
PART_IMAGES = 2
# The second process is slow to match, and writes only which process it is.
MEMBER = """
from tasks.common import processes
processes.start(2, "member", [], 1)  # before torch is imported, which takes seconds
import time
from pathlib import Path
from data.tables import Split
from tasks.scoring import predictions as score_predictions
from tasks.common.config import load_params
from tasks.inference.predict import Predictions

processes.join()
match = score_predictions.match
def late(*given):
    time.sleep(0.5 * processes.index())
    return match(*given)
score_predictions.match = late
val = Split.open("val")
config = load_params("params.yaml").evaluate
for _ in range(2):
    scores = score_predictions.score(Predictions.plan(Path("parts"), val, 2), val, config)
Path(f"{processes.index()}.txt").write_text(repr(scores and scores.summary))
processes.leave()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inside a folder with a split val, one of whose images is of no use, and parts of predictions for the others."""
    truth, results = random_set(3, images=IMAGE_COUNT, objects=6, found=9)
    nothing = dict.fromkeys(IMAGES.names, "")
    images = [
        nothing | {"image_id": n, "width": 80, "height": 60, "status": "unreadable" if n == 4 else "ok"}
        for n in range(IMAGE_COUNT)
    ]
    instances = [
        {
            "instance_id": row["id"], "image_id": row["image_id"], "category_id": row["category_id"],
            "bbox_xywh": row["bbox"], "area": row["area"], "iscrowd": bool(row["iscrowd"]),
            "rle_counts": row["segmentation"]["counts"].encode(), "source": "annotator", "score": None,
        }
        for row in truth["annotations"]
    ]  # fmt: skip
    write_split(
        tmp_path / "val",
        pa.Table.from_pylist(images, IMAGES),
        pa.Table.from_pylist(instances, INSTANCES),
        [Category(row["id"], row["name"]) for row in truth["categories"]],
        "images",
    )
    predictions = Predictions.plan(tmp_path / "parts", Split.open(tmp_path / "val"), PART_IMAGES)
    for n, rows in enumerate(predictions.rows):
        found = [
            {
                "image_id": row["image_id"], "category_id": row["category_id"], "score": row["score"],
                "rle_counts": row["segmentation"]["counts"].encode(), "height": 60, "width": 80,
                "bbox_xywh": rle.bbox_xywh(row["segmentation"]["counts"].encode(), 60, 80), "area": 1.0,
            }
            for row in results if row["image_id"] in rows
        ]  # fmt: skip
        write_parquet(pa.Table.from_pylist(found, PREDICTIONS), predictions.path(n))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_recipe()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(params: Params, evaluator: str) -> EvaluateConfig:
    return params.evaluate.model_copy(update={"evaluator": evaluator})


def test_the_same_as_of_the_whole_set(place: Path, line: tuple[Path, Params]) -> None:
    val, params = Split.open("val"), line[1]
    predictions = Predictions.plan(Path("parts"), val, PART_IMAGES)
    assert [image for part in predictions.rows for image in part] == [0, 1, 2, 3, 5, 6, 7, 8]
    truth, results = random_set(3, images=IMAGE_COUNT, objects=6, found=9)
    known = true_masks(val)
    assert [row["id"] for row in known["images"]] == [0, 1, 2, 3, 5, 6, 7, 8]
    limits = {"max_detections": params.evaluate.max_detections, "size_bounds": params.evaluate.size_bounds}
    whole = evaluate_masks(known, [row for row in results if row["image_id"] != 4], **limits)  # type: ignore[arg-type]
    assert whole.summary["AP"]
    for evaluator in ("pycocotools", "faster_coco_eval"):
        found = score(predictions, val, config(params, evaluator))
        assert found is not None
        assert (found.summary, found.per_class) == (whole.summary, whole.per_class)
        for iou, curve in whole.precision.items():
            np.testing.assert_array_equal(found.precision[iou], curve)
    single = [row for row in truth["annotations"] if row["image_id"] != 4 and not row["iscrowd"]]
    assert sum(true_objects(val).values()) == len(single)
    assert {row.category_id: row.instances for row in whole.per_class} == true_objects(val)


def test_the_first_process_waits_for_the_matches_of_others(place: Path, line: tuple[Path, Params]) -> None:
    alone = score(
        Predictions.plan(Path("parts"), Split.open("val"), PART_IMAGES), Split.open("val"), line[1].evaluate
    )
    assert alone is not None
    for path in Path("parts").glob("matches-*"):
        path.unlink()
    Path("member.py").write_text(MEMBER, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "member"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path("0.txt").read_text() == repr(alone.summary)
    assert Path("1.txt").read_text() == "None"
