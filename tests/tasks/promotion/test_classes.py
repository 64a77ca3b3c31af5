"""Classes of two models are matched by their names."""

from __future__ import annotations

from typing import Any

import pytest

from data.tables import Category
from tasks.promotion.classes import common_classes


@pytest.mark.parametrize(
    ("older", "expected"),
    [
        ([(1, "a"), (2, "b")], ([0, 1], [1, 2], [], [])),
        ([(7, "b"), (9, "a")], ([0, 1], [2, 1], [], [])),
        ([(1, "z"), (2, "b")], ([1], [0, 2], ["z"], ["a"])),
        ([], ([], [], [], ["a", "b"])),
    ],
)
def test_classes_are_known_by_their_names(older: list[tuple[int, str]], expected: Any) -> None:
    val = [Category(1, "a"), Category(2, "b")]
    assert common_classes([Category(*one) for one in older], val) == expected


def test_equal_names_are_told_apart_by_their_ids() -> None:
    val = [Category(1, "a"), Category(2, "a")]
    assert common_classes(val[::-1], val) == ([0, 1], [2, 1], [], [])
