"""AP by weights of images against pycocotools on the images repeated as often."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.scoring.bootstrap import Ranking, differences, draws_of, precisions, rank, sampled_ap, spread
from tasks.scoring.coco_match import Rules, accumulate, match
from tests.tasks.coco_sets import random_set

RULES = Rules(7, (8.0, 20.0))


def distinct(results: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """With scores of which no two are equal: then the order in which repeated images come can't matter."""
    scores = np.random.default_rng(seed).permutation(len(results)) + 1
    return [row | {"score": float(s) / (len(results) + 1)} for row, s in zip(results, scores, strict=True)]


def ranking(truth: dict[str, Any], results: list[dict[str, Any]], per_part: int = 100) -> Ranking:
    ids = sorted(row["id"] for row in truth["images"])
    parts = []
    for at in range(0, len(ids), per_part):
        own = set(ids[at : at + per_part])
        part = {
            "images": [row for row in truth["images"] if row["id"] in own],
            "categories": truth["categories"],
            "annotations": [row for row in truth["annotations"] if row["image_id"] in own],
        }
        parts.append(match(part, [row for row in results if row["image_id"] in own], RULES))
    return rank(parts, np.array(ids, np.int64), len(truth["categories"]))


def expected(truth: dict[str, Any], results: list[dict[str, Any]]) -> np.ndarray:
    """[T, R, K] of pycocotools, -1 where undefined."""
    curves = accumulate([match(truth, results, RULES)], len(truth["categories"]), RULES)
    return curves.precision[:, :, :, 0, -1]


def repeated(
    truth: dict[str, Any], results: list[dict[str, Any]], weights: list[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The set in which image n comes weights[n] times, under new ids."""
    images, annotations, found = [], [], []
    for image, weight in zip(truth["images"], weights, strict=True):
        for _ in range(weight):
            new = len(images)
            images.append(image | {"id": new})
            annotations += [
                row | {"image_id": new} for row in truth["annotations"] if row["image_id"] == image["id"]
            ]
            found += [row | {"image_id": new} for row in results if row["image_id"] == image["id"]]
    annotations = [row | {"id": n} for n, row in enumerate(annotations)]
    return {**truth, "images": images, "annotations": annotations}, found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("per_part", [1, 4, 100])
def test_weights_of_one_are_pycocotools_to_the_last_bit(seed: int, per_part: int) -> None:
    """Equal scores, crowds, doubles and a class without objects among them."""
    truth, results = random_set(seed, images=9, objects=8, found=12)
    true = expected(truth, results)
    one = np.ones((1, 9), np.int64)
    ranked = ranking(truth, results, per_part)
    for k, (objects, detections) in enumerate(zip(*ranked, strict=True)):
        mine = precisions(objects, detections, one)[0]
        if (true[:, :, k] == -1).all():
            assert np.isnan(mine).all()
        else:
            np.testing.assert_array_equal(mine, true[:, :, k])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_a_weight_is_an_image_that_comes_as_often(seed: int, weights: list[int]) -> None:
    truth, results = random_set(seed, images=5, objects=6, found=9)
    results = distinct(results, seed)
    true = expected(*repeated(truth, results, weights)) if any(weights) else None
    ranked = ranking(truth, results)
    for k, (objects, detections) in enumerate(zip(*ranked, strict=True)):
        mine = precisions(objects, detections, np.array([weights], np.int64))[0]
        if true is None or (true[:, :, k] == -1).all():
            assert np.isnan(mine).all()
        else:
            np.testing.assert_array_equal(mine, true[:, :, k])


def test_draws_at_once_are_those_one_by_one() -> None:
    truth, results = random_set(3, images=11, objects=6, found=9)
    weights = draws_of(40, 11, np.random.default_rng(0))
    assert (weights.sum(1) == 11).all() and weights.max() > 2 and weights.min() == 0
    for objects, detections in zip(*ranking(truth, results), strict=True):
        whole = precisions(objects, detections, weights)
        single = [precisions(objects, detections, row[None])[0] for row in weights]
        np.testing.assert_array_equal(whole, single)


def test_a_model_against_itself_differs_in_no_draw() -> None:
    truth, results = random_set(1, images=12, objects=6, found=9)
    change = differences(ranking(truth, results), ranking(truth, results), 12, 30, seed=0)
    assert change.shape == (30, 4)
    assert np.isnan(change[:, 3]).all()  # a class without objects
    assert (change[:, :3][~np.isnan(change[:, :3])] == 0).all()


def test_differences_are_those_of_pycocotools_on_the_drawn_images() -> None:
    truth, results = random_set(5, images=8, objects=6, found=9)
    before = distinct(results, 5)
    after = distinct(copy.deepcopy(results[: len(results) // 2]), 6)
    change = differences(ranking(truth, before), ranking(truth, after), 8, 12, seed=3)
    again = differences(ranking(truth, before), ranking(truth, after), 8, 12, seed=3)
    np.testing.assert_array_equal(change, again)
    weights = draws_of(12, 8, np.random.default_rng(3))
    for row, drawn in zip(change, weights.tolist(), strict=True):
        aps = []
        for found in (before, after):
            curves = expected(*repeated(truth, found, drawn))
            aps.append(
                [100 * c.mean() if (c > -1).all() else np.nan for c in (curves[:, :, k] for k in range(3))]
            )
        true = np.subtract(aps[1], aps[0])
        np.testing.assert_allclose(row[1:], true, atol=1e-9)
        np.testing.assert_allclose(row[0], np.nanmean(true), atol=1e-9)


def test_sampled_ap_is_that_of_the_differences() -> None:
    truth, first = random_set(4, images=9, objects=8, found=12)
    second = first[::2]
    sides = [ranking(truth, distinct(found, 1)) for found in (first, second)]
    found = sampled_ap(sides, 9, 70, seed=5)
    assert found.shape == (71, 2)
    whole = [
        100 * np.mean(true[true > -1])
        for true in (expected(truth, distinct(one, 1)) for one in (first, second))
    ]
    assert found[0] == pytest.approx(whole)
    change = differences(sides[0], sides[1], 9, 70, seed=5)[:, 0]
    # `differences` draws in parts; the draws are the same, as one generator makes them all.
    assert found[1:, 1] - found[1:, 0] == pytest.approx(change, nan_ok=True)


def test_no_images_and_no_draws() -> None:
    nothing = rank([], np.zeros(0, np.int64), 2)
    assert differences(nothing, nothing, 0, 0, seed=0).shape == (0, 3)
    assert spread(np.zeros(0), 0.9) == (None, None)
    assert spread(np.array([np.nan]), 0.9) == (None, None)


def test_the_interval_holds_the_middle_of_the_draws() -> None:
    values = np.concatenate([np.arange(101.0), [np.nan]])
    assert spread(values, 0.9) == pytest.approx((5, 95))
