"""What was decided on each object, kept up to date as reviewers decide.

An object is decided if a reviewer has judged its mask, drawn another, or changed its clicks, and nobody contradicts.
A class alone decides nothing: the mask wasn't judged. Nor do clicks that the mask was made from: after the next run
nobody has seen the mask that came of them.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.decisions.follow import Follower
from data.decisions.record import FIELDS, Decision
from data.decisions.words import Word, contradictions, joined, last_word, without_undone
from data.errors import Fault
from data.masks.rle import BoolArray, IntArray
from data.points.lookup import Categories
from data.points.record import Problem
from tasks.intake.decisions import misplaced, word_without
from tasks.review.objects import Objects

PAUSE = 120.0
"""Seconds without a decision from which a reviewer is held to have paused."""
PACE_OVER = 100
"""Decisions from which the pace is computed."""
_IMAGE = "\0image "


class Standing(NamedTuple):
    """What counts on one object."""

    words: dict[str, Word]
    """by reviewer, where there is one"""
    contradicted: dict[str, str]
    """for reviewers who contradict another one: what the other one decided"""
    word: Word
    """all reviewers'; empty where they contradict each other"""
    is_decided: bool
    """see above"""


class Lost(NamedTuple):
    """A decision that can't be honoured."""

    decision: Decision
    why: str


