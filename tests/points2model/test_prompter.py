"""Prompter against `points2model predict --points` on the same clicks; inputs that can't be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle_tools

from points2model import Prompter
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.tools.predict_images import predict_images

CLICKS = [(10.5, 12.25, 0), (30.0, 20.0, 1), (63.5, 47.5, 3), (33.0, 21.0, 1)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.random.default_rng(2).integers(0, 255, (48, 64, 3), np.uint8))
    return path


@pytest.fixture
def workspace(line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(line[0])
    return Path("workspace")


@pytest.mark.parametrize(("refined", "further"), [(False, False), (True, False), (True, True)])
def test_masks_are_those_of_the_command(
    workspace: Path, image: Path, tmp_path: Path, refined: bool, further: bool
) -> None:
    refiner = workspace / "refiner" if refined else None
    prompter = Prompter.load(workspace / "teacher", refiner=refiner, device="cpu")
    ids = list(prompter.names)
    rows = [
        {"id": n, "image_id": 1, "category_id": ids[one], "point": [x, y]}
        for n, (x, y, one) in enumerate(CLICKS)
    ]
    others = [[(14.0, 12.0, True), (20.0, 20.0, False)], [], [], [(2.0, 2.0, False)]] if further else None
    for row, (x, y, _), more in zip(rows, CLICKS, others or [], strict=False):
        del row["point"]
        row |= {"point_coords": [[x, y], *(list(one[:2]) for one in more)]}
        row |= {"point_labels": [1, *(int(one[2]) for one in more)]}
    points = tmp_path / "points.json"
    points.write_text(json.dumps({"images": [{"id": 1, "file_name": image.as_posix()}], "annotations": rows}))
    predict_images(
        [str(image)], workspace / "teacher", tmp_path / "out", compat=False, points=points, refiner=refiner,
        params=Path("params.yaml"), short_side=None, max_side=None, device="cpu",
    )  # fmt: skip
    expected = {tuple(row["point"]): row for row in json.loads((tmp_path / "out/results.json").read_text())}
    prompter.set_image(image)
    found = prompter.predict([(x, y) for x, y, _ in CLICKS], [ids[one] for *_, one in CLICKS], others)
    assert len(found) == len(CLICKS) and found.masks.any((1, 2)).sum() >= 2
    for k, (x, y, _) in enumerate(CLICKS):
        row = expected[x, y]
        np.testing.assert_array_equal(found.masks[k], rle_tools.decode(row["segmentation"]).astype(bool))
        assert found.scores[k] == pytest.approx(row["score"], abs=2e-5)
        assert found.class_ids[k] == row["category_id"]
    by_name = prompter.predict(
        [(x, y) for x, y, _ in CLICKS], [prompter.names[ids[one]] for *_, one in CLICKS], others
    )
    np.testing.assert_array_equal(by_name.masks, found.masks)


def test_no_clicks(workspace: Path, image: Path) -> None:
    prompter = Prompter.load(workspace / "teacher", refiner=workspace / "refiner", device="cpu")
    prompter.set_image(image)
    assert len(prompter.predict([], [])) == 0


@pytest.mark.parametrize(
    ("points", "classes", "said"),
    [
        ([[65, 3]], 0, r"1 outside of the image's 64 x 48 pixels: \(65, 3\)"),
        ([[np.nan, 3]], 0, "1 outside"),
        ([[5, 3]], "no such class", "'no such class', expected one of"),
        ([[5, 3], [6, 3]], [0], "found 1, expected one, or 2"),
    ],
)
def test_clicks_of_no_use(workspace: Path, image: Path, points: Any, classes: Any, said: str) -> None:
    prompter = Prompter.load(workspace / "teacher", device="cpu")
    with pytest.raises(RuntimeError, match="set_image first"):
        prompter.predict([[1, 1]], 0)
    prompter.set_image(image)
    if isinstance(classes, int):
        classes = next(iter(prompter.names))
    elif isinstance(classes, list):
        classes = [next(iter(prompter.names))]
    with pytest.raises(ValueError, match=said):
        prompter.predict(points, classes)
    with pytest.raises(ValueError, match="found 0 lists, expected 1"):
        prompter.predict([[5, 5]], next(iter(prompter.names)), [])


def test_another_network_as_refiner(workspace: Path) -> None:
    with pytest.raises(TaskError, match="expected a MaskRefineNet"):
        Prompter.load(workspace / "teacher", refiner=workspace / "teacher", device="cpu")
