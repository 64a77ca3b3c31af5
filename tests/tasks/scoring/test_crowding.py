"""The limit of detections against objects counted by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.tables import Split
from tasks.scoring.crowding import Crowding, crowding
from tests.data.conftest import make_split  # noqa: F401  (a fixture)


def test_objects_of_a_split(make_split: Callable[..., Split]) -> None:  # noqa: F811
    """Image 10 has three objects of three classes and a crowd, 30 two, 20 none."""
    found = crowding(make_split())
    assert found.by_image == {10: 3, 30: 2}
    assert found.most == (3, 10)
    assert found.most_of_a_class[0] == 1


@pytest.mark.parametrize(
    ("limit", "beyond", "note"),
    [
        (2, 5, "has 6 objects of a class. Beyond the limit: 5 objects, which"),
        (5, 1, "limit: 1 object, which"),
        (6, 0, ""),
    ],
)
def test_what_lies_above_the_limit(limit: int, beyond: int, note: str) -> None:
    found = Crowding(Counter({(1, 1): 6, (1, 2): 3, (2, 1): 2}), Counter({1: 9, 2: 2}))
    assert found.most_of_a_class == (6, 1, 1)
    assert found.beyond(limit) == beyond
    assert note in found.limit_note(limit)
    assert bool(found.limit_note(limit)) == bool(beyond)


def test_no_objects() -> None:
    found = Crowding(Counter(), Counter())
    assert (found.most, found.most_of_a_class, found.beyond(0)) == ((0, 0), (0, 0, 0), 0)


@given(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.integers(1, 9)), st.integers(1, 9))
def test_found_and_beyond_are_all(counts: dict[tuple[int, int], int], limit: int) -> None:
    found = Crowding(Counter(counts), Counter())
    assert found.beyond(limit) + sum(min(limit, n) for n in counts.values()) == sum(counts.values())
