from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.review import rank
from tasks.review.objects import Objects
from tasks.review.rank import doubts, why


@pytest.fixture
def objects(made_project: Path) -> Objects:
    return Objects(made_project / "workspace")


def test_each_sign_takes_its_part(objects: Objects) -> None:
    objects.score[:] = 0.8
    objects.agreement[:] = np.nan
    objects.area[:] = 100
    objects.box[:] = 0
    objects.misses_click[:] = False
    assert doubts(objects).doubt == pytest.approx(0.2)
    objects.agreement[3] = 0.5
    objects.misses_click[4] = True
    objects.area[5] = 100 * np.exp(6 * rank.LEAST_SPREAD)  # at the end of RARE
    objects.area[6] = 0
    a, b = list(objects.of_image(2))[:2]
    objects.box[a], objects.box[b] = (0, 0, 10, 10), (5, 0, 10, 10)
    found = doubts(objects)
    expected = np.full(len(objects), 0.2)
    expected[[3, 4, 5, 6]] = 1 - 0.8 * 0.75, 1, 1 - 0.8 * 0.5, 1
    expected[[a, b]] = 1 - 0.8 * (1 - 1 / 6)
    assert found.doubt == pytest.approx(expected, abs=1e-5)


def test_overlaps_are_those_of_all_pairs_of_an_image(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    objects.box[:, :2] = rng.uniform(0, 60, (len(objects), 2))
    objects.box[:, 2:] = rng.uniform(0, 60, (len(objects), 2))
    objects.box[5:9] = objects.box[5]  # as of four clicks on one object
    objects.area[:] = 1
    objects.area[17] = 0
    x0, y0, w, h = objects.box.astype(np.float64).T
    wide = np.minimum.outer(x0 + w, x0 + w) - np.maximum.outer(x0, x0)
    high = np.minimum.outer(y0 + h, y0 + h) - np.maximum.outer(y0, y0)
    both = np.clip(wide, 0, None) * np.clip(high, 0, None)
    iou = both / (np.add.outer(w * h, w * h) - both)
    same = (objects.image[:, None] == objects.image) & ~np.eye(len(objects), dtype=bool)
    same[17] = same[:, 17] = False
    expected = np.where(same, iou, 0).max(axis=1)
    assert doubts(objects).overlap == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(rank, "PAIRS_AT_ONCE", 7)
    assert doubts(objects).overlap == pytest.approx(expected, abs=1e-5)


def test_why_begins_with_what_tells_most(objects: Objects) -> None:
    objects.score[:] = 0.9
    objects.agreement[0], objects.agreement[1] = 0.3, 0.97
    objects.box[:2] = ((0, 0, 10, 10), (0, 0, 10, 9))
    found = doubts(objects)
    assert why(objects, found, 0)[:2] == [
        "its box overlaps another by 0.90", "rough and refined mask agree by 0.30"
    ]  # fmt: skip
    objects.misses_click[1] = True
    assert why(objects, found, 1)[0] == "the mask doesn't contain its click"
    empty = int(np.flatnonzero(objects.area == 0)[0])
    assert why(objects, found, empty) == ["the teacher draws no mask at this point"]


def test_few_masks_of_a_class_make_no_size_rare(objects: Objects) -> None:
    objects.category[:] = np.arange(len(objects)) // (rank.LEAST_OF_CLASS - 1)
    objects.area[:] = np.random.default_rng(0).uniform(1, 10000, len(objects))
    found = doubts(objects)
    assert (found.size == 0).all() and np.isnan(found.size_factor).all()
