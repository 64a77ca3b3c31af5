"""Matching in parts against pycocotools on the whole set at once."""

from __future__ import annotations

import contextlib
import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.scoring.coco_match import Matches, Rules, accumulate, match
from tests.tasks.coco_sets import random_set

RULES = Rules(7, (8.0, 20.0))


def plain(truth: dict[str, Any], results: list[dict[str, Any]], rules: Rules) -> Any:
    """pycocotools as its own demo calls it; ids from 1 on, since it takes 0 for no match."""
    truth = copy.deepcopy(truth)
    for row in truth["annotations"]:
        row["id"] += 1
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = truth
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(copy.deepcopy(results)), "segm")
        evaluation.params.areaRng, evaluation.params.maxDets = rules.areas, [1, 7]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


@pytest.mark.parametrize("images_a_part", [1, 3, 100])
def test_parts_give_the_figures_of_the_whole_to_the_last_bit(images_a_part: int, tmp_path: Path) -> None:
    truth, results = random_set(4, images=11, objects=8, found=12)
    expected = plain(truth, results, RULES)
    parts = []
    for at in range(0, 11, images_a_part):
        ids = range(at, min(at + images_a_part, 11))
        part = {
            "images": [row for row in truth["images"] if row["id"] in ids],
            "categories": truth["categories"],
            "annotations": [row for row in truth["annotations"] if row["image_id"] in ids],
        }
        match(part, [row for row in results if row["image_id"] in ids], RULES).save(tmp_path / f"{at}")
        parts.append(Matches.load(tmp_path / f"{at}"))
    found = accumulate(parts, len(truth["categories"]), RULES)
    assert (found.precision > 0).any() and (found.precision == -1).any()
    # COCO's demo has three limits; AR1 and AR10 fall together with 7 here.
    np.testing.assert_array_equal(found.precision, expected["precision"])
    np.testing.assert_array_equal(found.recall, expected["recall"])


def test_no_images_at_all() -> None:
    found = accumulate([], 2, RULES)
    assert found.precision.shape == (10, 101, 2, 4, 2) and found.recall.shape == (10, 2, 4, 2)
    assert (found.precision == -1).all() and (found.recall == -1).all()
