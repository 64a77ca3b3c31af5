"""Predictor against `points2model predict` on the same images; models by name; inputs that can't be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as rle_tools

from data.errors import DataError
from models.weights import CheckpointError
from points2model import Instances, Predictor, Prompter
from points2model.images import pixels_of
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.tools.predict_images import predict_images

SIZES = [(48, 64), (64, 48), (48, 64), (50, 70)]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    draw = np.random.default_rng(1)
    paths = [tmp_path / f"{n}.png" for n in range(len(SIZES))]
    for path, size in zip(paths, SIZES, strict=True):
        cv2.imwrite(str(path), draw.integers(0, 255, (*size, 3), np.uint8))
    return paths


@pytest.fixture
def teacher(line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(line[0])
    return Path("workspace/teacher")


@pytest.fixture
def predictor(teacher: Path) -> Predictor:
    return Predictor.load(teacher, device="cpu")


def by_command(images: list[Path], model: Path, out: Path) -> list[list[dict[str, Any]]]:
    """Rows of `points2model predict`, a list an image."""
    predict_images(
        list(map(str, images)), model, out, compat=False, points=None, refiner=None, params=None, short_side=None,
        max_side=None, device="cpu", min_score=0.0,
    )  # fmt: skip
    rows = json.loads((out / "results.json").read_text())
    return [[row for row in rows if row["image_id"] == n + 1] for n in range(len(images))]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_results_are_those_of_the_command(
    predictor: Predictor, teacher: Path, images: list[Path], tmp_path: Path, batch_size: int
) -> None:
    expected = by_command(images, teacher, tmp_path / "out")
    assert sum(map(len, expected)) > 5
    for found, rows in zip(predictor(images, min_score=0, batch_size=batch_size), expected, strict=True):
        assert [int(one) for one in found.class_ids] == [row["category_id"] for row in rows]
        np.testing.assert_allclose(found.scores, [row["score"] for row in rows], atol=2e-5)
        masks = [rle_tools.decode(row["segmentation"]).astype(bool) for row in rows]
        assert not masks or (found.masks != np.stack(masks)).mean() < (1e-9 if batch_size == 1 else 1e-3)
        assert [predictor.names[int(one)] for one in found.class_ids] == found.names.tolist()


def test_any_kind_of_image(predictor: Predictor, images: list[Path]) -> None:
    pixels = cv2.cvtColor(cv2.imread(str(images[0])), cv2.COLOR_BGR2RGB)
    expected = predictor(images[0], min_score=0)
    for same in (str(images[0]), pixels, Image.fromarray(pixels), np.asfortranarray(pixels)):
        found = predictor(same, min_score=0)
        np.testing.assert_array_equal(found.masks, expected.masks)
        np.testing.assert_array_equal(found.scores, expected.scores)
    grey = pixels[:, :, 0]
    np.testing.assert_array_equal(
        predictor(grey, min_score=0).scores, predictor(np.dstack([grey] * 3), min_score=0).scores
    )
    assert predictor([]) == []


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_those_of_the_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16).save(path)
    pixels = pixels_of(path)
    assert len(np.unique(pixels)) == 256
    with Image.open(path) as image:
        assert image.mode == "I;16"
        np.testing.assert_array_equal(pixels_of(image), pixels)
    with pytest.raises(ValueError, match="found pixels of kind 'F'"):
        pixels_of(Image.new("F", (4, 4)))


def test_scores_below_the_least_are_left_out(predictor: Predictor, images: list[Path]) -> None:
    everything = predictor(images[0], min_score=0)
    assert predictor.min_score == 0.3  # nothing was chosen
    assert len(predictor(images[0])) == (everything.scores >= 0.3).sum()
    middle = float(np.median(everything.scores))
    assert len(predictor(images[0], min_score=middle)) == (everything.scores >= middle).sum() > 0
    one = float(everything.scores[1])  # a score itself isn't below it
    assert len(predictor(images[0], min_score=one)) == (everything.scores >= one).sum() > 1


@pytest.mark.parametrize("batch_size", [1, 2])
def test_unreadable_images_among_good_ones(
    predictor: Predictor, images: list[Path], tmp_path: Path, batch_size: int
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    given = [images[0], tmp_path / "text.jpg", tmp_path / "missing.jpg", images[1]]
    with pytest.raises(DataError) as caught:
        predictor(given, batch_size=batch_size)
    assert "text.jpg" in str(caught.value) and "missing.jpg" in str(caught.value)
    found = list(predictor.stream(given, batch_size=batch_size))
    assert [isinstance(one, Instances) for one in found] == [True, False, False, True]
    with pytest.raises(DataError, match=r"text\.jpg"):
        predictor(given[1])


@pytest.mark.parametrize(
    ("pixels", "error", "said"),
    [
        (np.zeros((8, 8, 3), np.float32), TypeError, "float32, expected uint8"),
        (np.zeros((8, 8, 4), np.uint8), ValueError, r"\[8, 8, 4\], expected RGB"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, r"\[0, 8, 3\], expected RGB"),
        (np.zeros(8, np.uint8), ValueError, r"\[8\], expected RGB"),
    ],
)
def test_arrays_of_no_use(predictor: Predictor, pixels: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        predictor(pixels)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_no_image(predictor: Predictor, images: list[Path], batch_size: int) -> None:
    for find in (predictor, predictor.stream):
        with pytest.raises(ValueError, match=f"batch_size: found {batch_size}, expected 1 or more"):
            find(images, batch_size=batch_size)


def test_models_that_are_not_there(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"nothing-here: no such version or folder.*there are workspace/"):
        Predictor.load(tmp_path / "nothing-here")
    with pytest.raises(TaskError, match="no model is promoted"):
        Predictor.load("promoted")
    with pytest.raises(TaskError, match="no such version"):
        Predictor.load("v3")
    shutil.copytree("workspace/refiner", tmp_path / "refiner")
    meta = json.loads((tmp_path / "refiner/model.json").read_text())
    meta["input"] = json.loads((teacher / "model.json").read_text())["input"]
    (tmp_path / "refiner/model.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match="expected a SOLOv2"):
        Predictor.load(tmp_path / "refiner", device="cpu")
    with pytest.raises(TaskError, match=r"runtime\.device"):
        Predictor.load(teacher, device="cuda:99")


def test_rules_are_those_of_the_project_of_params_or_the_usual_ones(
    teacher: Path, images: list[Path], tmp_path: Path
) -> None:
    text = Path("params.yaml").read_text()
    params = tmp_path / "few.yaml"
    values = yaml.safe_load(text)
    values["evaluate"]["inference"]["max_detections"] = 2
    params.write_text(yaml.safe_dump(values))
    few = Predictor.load(teacher, device="cpu", params=params)
    assert len(few(images[0], min_score=0)) == 2
    project = Predictor.load(teacher, device="cpu")
    assert len(project(images[0], min_score=0)) > 2
    alone = shutil.copytree(teacher, tmp_path / "alone")
    usual = Predictor.load(alone, device="cpu")  # no params.yaml above it: least score of a cell is 0.1
    assert len(usual(images[0], min_score=0)) == 0
    with pytest.raises(TaskError, match=r"found no evaluate\.inference"):
        Predictor.load(alone, params=teacher / "model.json")
    del (
        values["prompt"]["mirror"],
        values["student"],
    )  # of an earlier version, with the same rules of detections
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(
        TaskError, match=r"another version:\n  - prompt\.mirror: found no value; expected none"
    ):
        Prompter.load(alone, device="cpu")
    again = Predictor.load(alone, device="cpu")
    assert len(again(images[0], min_score=0)) == 2
