"""faster-coco-eval against pycocotools: the same curves, on COCO's own example and on random sets."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.common.errors import TaskError
from tasks.scoring.coco_eval import evaluate_masks
from tasks.scoring.coco_faster import evaluate_faster
from tasks.scoring.coco_match import Rules, accumulate, match
from tests.tasks.coco_sets import random_set

COCO_BOUNDS = (32.0, 96.0)


def check(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], rules: Rules) -> None:
    ours = accumulate([match(truth, results, rules)], len(truth["categories"]), rules)
    faster = evaluate_faster(truth, results, rules)
    np.testing.assert_allclose(faster.precision, ours.precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(faster.recall, ours.recall, rtol=0, atol=1e-12)
    given = {"max_detections": rules.max_detections, "size_bounds": rules.size_bounds}
    slow = evaluate_masks(truth, results, **given)  # type: ignore[arg-type]
    fast = evaluate_masks(truth, results, evaluator="faster_coco_eval", **given)  # type: ignore[arg-type]
    assert slow.summary == fast.summary
    assert slow.per_class == fast.per_class


@pytest.mark.parametrize("max_detections", [1, 7, 100, 300])
def test_they_agree_on_coco_s_example(shared_dir: Path, max_detections: int) -> None:
    folder = shared_dir / "fixtures/coco_golden"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text())
    check(truth, results, Rules(max_detections, COCO_BOUNDS))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("max_detections", [3, 100])
def test_they_agree_on_random_sets(seed: int, max_detections: int) -> None:
    """Crowds, objects at the bounds of sizes, equal scores, a class without objects, ids from 0 on."""
    truth, results = random_set(seed, images=12, objects=8, found=12)
    assert any(row["iscrowd"] for row in truth["annotations"])
    check(truth, results, Rules(max_detections, (8.0, 20.0)))


def test_they_agree_beyond_100_detections() -> None:
    truth, results = random_set(0, images=2, objects=150, found=400)
    assert len(results) > 2 * 100
    check(truth, results, Rules(300, (8.0, 20.0)))


@pytest.mark.parametrize(("objects", "found"), [(0, 5), (5, 0), (0, 0)])
def test_they_agree_where_one_side_has_nothing(objects: int, found: int) -> None:
    check(*random_set(1, images=4, objects=objects, found=found), Rules(100, (8.0, 20.0)))


def test_without_it_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    truth, results = random_set(1, images=1, objects=1, found=1)
    with pytest.raises(TaskError, match=r"points2model\[faster-eval\]"):
        evaluate_masks(truth, results, max_detections=10, size_bounds=(8, 20), evaluator="faster_coco_eval")
