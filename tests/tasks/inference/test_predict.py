"""Predictions of a split: grouping, order, form, and faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pycocotools import mask as rle_tools

from data.annotations.results import read_results
from data.tables import IMAGES, INSTANCES, PREDICTIONS, Category, Split, read_parquet
from models.config import InferenceConfig
from models.solov2.network import SOLOv2
from tasks.common import processes
from tasks.common.config import InputConfig, Params
from tasks.common.errors import TaskError
from tasks.common.progress import Bar
from tasks.inference.predict import Finder, Predictions
from tasks.inference.predict_files import as_results, write_predictions

USABLE = range(6)
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


def finder_of(model: SOLOv2, split: Split, batch_size: int) -> Finder:
    return Finder(model, split, SIZE, INFERENCE, batch_size, torch.device("cpu"), workers=0, name="test")


def predictions(model: SOLOv2, split: Split, batch_size: int) -> list[dict[str, Any]]:
    with Bar("test", len(split), "image") as bar:
        [(table, faults)] = finder_of(model, split, batch_size).find([USABLE], bar)
    assert faults == [] and bar.done == len(USABLE)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_predictions_are_of_the_images_in_their_order(model: SOLOv2, split: Split) -> None:
    found = predictions(model, split, batch_size=2)
    keys = [(row["image_id"], -row["score"]) for row in found]
    assert keys == sorted(keys)
    assert {row["image_id"] for row in found} == {0, 10, 20, 30, 40, 50}
    assert {row["category_id"] for row in found} <= {4, 6, 11}
    images = {row["image_id"]: row for row in split.images.to_pylist()}
    for row in found:
        image = images[row["image_id"]]
        assert (row["height"], row["width"]) == (image["height"], image["width"])
        rle = {"size": [row["height"], row["width"]], "counts": row["rle_counts"]}
        assert row["area"] == rle_tools.area(rle) > 0
        assert row["bbox_xywh"] == rle_tools.toBbox(rle).tolist()
        assert row["score"] == round(row["score"], 6)


def test_the_batch_does_not_matter(model: SOLOv2, split: Split) -> None:
    """Masks are equal; scores to the rounding of floating-point sums."""
    alone, together = predictions(model, split, batch_size=1), predictions(model, split, batch_size=4)
    assert len(alone) == len(together)
    for a, b in zip(alone, together, strict=True):
        assert a["image_id"] == b["image_id"]
        assert a["score"] == pytest.approx(b["score"], abs=2e-5)
    same = sum(a["rle_counts"] == b["rle_counts"] for a, b in zip(alone, together, strict=True))
    assert same >= 0.95 * len(alone)


def made(model: SOLOv2, split: Split, folder: Path, part_images: int) -> Predictions:
    parts = Predictions.plan(folder, split, part_images)
    parts.make(finder_of(model, split, batch_size=2))
    return parts


def test_parts_hold_the_usable_images_in_order(model: SOLOv2, split: Split, tmp_path: Path) -> None:
    parts = made(model, split, tmp_path / "parts", 2)
    assert parts.rows == [[0, 1], [2, 3], [4, 5]]
    assert [set(parts.table(n)["image_id"].to_pylist()) for n in range(3)] == [{0, 10}, {20, 30}, {40, 50}]


def test_a_rerun_makes_what_is_missing_alone(
    model: SOLOv2, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = made(model, split, tmp_path / "parts", 2)
    before = [parts.path(n).read_bytes() for n in range(3)]
    kept = parts.path(0).stat().st_mtime_ns
    parts.path(1).unlink()
    requested: list[list[int]] = []
    find = Finder.find
    monkeypatch.setattr(
        Finder, "find", lambda self, rows, bar: (requested.extend(rows), find(self, rows, bar))[1]
    )
    made(model, split, tmp_path / "parts", 2)
    assert requested == [[2, 3]]
    assert [parts.path(n).read_bytes() for n in range(3)] == before
    assert parts.path(0).stat().st_mtime_ns == kept


@pytest.mark.parametrize(("index", "mine"), [(0, [[0, 1], [4, 5]]), (1, [[2, 3]])])
def test_processes_that_share_the_step_make_some_parts_each(
    model: SOLOv2,
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    index: int,
    mine: list[list[int]],
) -> None:
    """As the one or the other of two, which see the same parts there."""
    for name, value in (("index", index), ("count", 2)):
        monkeypatch.setattr(processes, name, lambda value=value: value)
    monkeypatch.setattr(processes, "gather", lambda value: [value] * 2)
    requested: list[list[int]] = []
    find = Finder.find
    monkeypatch.setattr(
        Finder, "find", lambda self, rows, bar: (requested.extend(rows), find(self, rows, bar))[1]
    )
    made(model, split, tmp_path / "parts", 2)
    assert requested == mine


@pytest.mark.parametrize("parts", [[], [[]], [[], [0], [], [], [1, 4, 2], []]])
def test_parts_without_images_are_parts(model: SOLOv2, split: Split, parts: list[list[int]]) -> None:
    with Bar("test", 6, "image") as bar:
        found = list(finder_of(model, split, 2).find(parts, bar))
    assert [sorted(set(table["image_id"].to_pylist())) for table, _ in found] == [
        sorted(10 * row for row in part) for part in parts
    ]


def test_every_unreadable_image_is_named_and_good_parts_stay(
    model: SOLOv2, split: Split, tmp_path: Path
) -> None:
    whole = made(model, split, tmp_path / "whole", 1)
    images = {name: (split.root / name).read_bytes() for name in ("1.png", "3.png")}
    (split.root / "1.png").unlink()
    (split.root / "3.png").write_bytes(b"not an image")
    with pytest.raises(TaskError, match=r"(?s)2 images can't be predicted.*1\.png.*3\.png"):
        made(model, split, tmp_path / "parts", 1)
    # After a fault images are only read: those parts are no result, though nothing is wrong with them.
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["part-00000.parquet"]
    for name, content in images.items():
        (split.root / name).write_bytes(content)
    parts = made(model, split, tmp_path / "parts", 1)
    assert [parts.path(n).read_bytes() for n in range(6)] == [whole.path(n).read_bytes() for n in range(6)]


def test_a_split_without_images(model: SOLOv2, split: Split, tmp_path: Path) -> None:
    empty = Split(split.root, split.images.slice(0, 0), split.instances, CATEGORIES, split.image_root)
    parts = made(model, empty, tmp_path / "parts", 2)
    assert parts.rows == [[]] and len(parts.table(0)) == 0
    assert write_predictions(parts, tmp_path / "out", "test") == 0
    assert json.loads((tmp_path / "out/test.json").read_text()) == []
    assert len(read_parquet(tmp_path / "out/test.parquet", PREDICTIONS)) == 0


def test_files_say_what_the_parts_say(model: SOLOv2, split: Split, tmp_path: Path) -> None:
    parts = made(model, split, tmp_path / "parts", 2)
    count = write_predictions(parts, tmp_path / "out", "test")
    table = read_parquet(tmp_path / "out/test.parquet", PREDICTIONS)
    assert table.equals(pa.concat_tables([parts.table(n) for n in range(3)]))
    assert pq.ParquetFile(tmp_path / "out/test.parquet").num_row_groups == 3
    sizes = {row["image_id"]: (row["height"], row["width"]) for row in split.images.to_pylist()}
    assert read_results(tmp_path / "out/test.json", sizes, {4, 6, 11}) == as_results(table)
    assert count == len(table) > 0
