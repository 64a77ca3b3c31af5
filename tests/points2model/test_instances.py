"""Instances: rows chosen, COCO rows against pycocotools, pictures."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle_tools

from points2model import Instances


@pytest.fixture
def three() -> Instances:
    masks = np.zeros((3, 8, 10), np.bool_)
    masks[0, 1:4, 2:7], masks[1, 5, 9] = True, True  # the third is empty
    boxes = np.array([[2, 1, 7, 4], [9, 5, 10, 6], [0, 0, 0, 0]], np.float32)
    scores = np.array([0.9, 0.5, 0.25], np.float32)
    return Instances(masks, boxes, scores, np.array([7, 3, 7]), np.array(["cat", "dog", "cat"]))


@pytest.mark.parametrize(
    ("rows", "scores"),
    [
        (0, [0.9]), (-1, [0.25]), (slice(1, None), [0.5, 0.25]), ([2, 0], [0.25, 0.9]), ([], []),
        (np.array([True, False, True]), [0.9, 0.25]), ([True, False, False], [0.9]), (np.array([1]), [0.5]),
    ],
)  # fmt: skip
def test_some_of_them(three: Instances, rows: Any, scores: list[float]) -> None:
    found = three[rows]
    assert found.scores.tolist() == pytest.approx(scores) and len(found) == len(scores)
    assert found.masks.shape == (len(scores), 8, 10) and found.image_size == (8, 10)
    assert len(found.names) == len(found.boxes_xyxy) == len(found.class_ids) == len(scores)


def test_no_such_instance(three: Instances) -> None:
    for rows in (3, [0, 5], np.array([True, False])):
        with pytest.raises(IndexError):
            three[rows]


def test_coco_rows(three: Instances) -> None:
    rows = three.to_coco(5)
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(5, 7), (5, 3)]
    for row, mask in zip(rows, three.masks, strict=False):
        coded = row["segmentation"]
        np.testing.assert_array_equal(rle_tools.decode(coded).astype(bool), mask)
        assert row["bbox"] == rle_tools.toBbox(coded).tolist()


def test_a_picture(three: Instances) -> None:
    pixels = np.zeros((8, 10, 3), np.uint8)
    picture = three.plot(pixels)
    assert picture.size == (640, 512) and len(np.unique(np.array(picture).reshape(-1, 3), axis=0)) > 2
    with pytest.raises(ValueError, match="found 8 x 9 pixels"):
        three.plot(pixels[:, :9])


def test_without_supervision(three: Instances, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        three.to_supervision()
