"""The last words on each object, and where reviewers contradict each other.

A reviewer's last word on an object counts, without decisions that are undone. It has up to four parts: the verdict on
the mask (`accept`, `reject`, `mask`), the class, the clicks, and that the object was added. New clicks end an earlier
verdict of the same reviewer, since they call for another mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from data.decisions.record import Decision


@dataclass(frozen=True)
class Word:
    """The last word of one reviewer on one object, or of several who agree.

    `added` is also the verdict, if it has a mask, and the word on class and clicks, until there is a later one.
    """

    verdict: Decision | None = None
    category: Decision | None = None
    clicks: Decision | None = None
    added: Decision | None = None

    def parts(self) -> tuple[Decision, ...]:
        """Its decisions, each once."""
        found = (self.added, self.verdict, self.category, self.clicks)
        return tuple({one.id: one for one in found if one is not None}.values())


def without_undone(decisions: Iterable[Decision]) -> tuple[list[Decision], list[Decision]]:
    """The decisions of one reviewer, in the order of their lines, that count and that are undone; undos are in neither.

    An undo can be undone: then its decision counts again.
    """
    rows = list(decisions)
    undone = undone_ids(rows)
    made = [one for one in rows if one.action != "undo"]
    return [one for one in made if one.id not in undone], [one for one in made if one.id in undone]


def undone_ids(decisions: Sequence[Decision]) -> set[str]:
    """Of one reviewer, in the order of their lines: what is undone, undos too."""
    undone: set[str] = set()
    for one in reversed(decisions):
        if one.undoes is not None and one.id not in undone:
            undone.add(one.undoes)
    return undone


def last_word(decisions: Iterable[Decision]) -> Word:
    """Of one reviewer on one object, from decisions that count, in the order of their lines."""
    word = Word()
    for one in decisions:
        if one.action == "add":
            mask = None if one.mask is None else one
            word = Word(mask, one, None if one.point is None else one, one)
        elif one.action == "class":
            word = Word(word.verdict, one, word.clicks, word.added)
        elif one.action == "clicks":
            word = Word(None, word.category, one, word.added)
        else:
            word = Word(one, word.category, word.clicks, word.added)
    return word


def last_words(
    decisions: Iterable[Decision], counts: Callable[[Decision], bool] = lambda _: True
) -> dict[str, dict[str, Word]]:
    """The last word of each reviewer on each object: by object, then reviewer.

    Args:
        decisions: of all reviewers, each one's in the order of its lines.
        counts: whether a decision that isn't undone counts.
    """
    own: dict[str, list[Decision]] = {}
    for one in decisions:
        own.setdefault(one.reviewer, []).append(one)
    words: dict[str, dict[str, Word]] = {}
    for reviewer, rows in own.items():
        by_object: dict[str, list[Decision]] = {}
        for one in without_undone(rows)[0]:
            if one.object is not None and counts(one):
                by_object.setdefault(one.object, []).append(one)
        for name, same in by_object.items():
            words.setdefault(name, {})[reviewer] = last_word(same)
    return words


def contradictions(words: Mapping[str, Word]) -> dict[str, str]:
    """For each of the reviewers of an object who contradict another one: what the other one decided."""
    found: dict[str, str] = {}
    for (first, a), (second, b) in combinations(sorted(words.items()), 2):
        pair = _differing(a, b)
        if pair is not None:
            found.setdefault(first, f"{second}: {described(pair[1])}")
            found.setdefault(second, f"{first}: {described(pair[0])}")
    return found


def joined(words: Sequence[Word]) -> Word:
    """The word of reviewers who don't contradict each other: of each part the latest."""

    def latest(found: list[Decision | None]) -> Decision | None:
        return max(
            (one for one in found if one is not None), key=lambda one: (one.moment, one.id), default=None
        )

    return Word(
        latest([word.verdict for word in words]),
        latest([word.category for word in words]),
        latest([word.clicks for word in words]),
        latest([word.added for word in words]),
    )


def described(one: Decision) -> str:
    """`accept`, `class apple`, `clicks at 3.5, 2.0`."""
    if one.action == "class":
        return f"class {one.category}"
    if one.action == "clicks" and one.point is not None:
        return f"clicks at {one.point[0]:.1f}, {one.point[1]:.1f}"
    return one.action


def _differing(a: Word, b: Word) -> tuple[Decision, Decision] | None:
    """A decision of each word that can't both hold; None if there are none."""
    if a.verdict is not None and b.verdict is not None and not _same_verdict(a.verdict, b.verdict):
        return a.verdict, b.verdict
    if a.category is not None and b.category is not None and a.category.category != b.category.category:
        return a.category, b.category
    if a.clicks is not None and b.clicks is not None and _clicks(a.clicks) != _clicks(b.clicks):
        return a.clicks, b.clicks
    for one, other, in_order in ((a, b, True), (b, a, False)):
        # Clicks call for another mask than the one that was judged before. A verdict that is later is on the mask that
        # came of them.
        clicks, verdict = other.clicks, one.verdict
        if verdict is None or clicks is None or other.verdict is not None or one.clicks is not None:
            continue
        if clicks.moment > verdict.moment:
            return (verdict, clicks) if in_order else (clicks, verdict)
    return None


def _same_verdict(a: Decision, b: Decision) -> bool:
    """Two who accept agree: each saw a good mask, of which the later one is used."""
    if a.action == b.action and a.action in ("accept", "reject"):
        return True
    return "reject" not in (a.action, b.action) and a.mask == b.mask


def _clicks(one: Decision) -> tuple[object, object]:
    return one.point, one.further or ()