class Ledger:
    """The decisions of a folder on the objects of a project.

    Attributes:
        decided: bool [N].
        contradicted: bool [N].
        by: int64 [N], how many reviewers said something.
        complete: by image row, the reviewers who said that all its objects are clicked or added.
        added: by image row, ids of objects that reviewers added and that aren't among the N.
        version: grows by one with each decision, and with each change of another kind.
    """

    def __init__(self, folder: Path, objects: Objects, audit: str | None = None) -> None:
        """
        Args:
            audit: the id of a random sample: decisions on objects that weren't made for it don't count; None: all do.
        """
        self._follower, self._objects, self._audit = Follower(folder), objects, audit
        self._categories = Categories(objects.weak, None)
        self._sizes = [objects.weak.images[name].to_numpy() for name in ("width", "height")]
        self._clear()
        self.version = 0
        self.refresh()

    def _clear(self) -> None:
        self._of: dict[str, dict[str, list[Decision]]] = {}
        self._key_of: dict[str, str] = {}
        self._own: dict[str, list[Decision]] = {}
        self._standing: dict[str, Standing] = {}
        self._lost: dict[str, list[Lost]] = {}
        self.decided: BoolArray = np.zeros(len(self._objects), np.bool_)
        self.contradicted: BoolArray = np.zeros(len(self._objects), np.bool_)
        self.by: IntArray = np.zeros(len(self._objects), np.int64)
        self.complete: dict[int, list[str]] = {}
        self.added: dict[int, list[str]] = {}

    def refresh(self) -> None:
        """Reads what is new in the files."""
        new, is_void = self._follower.update()
        if is_void:
            self._clear()
        touched: dict[str, None] = {}
        for reviewer, decisions in new.items():
            decisions = [one for one in decisions if self._counts(one)]
            self._own.setdefault(reviewer, []).extend(decisions)
            self.version += len(decisions)
            for one in decisions:
                key = self._key(one)
                if key is not None:
                    self._key_of[one.id] = key
                    self._of.setdefault(key, {}).setdefault(reviewer, []).append(one)
                    touched[key] = None
        for key in touched:
            self._update(key)
        self.version += is_void

    def _counts(self, one: Decision) -> bool:
        needed, possible = FIELDS[one.action]
        return self._audit is None or one.audit == self._audit or "audit" not in (*needed, *possible)

    def _key(self, one: Decision) -> str | None:
        """Of the object or image; for an undo that of what it undoes."""
        if one.undoes is not None:
            return self._key_of.get(one.undoes)
        return f"{_IMAGE}{one.image}" if one.object is None else one.object

    def _update(self, key: str) -> None:
        counting = {name: without_undone(own)[0] for name, own in self._of[key].items()}
        counting = {name: own for name, own in counting.items() if own}
        if key.startswith(_IMAGE):
            name = key.removeprefix(_IMAGE)
            image = self.image_row(name)
            if image is None:
                self._lost[key] = [
                    Lost(own[-1], f"there is no weak image {name}") for own in counting.values()
                ]
                return
            self.complete.pop(image, None)
            if counting:
                self.complete[image] = sorted(counting)
            return
        words = self._valid(key, {name: last_word(own) for name, own in counting.items()})
        differing = contradictions(words) if len(words) > 1 else {}
        word = joined(list(words.values())) if words and not differing else Word()
        row = self._objects.row_of.get(key)
        is_decided = word.verdict is not None
        if word.clicks is not None and not is_decided:
            is_decided = row is None or not self._objects.has_clicks(row, word.clicks)
        self._standing[key] = standing = Standing(words, differing, word, is_decided)
        if row is not None:
            self.decided[row] = standing.is_decided
            self.contradicted[row] = bool(differing)
            self.by[row] = len(words)
        elif (added := first_added(words)) is not None or any(key in one for one in self.added.values()):
            for some in self.added.values():
                if key in some:
                    some.remove(key)
            image = None if added is None else self.image_row(added.image)
            is_taken_back = word.verdict is not None and word.verdict.action == "reject"
            if image is not None and not is_taken_back:
                self.added.setdefault(image, []).append(key)

    def image_row(self, name: str | None) -> int | None:
        """The row of the image that a decision names; None if there is none."""
        found = self._objects.names.find(name)
        return None if isinstance(found, Problem) else self._objects.image_row[found]

    def standing(self, name: str) -> Standing:
        """What counts on an object, by its id."""
        return self._standing.get(name) or Standing({}, {}, Word(), is_decided=False)

    def last(self, reviewer: str) -> Decision | None:
        """The reviewer's last decision that counts: what an undo undoes."""
        undone: set[str] = set()
        for one in reversed(self._own.get(reviewer, ())):
            if one.id in undone:
                continue
            if one.undoes is None:
                return one
            undone.add(one.undoes)
        return None

    def find(self, reviewer: str, decision_id: str) -> Decision | None:
        """A decision of a reviewer by its id; the latest ones are looked at first."""
        return next((one for one in reversed(self._own.get(reviewer, ())) if one.id == decision_id), None)

    def is_undone(self, one: Decision) -> bool:
        """Whether a decision doesn't count since it was undone."""
        same = self._of.get(self._key_of.get(one.id, ""), {}).get(one.reviewer, ())
        return all(other.id != one.id for other in without_undone(same)[0])

    def completed(self, reviewer: str, image: str | None) -> Decision | None:
        """The reviewer's decision that an image is complete, if it counts."""
        own = without_undone(self._of.get(f"{_IMAGE}{image}", {}).get(reviewer, ()))[0]
        return own[-1] if own else None

    def made(self) -> dict[str, int]:
        """Decisions by reviewer, undos and undone ones included."""
        return {name: len(own) for name, own in sorted(self._own.items())}

    def pace(self, reviewer: str) -> float | None:
        """Decisions an hour, without pauses; None before the third."""
        moments = [one.moment for one in self._own.get(reviewer, ())[-PACE_OVER:] if one.action != "undo"]
        gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(moments)]
        gaps = [gap for gap in gaps if gap <= PAUSE]
        return 3600 * len(gaps) / max(sum(gaps), 1e-3) if len(gaps) >= 2 else None

    def lost(self) -> list[Lost]:
        """Decisions that are a reviewer's last word and that can't be honoured: they don't count here either."""
        return [one for of_key in self._lost.values() for one in of_key]

    def _valid(self, key: str, words: dict[str, Word]) -> dict[str, Word]:
        """Words on an object without decisions that can't be honoured, as import_points leaves them out."""
        is_added = first_added(words) is not None
        found: dict[str, Word] = {}
        self._lost[key] = lost = []
        for reviewer, word in words.items():
            why = {one.id: self._why_lost(key, one, is_added) for one in word.parts()}
            if word.added is not None and why[word.added.id] is not None:
                why = dict.fromkeys(why, why[word.added.id])
            bad = [one for one in word.parts() if why[one.id] is not None]
            lost += [Lost(one, str(why[one.id])) for one in bad]
            word = word_without(word, bad)
            if word.parts():
                found[reviewer] = word
        return found

    def _why_lost(self, key: str, one: Decision, is_added: bool) -> str | None:
        """Why a decision on an object can't be honoured."""
        image, row = self.image_row(one.image), self._objects.row_of.get(key)
        if image is None:
            return f"there is no weak image {one.image}"
        if row is None and not is_added:
            return f"there is no object {key}"
        if row is not None and one.action == "add":
            return f"object {key} is a point"
        if row is not None and int(self._objects.image[row]) != image:
            return f"object {key} is on another image"
        if one.category is not None and isinstance(self._categories.find(one.category), Problem):
            return f"there is no class {one.category}"
        problem = misplaced(one, *(int(side[image]) for side in self._sizes))
        return None if problem is None else f"found {problem.found}, expected {problem.expected}"

    @property
    def faults(self) -> list[Fault]:
        """Lines of the files that aren't decisions."""
        return self._follower.faults


def first_added(words: dict[str, Word]) -> Decision | None:
    """The decision that added an object; None if it has a point."""
    return next((one.added for _, one in sorted(words.items()) if one.added is not None), None)
