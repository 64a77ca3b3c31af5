"""Predictions of a split: grouping, order, form, and faults."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from pycocotools import mask as rle_tools

from data.tables import IMAGES, INSTANCES, Category, Split
from models.config import InferenceConfig
from models.solov2 import SOLOv2
from tasks.config import InputConfig, Params
from tasks.errors import TaskError
from tasks.predict import predict_split

CATEGORIES = [Category(4, "disc"), Category(6, "ring"), Category(11, "bar")]
SIZE = InputConfig(short_side=64, max_side=128, enlarge=True, tile=None)
# Anything counts as an object: what is tested is not how good an untrained network is.
INFERENCE = InferenceConfig(
    score_threshold=0.001,
    min_area=0,
    nms_pre=40,
    nms_kernel="gaussian",
    nms_sigma=2.0,
    nms_threshold=0.0,
    max_detections=12,
    mask_threshold=0.5,
)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Seven images of three shapes, ids out of the order of sizes; the last isn't usable."""
    rng = np.random.default_rng(0)
    rows = []
    for i, (height, width) in enumerate(
        [(50, 60), (64, 100), (50, 60), (100, 64), (64, 100), (50, 60), (9, 9)]
    ):
        name = f"{i}.png"
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        status = "ok" if i < 6 else "unreadable"
        rows.append(
            {
                "image_id": 10 * i,
                "file_name": name,
                "uri": name,
                "width": width,
                "height": height,
                "status": status,
            }
        )
    return Split(
        tmp_path, pa.Table.from_pylist(rows, IMAGES), INSTANCES.empty_table(), CATEGORIES, str(tmp_path)
    )


@pytest.fixture(scope="module")
def model(line: tuple[Path, Params]) -> SOLOv2:
    """The tiny recipe's network with random weights, and classes of unlike ids."""
    torch.manual_seed(3)
    params = line[1]
    model = SOLOv2(params.detector(params.teacher), len(CATEGORIES))
    model.categories = [category._asdict() for category in CATEGORIES]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.08)
    return model.eval().requires_grad_(False)


def predictions(model: SOLOv2, split: Split, batch_size: int) -> list[dict[str, object]]:
    return predict_split(
        model,
        split,
        size=SIZE,
        inference=INFERENCE,
        batch_size=batch_size,
        device=torch.device("cpu"),
        workers=0,
        name="test",
    )


def test_results_are_coco_results_of_usable_images_in_order(model: SOLOv2, split: Split) -> None:
    results = predictions(model, split, batch_size=2)
    keys = [(row["image_id"], -row["score"]) for row in results]  # type: ignore[operator]
    assert keys == sorted(keys)
    assert {row["image_id"] for row in results} == {0, 10, 20, 30, 40, 50}
    assert {row["category_id"] for row in results} <= {4, 6, 11}
    sizes = dict(zip(split.images["image_id"].to_pylist(), split.images.to_pylist(), strict=True))
    for row in results:
        image, rle = sizes[row["image_id"]], row["segmentation"]
        assert rle["size"] == [image["height"], image["width"]]  # type: ignore[index]
        assert rle_tools.area(rle) > 0
        assert row["bbox"] == rle_tools.toBbox(rle).tolist()


def test_the_batch_does_not_matter(model: SOLOv2, split: Split) -> None:
    """Masks are equal; scores to the rounding of floating-point sums."""
    alone, together = predictions(model, split, batch_size=1), predictions(model, split, batch_size=4)
    assert len(alone) == len(together)
    for a, b in zip(alone, together, strict=True):
        assert a["image_id"] == b["image_id"]
        assert a["score"] == pytest.approx(b["score"], abs=2e-5)
    same = sum(a["segmentation"] == b["segmentation"] for a, b in zip(alone, together, strict=True))
    assert same >= 0.95 * len(alone)


def test_every_unreadable_image_is_named(model: SOLOv2, split: Split) -> None:
    (split.root / "1.png").unlink()
    (split.root / "3.png").write_bytes(b"not an image")
    with pytest.raises(TaskError, match=r"(?s)2 images can't be predicted.*1\.png.*3\.png"):
        predictions(model, split, batch_size=2)


def test_a_split_without_images(model: SOLOv2, split: Split) -> None:
    empty = Split(split.root, split.images.slice(0, 0), split.instances, CATEGORIES, split.image_root)
    assert predictions(model, empty, batch_size=2) == []
