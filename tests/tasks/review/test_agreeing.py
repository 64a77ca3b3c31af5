"""Who agrees with another reviewer contradicts them no more, whatever both said before."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from data.decisions.record import Click, Decision, Mask
from data.decisions.words import Word, contradictions, last_word
from tasks.review.agreeing import to_agree
from tests.data.decisions.test_record import MASK
from tests.data.fuzzing import few_times

OTHER = Mask(MASK.height, MASK.width, MASK.counts)._replace(counts=b"0" + MASK.counts)
SAID: list[tuple[Any, dict[str, Any]]] = [
    ("reject", {}), ("accept", {"mask": MASK}), ("accept", {"mask": OTHER}),
    ("mask", {"mask": OTHER, "source": "brush"}), ("class", {"category": "apple"}), ("class", {"category": "pear"}),
    ("clicks", {"point": (1.0, 2.0), "further": ()}),
    ("clicks", {"point": (1.0, 2.0), "further": (Click(3.0, 1.0, False),)}),
    ("add", {"category": "pear", "point": (1.0, 2.0), "mask": MASK, "source": "polygon"}),
]  # fmt: skip


@few_times
@given(said=st.lists(st.tuples(st.booleans(), st.sampled_from(SAID)), min_size=1, max_size=7))
def test_after_agreeing_nothing_contradicts(said: list[tuple[bool, Any]]) -> None:
    rows: dict[str, list[Decision]] = {"me": [], "bob": []}

    def say(who: str, n: int, action: Any, fields: dict[str, Any]) -> None:
        time = f"2026-06-01T09:30:{n:02d}+00:00"
        rows[who].append(Decision(f"d{n}", time, who, action, image="a.png", object="o", **fields))

    for n, (is_mine, (action, fields)) in enumerate(said):
        say("me" if is_mine else "bob", n, action, fields)
    other = last_word(rows["bob"])
    for n, (action, fields) in enumerate(to_agree(last_word(rows["me"]), other), start=20):
        say("me", n, action, fields)
    mine = last_word(rows["me"])
    words = {name: word for name, word in (("me", mine), ("bob", other)) if word != Word()}
    assert contradictions(words) == {}
    assert to_agree(mine, other) == []
    if other.verdict is not None and mine.verdict is not None:
        assert mine.verdict.mask == other.verdict.mask
