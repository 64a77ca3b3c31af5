"""The greedy choice: what each part of the value prefers, cost, limits, ties, order, the best set of small pools."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from tasks.suggestion import choice
from tasks.suggestion.choice import Pool, Weights, at_random, choose, costs

DIVERSITY, CLASSES, DOUBT = Weights(1, 0, 0), Weights(0, 1, 0), Weights(0, 0, 1)


def pool(
    features: Any, objects: Any = None, doubts: Any = None, labelled: Any = (), masks: Any = None
) -> Pool:
    table = np.array(features, float)
    number = np.ones((len(table), 1)) if objects is None else np.array(objects, float).reshape(len(table), -1)
    missed = np.zeros_like(number) if doubts is None else np.array(doubts, float).reshape(number.shape)
    have = np.zeros(number.shape[1]) if masks is None else np.array(masks, float)
    return Pool(table, number, missed, np.array(labelled, float).reshape(-1, table.shape[1]), have)


def made(images: int, seed: int, labelled: int = 3, classes: int = 3) -> Pool:
    rng = np.random.default_rng(seed)
    objects = rng.integers(0, 9, (images, classes)).astype(float)
    return Pool(
        rng.normal(size=(images, 4)), objects, objects * rng.random((images, classes)),
        rng.normal(size=(labelled, 4)), rng.integers(0, 30, classes).astype(float),
    )  # fmt: skip


def rows(found: list[choice.Choice]) -> list[int]:
    return [one.row for one in found]


def test_diversity_takes_the_larger_group_that_no_labelled_image_is_like() -> None:
    groups = [[1, 0, 0]] * 5 + [[0, 1, 0]] * 3 + [[0, 0, 1]]
    found = choose(pool(groups, labelled=[[1, 0, 0]]), images=3, weights=DIVERSITY)
    assert rows(found)[:2] == [5, 8]
    assert [one.stands_for for one in found[:2]] == [3, 1]
    assert found[0].gains[1:] == (0.0, 0.0)


def test_without_labelled_images_the_most_typical_comes_first() -> None:
    found = choose(pool([[0, 1], [1, 0], [1, 0.1], [1, -0.1]]), images=1, weights=DIVERSITY)
    assert rows(found) == [1] and found[0].likeness == -1


def test_classes_with_few_masks_come_first_and_saturate() -> None:
    objects = [[4, 0], [4, 0], [0, 4], [0, 4]]
    found = choose(pool([[1.0]] * 4, objects, masks=[0, 90]), images=4, weights=CLASSES)
    assert rows(found) == [0, 1, 2, 3]
    found = choose(pool([[1.0]] * 4, objects, masks=[0, 1]), images=3, weights=CLASSES)
    assert rows(found) == [0, 2, 1]  # of four masks already, four more add less than to one


def test_doubt_counts_objects_that_are_missed_the_more_in_classes_with_few() -> None:
    objects = [[10, 0], [10, 0], [0, 10]]
    found = choose(pool([[1.0]] * 3, objects, [[9, 0], [7, 0], [0, 8]]), images=3, weights=DOUBT)
    assert rows(found) == [2, 0, 1]


def test_a_gain_is_worth_less_on_an_image_that_takes_longer() -> None:
    objects, doubts = [[2], [40]], [[1], [1.5]]
    assert rows(choose(pool([[1.0]] * 2, objects, doubts), images=1, weights=DOUBT)) == [0]
    assert rows(choose(pool([[1.0]] * 2, objects, doubts), images=1, weights=DOUBT, cost=[1, 1])) == [1]
    assert costs(pool([[1.0]] * 2, objects)).tolist() == [23, 61]
    assert costs(pool([[1.0]] * 2, [[0], [0]])).tolist() == [1, 1]


def test_number_of_objects() -> None:
    objects = [[5], [4], [3], [2]]
    these = pool([[1.0]] * 4, objects, objects)
    cost = [1, 2, 3, 4]
    assert rows(choose(these, objects=8, weights=DOUBT, cost=cost)) == [0, 2]  # 5, not 4 as it would be 9, 3
    assert rows(choose(these, objects=9, weights=DOUBT, cost=cost)) == [0, 1]
    assert rows(choose(these, objects=1, weights=DOUBT, cost=cost)) == [0]  # one at least
    assert rows(choose(these, objects=100, images=3, weights=DOUBT, cost=cost)) == [0, 1, 2]


@pytest.mark.parametrize("images", [0, 1, 5])
def test_more_than_there_are(images: int) -> None:
    empty = made(images, 0)
    found = choose(empty, images=9)
    assert sorted(rows(found)) == list(range(images))
    assert len(choose(empty, objects=1000)) == images


def test_all_alike_and_nothing_to_gain() -> None:
    """Without predictions, clicks, and differences the first ones by name are taken."""
    nothing = pool([[0.0, 0.0]] * 4, [[0]] * 4)
    found = choose(nothing, images=2)
    assert rows(found) == [0, 1] and all(one.gains == (0.0, 0.0, 0.0) for one in found)


def test_a_class_that_nobody_has_and_nothing_shows_changes_nothing() -> None:
    some = made(12, 1)
    wider = Pool(
        some.features, np.pad(some.objects, ((0, 0), (0, 1))), np.pad(some.doubts, ((0, 0), (0, 1))),
        some.labelled, np.append(some.masks, 0),
    )  # fmt: skip
    assert choose(wider, images=6) == choose(some, images=6)


@pytest.mark.parametrize("seed", range(4))
def test_the_lazy_choice_is_the_greedy_one(seed: int) -> None:
    """Each step's choice has the best gain over cost of all that are left."""
    some = made(30, seed)
    found = choose(some, images=8)
    for step, one in enumerate(found):
        value = choice._Value(some, choice.DEFAULT)
        for before in found[:step]:
            value.add(before.row)
        left = sorted(set(range(30)) - set(rows(found)[:step]))
        ratio = [value.gains(row).sum() / costs(some)[row] for row in left]
        assert left[int(np.argmax(ratio))] == one.row
        assert value.gains(one.row).tolist() == pytest.approx(one.gains, rel=1e-6)


