"""Detections and objects matched at IoU 0.50, against pycocotools; the threshold with the best F1, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.masks import rle
from data.tables import IMAGES, INSTANCES, PREDICTIONS, Category, Split
from tasks.scoring.coco_match import Rules, match
from tasks.scoring.outcomes import Outcome, choose_min_score, outcomes
from tests.tasks.coco_sets import random_set


def opened(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[Split, pa.Table]:
    """A COCO set as a split and as a table of predictions."""
    images = [
        dict.fromkeys(IMAGES.names) | {"image_id": row["id"], "width": row["width"], "height": row["height"]}
        for row in truth["images"]
    ]
    instances = [
        dict.fromkeys(INSTANCES.names)
        | {name: row[name] for name in ("image_id", "category_id", "area")}
        | {"instance_id": row["id"], "iscrowd": bool(row["iscrowd"])}
        | {"rle_counts": row["segmentation"]["counts"]}
        for row in truth["annotations"]
    ]
    categories = [Category(row["id"], row["name"]) for row in truth["categories"]]
    split = Split(
        Path(), pa.Table.from_pylist(images, IMAGES), pa.Table.from_pylist(instances, INSTANCES), categories, "."
    )  # fmt: skip
    rows = [
        dict.fromkeys(PREDICTIONS.names)
        | {name: row[name] for name in ("image_id", "category_id", "score")}
        | {"rle_counts": row["segmentation"]["counts"]}
        for row in sorted(results, key=lambda row: row["image_id"])
    ]
    return split, pa.Table.from_pylist(rows, PREDICTIONS)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("limit", [3, 100])
def test_found_and_ignored_are_those_of_pycocotools(seed: int, limit: int) -> None:
    truth, results = random_set(seed, images=30, objects=8, found=12)
    theirs = match(truth, results, Rules(limit, (8.0, 20.0)))
    expected: dict[tuple[int, int], list[tuple[float, bool, bool]]] = {}
    at = 0
    for image_id, (k, detections, _) in zip(theirs.images.tolist(), theirs.pairs.tolist(), strict=True):
        own = slice(at, at + detections)
        rows = zip(theirs.scores[own], theirs.matched[0, 0, own], theirs.ignored[0, 0, own], strict=True)
        category = truth["categories"][k]["id"]
        expected[image_id, category] = sorted((s, bool(m and not i), bool(i)) for s, m, i in rows)
        at += detections
    split, table = opened(truth, results)
    found: dict[tuple[int, int], list[tuple[float, bool, bool]]] = {}
    kinds = set()
    for one in outcomes(table, split, range(len(split)), limit):
        assert len([m for m in one.match if m is not None]) + len(one.missed()) == len(one.objects)
        for detection, m, i in zip(one.detections, one.match, one.ignored, strict=True):
            key = (one.image_id, detection["category_id"])
            found.setdefault(key, []).append((detection["score"], m is not None, i))
            kinds.add((m is not None, i))
    assert len(kinds) == 3  # found, false, on a crowd
    assert {key: sorted(rows) for key, rows in found.items()} == {
        key: rows for key, rows in expected.items() if rows
    }


def square(x: int, y: int, side: int, height: int = 20, width: int = 30) -> bytes:
    mask = np.zeros((height, width), bool)
    mask[y : y + side, x : x + side] = True
    return rle.encode(mask)


def image(detections: list[tuple[float, int, bytes]], objects: list[tuple[int, bytes]]) -> Outcome:
    """One image of 20 x 30 pixels: detections (score, class, mask) and objects (class, mask)."""
    truth = {
        "images": [{"id": 4, "height": 20, "width": 30}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": n, "image_id": 4, "category_id": c, "segmentation": {"counts": m}, "area": 1.0, "iscrowd": 0}
            for n, (c, m) in enumerate(objects)
        ],
    }  # fmt: skip
    results = [
        {"image_id": 4, "category_id": c, "score": s, "segmentation": {"counts": m}} for s, c, m in detections
    ]
    (found,) = outcomes(*reversed(opened(truth, results)), [0], 100)
    return found


def test_found_false_and_missed_by_hand() -> None:
    """Two objects of class 1; a detection of each kind of error."""
    found = image(
        [
            (0.9, 1, square(0, 0, 10)),  # exact
            (0.8, 1, square(0, 0, 8)),  # a second one of the same object
            (0.7, 2, square(15, 5, 10)),  # of the other class
            (0.6, 1, square(15, 0, 10)),  # IoU 50 / 150
        ],
        [(1, square(0, 0, 10)), (1, square(15, 5, 10))],
    )
    assert found.match == [0, None, None, None]
    assert found.false_alarms() == [1, 2, 3] and found.missed() == [1]
    assert found.overlap.tolist() == [
        [1.0, 0.0], [pytest.approx(0.64), 0.0], [0.0, 1.0], [0.0, pytest.approx(1 / 3)]
    ]  # fmt: skip


def test_an_overlap_of_exactly_half_is_enough() -> None:
    half = rle.encode(np.pad(np.ones((10, 5), bool), ((0, 10), (0, 25))))
    assert image([(0.5, 1, half)], [(1, square(0, 0, 10))]).match == [0]
    less = rle.encode(np.pad(np.ones((9, 5), bool), ((0, 11), (0, 25))))
    assert image([(0.5, 1, less)], [(1, square(0, 0, 10))]).match == [None]


A, B, C = square(0, 0, 4), square(10, 0, 4), square(20, 0, 4)
FALSE = square(10, 10, 4)


@pytest.mark.parametrize(
    ("detections", "objects", "min_score", "f1"),
    [
        # At 0.7 and more: 2 correct, none false, of 3 objects: 4 / 5. From 0.4 on: 4 / 6. With all: 6 / 7.
        ([(0.9, 1, A), (0.7, 1, B), (0.4, 1, FALSE), (0.2, 1, C)], [(1, A), (1, B), (1, C)], 0.10, 600 / 7),
        # The threshold is in the middle of 0.41 to 0.70, where only the false detection goes.
        ([(0.9, 1, A), (0.7, 1, B), (0.4, 1, FALSE)], [(1, A), (1, B)], 0.56, 100.0),
        ([(0.4, 1, FALSE)], [(1, A)], None, 0.0),
        ([], [(1, A)], None, 0.0),
        ([(0.9, 1, A)], [], None, None),
        # Classes are pooled: one object of class 2 weighs as one of class 1.
        ([(0.9, 1, A), (0.5, 2, B), (0.3, 2, FALSE)], [(1, A), (2, B)], 0.41, 100.0),
    ],
)
def test_the_threshold_with_the_best_f1(
    detections: list[tuple[float, int, bytes]],
    objects: list[tuple[int, bytes]],
    min_score: float | None,
    f1: float | None,
) -> None:
    chosen = choose_min_score([image(detections, objects)])
    assert chosen.min_score == min_score
    assert (chosen.F1 is None) == (f1 is None)
    assert f1 is None or abs((chosen.F1 or 0.0) - f1) < 1e-3
