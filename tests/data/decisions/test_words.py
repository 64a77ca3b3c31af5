from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.decisions.record import Decision
from data.decisions.words import described, joined, last_word, without_undone
from tests.data.decisions.test_record import MASK
from tests.data.fuzzing import few_times

OBJECT: dict[str, Any] = {"reviewer": "anna", "image": "a.png", "object": "o"}


def decision(n: int, action: Any, **fields: Any) -> Decision:
    usual = {"reviewer": "anna"} if action == "undo" else OBJECT
    return Decision(id=f"d{n}", time=f"2026-06-01T09:30:{n:02d}+00:00", action=action, **(usual | fields))


@few_times
@given(targets=st.lists(st.none() | st.integers(0, 11), max_size=12))
def test_a_decision_counts_unless_an_undo_that_counts_is_on_it(targets: list[int | None]) -> None:
    made = [
        decision(n, "undo", undoes=f"d{target % n}") if n and target is not None else decision(n, "reject")
        for n, target in enumerate(targets)
    ]

    def counts(one: Decision) -> bool:
        return not any(other.undoes == one.id and counts(other) for other in made)

    counting, undone = without_undone(made)
    others = [one for one in made if one.action != "undo"]
    assert counting == [one for one in others if counts(one)]
    assert undone == [one for one in others if not counts(one)]


def test_the_parts_of_a_word() -> None:
    added = decision(0, "add", category="apple", mask=MASK, source="brush", point=(1.0, 2.0))
    accept, pear = decision(1, "accept", mask=MASK), decision(2, "class", category="pear")
    clicks, reject = decision(3, "clicks", point=(2.0, 2.0), further=()), decision(4, "reject")
    word = last_word([added])
    assert (word.verdict, word.category, word.clicks, word.added) == (added, added, added, added)
    assert word.parts() == (added,)
    word = last_word([added, accept, pear])
    assert (word.verdict, word.category, word.clicks) == (accept, pear, added)
    word = last_word([added, accept, pear, clicks])
    assert (word.verdict, word.category, word.clicks, word.added) == (None, pear, clicks, added)
    assert set(word.parts()) == {added, pear, clicks}
    assert last_word([accept, clicks, reject]).verdict == reject
    # Added anew, with a click alone: nothing of before counts.
    again = decision(5, "add", category="apple", point=(1.0, 2.0))
    assert last_word([added, accept, pear, again]).parts() == (again,)


def test_of_several_who_agree_the_latest_counts() -> None:
    words = [last_word([decision(n, "accept", mask=MASK)]) for n in (7, 12, 9)]
    found = joined(words).verdict
    assert found is not None and found.id == "d12"


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (decision(0, "reject"), "reject"),
        (decision(0, "class", category="pear"), "class pear"),
        (decision(0, "clicks", point=(1.25, 2.0), further=()), "clicks at 1.2, 2.0"),
    ],
)
def test_a_decision_in_words(one: Decision, text: str) -> None:
    assert described(one) == text
