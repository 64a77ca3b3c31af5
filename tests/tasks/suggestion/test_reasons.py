"""Reasons in words."""

from __future__ import annotations

import numpy as np

from tasks.suggestion.choice import Choice, Pool
from tasks.suggestion.reasons import reasons

FEATURES = np.array([[1.0, 0], [0, 1], [0.9, 0.1], [1, 0.05], [0.95, 0]])
OBJECTS = np.array([[20.0, 0], [3, 2], [1, 0], [1, 0], [0, 0]])


def said(
    *chosen: Choice, labelled: bool = True, clicked: bool = True, doubts: float = 0.5
) -> list[list[str]]:
    known = FEATURES[:1] if labelled else FEATURES[:0]
    some = Pool(FEATURES, OBJECTS, OBJECTS * doubts, known, np.array([7.0, 1]))
    return reasons(some, chosen, ["window", "shop"], [clicked] * len(FEATURES))


def test_the_most_telling_part_first_and_small_ones_left_out() -> None:
    found = said(Choice(1, (0.5, 0.4, 0.1), -0.9, 3))
    assert found == [
        [
            "unlike all images with masks, and 2 more images like it",
            "2 shop (masks so far: 1), 3 window (masks so far: 7)",
        ]
    ]
    assert said(Choice(0, (0.1, 0.2, 0.7), 0.9, 1)) == [
        ["of 20 clicked objects the model misses about 10, mostly window"]
    ]
    assert said(Choice(0, (0.0, 0.0, 0.7), 0.9, 1), clicked=False) == [
        ["of about 20 objects the model doubts 10, mostly window"]
    ]


def test_what_came_before_counts() -> None:
    first, second = said(Choice(1, (0.0, 1.0, 0.0), -0.9, 3), Choice(1, (0.5, 0.5, 0.0), -0.8, 1))
    assert first == ["2 shop (masks so far: 1), 3 window (masks so far: 7)"]
    assert second == [
        "unlike all images with masks and images chosen before it",
        "2 shop (masks so far: 3), 3 window (masks so far: 10)",
    ]


def test_like_the_others() -> None:
    assert said(Choice(0, (1.0, 0.0, 0.0), 0.95, 4)) == [
        ["4 images are more like it than like any images with masks"]
    ]
    assert said(Choice(0, (1.0, 0.0, 0.0), -1.0, 4), labelled=False) == [
        ["4 images are more like it than like any other"]
    ]


def test_nothing_to_say() -> None:
    assert said(Choice(4, (0.0, 0.0, 0.0), 0.9, 0)) == [["nothing better is left"]]
    assert said(Choice(4, (0.0, 0.0, 1.0), 0.9, 0)) == [["nothing better is left"]]