def test_near_the_best_set() -> None:
    """At equal costs the greedy set has 1 - 1/e of the best set's value at least; here more."""
    some = made(12, 5)
    flat = np.ones(12)

    def worth(chosen: Any) -> float:
        value = choice._Value(some, choice.DEFAULT)
        return sum(sum(value.add(row).gains) for row in chosen)

    best = max(worth(some_rows) for some_rows in combinations(range(12), 4))
    assert worth(rows(choose(some, images=4, cost=flat))) >= 0.9 * best


def test_order_and_repetition_change_nothing() -> None:
    some = made(40, 7)
    order = np.random.default_rng(0).permutation(40)
    mixed = Pool(some.features[order], some.objects[order], some.doubts[order], some.labelled, some.masks)
    first = rows(choose(some, images=15))
    assert rows(choose(some, images=15)) == first
    assert [int(order[row]) for row in rows(choose(mixed, images=15))] == first
    assert rows(choose(some, images=5)) == first[:5]


def test_many_candidates_are_represented_by_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    some = made(60, 3)
    whole = choose(some, images=6, weights=DIVERSITY)
    monkeypatch.setattr(choice, "MOST_REPRESENTED", 30)
    part = choose(some, images=6, weights=DIVERSITY)
    assert len(set(rows(part))) == 6
    value = choice._Value(some, DIVERSITY)
    assert value.represented.shape[0] == 30 and value.similar.shape == (60, 30)
    assert sum(one.stands_for for one in part) >= 0.5 * sum(one.stands_for for one in whole)


def test_likeness_to_what_came_before() -> None:
    some = pool([[2.0, 0], [0, 3]], labelled=[[4.0, 0], [0, -5]])
    centre = np.array([1.5, -0.5])

    def cosine(a: Any, b: Any) -> float:
        a, b = np.array(a) - centre, np.array(b) - centre
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    first, second = choose(some, images=2, weights=DIVERSITY)
    assert (first.row, second.row) == (1, 0)
    assert first.likeness == pytest.approx(max(cosine([0, 3], other) for other in ([4, 0], [0, -5])))
    assert second.likeness == pytest.approx(max(cosine([2, 0], other) for other in ([4, 0], [0, -5], [0, 3])))


def test_random_choice_fills_the_same_number_of_objects() -> None:
    some = made(30, 2)
    expected = some.objects.sum(1)
    drawn = at_random(some, 60, seed=1)
    assert drawn == at_random(some, 60, seed=1) != at_random(some, 60, seed=2)
    total = expected[drawn].sum()
    assert total <= 60 and all(total + expected[row] > 60 for row in set(range(30)) - set(drawn))
