"""What was decided on each object, kept up to date as reviewers decide.

An object is decided if a reviewer has judged its mask, drawn another, or changed its clicks, and nobody contradicts.
A class alone decides nothing: the mask wasn't judged. Nor do clicks that the mask was made from: after the next run
nobody has seen the mask that came of them.
"""

from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.decisions.follow import Follower
from data.decisions.record import FIELDS, Decision
from data.decisions.words import (
    Word,
    contradictions,
    joined,
    last_word,
    undone_ids,
    without_undone,
)
from data.errors import Fault
from data.masks.rle import BoolArray, FloatArray, IntArray
from data.points.lookup import Categories
from data.points.record import Problem
from tasks.common.startup import gc_off
from tasks.intake.decisions import misplaced, word_without
from tasks.review.objects import Objects

PAUSE = 120.0
"""Seconds without a decision from which a reviewer is held to have paused."""
PACE_OVER = 100
"""Decisions from which the pace is computed."""
VERDICTS = ("accept", "reject", "mask")
REDO_OVER = 200
"""Decisions among which an undo that may be undone is looked for."""
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
        sides = (objects.weak.images[name].to_pylist() for name in ("width", "height"))
        self._sizes: list[tuple[int, int]] = list(zip(*sides, strict=True))
        self._clear()
        self.version = 0
        # Else a third of the time in which 100,000 decisions are read; nor are they searched for garbage later, while
        # somebody waits for the next object.
        with gc_off():
            self.refresh()
            gc.freeze()

    def _clear(self) -> None:
        self._of: dict[str, dict[str, list[Decision]]] = {}
        self._key_of: dict[str, str] = {}
        self._own: dict[str, list[Decision]] = {}
        self._standing: dict[str, Standing] = {}
        self._simple: set[str] = set()
        """objects with one verdict alone, whose standing is worked out when it is needed"""
        self._image_rows: dict[str | None, int | None] = {}
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
            if not self._is_simple(key):
                self._update(key)
        self.version += is_void

    def _is_simple(self, key: str) -> bool:
        """Whether there is one decision, a verdict that can be honoured; its object is decided then."""
        self._simple.discard(key)
        own = [one for decisions in self._of[key].values() for one in decisions]
        row = self._objects.row_of.get(key)
        if len(own) != 1 or row is None or own[0].action not in VERDICTS:
            return False
        image, mask = int(self._objects.image[row]), own[0].mask
        fits = mask is None or (mask.width, mask.height) == self._sizes[image]
        if not fits or self.image_row(own[0].image) != image:
            return False
        self._standing.pop(key, None)
        self._lost.pop(key, None)
        self.decided[row], self.contradicted[row], self.by[row] = True, False, 1
        self._simple.add(key)
        return True

    def _counts(self, one: Decision) -> bool:
        if self._audit is None:
            return True
        needed, possible = FIELDS[one.action]
        return one.audit == self._audit or "audit" not in (*needed, *possible)

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
        if name not in self._image_rows:
            found = self._objects.names.find(name)
            self._image_rows[name] = None if isinstance(found, Problem) else self._objects.image_row[found]
        return self._image_rows[name]

    def standing(self, name: str) -> Standing:
        """What counts on an object, by its id."""
        if name in self._simple:
            self._simple.discard(name)
            self._update(name)
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

    def redoable(self, reviewer: str) -> Decision | None:
        """The reviewer's latest undo that may be undone: no decision was made after it."""
        undone: set[str] = set()
        own = self._own.get(reviewer, ())
        is_undo = {one.id for one in own[-REDO_OVER:] if one.undoes is not None}
        for one in reversed(own[-REDO_OVER:]):
            if one.id in undone:
                continue
            if one.undoes is None:
                return None
            if one.undoes not in is_undo:
                return one
            undone.add(one.undoes)
        return None

    def find(self, reviewer: str, decision_id: str) -> Decision | None:
        """A decision of a reviewer by its id; the latest ones are looked at first."""
        return next((one for one in reversed(self._own.get(reviewer, ())) if one.id == decision_id), None)

    def is_undone(self, one: Decision) -> bool:
        """Whether a decision doesn't count since it was undone."""
        same = self._of.get(self._key_of.get(one.id, ""), {}).get(one.reviewer, ())
        return one.id in undone_ids(same)

    def of_reviewer(self, reviewer: str) -> IntArray:
        """Rows of the objects on which a reviewer's word counts."""
        names = [name for name, standing in self._standing.items() if reviewer in standing.words]
        names += [name for name in self._simple if reviewer in self._of[name]]
        rows = (self._objects.row_of.get(name) for name in names)
        return np.array(sorted(row for row in rows if row is not None), np.int64)

    def latest(self) -> FloatArray:
        """Seconds of the latest decision that counts on each object, float64 [N]; -inf without one."""
        found = np.full(len(self._objects), -np.inf)
        counting = {
            name: [one for word in standing.words.values() for one in word.parts()]
            for name, standing in self._standing.items()
        }
        counting |= {name: next(iter(self._of[name].values())) for name in self._simple}
        for name, decisions in counting.items():
            row = self._objects.row_of.get(name)
            if row is not None and decisions:
                found[row] = max(one.moment for one in decisions).timestamp()
        return found

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
        if row is not None and one.action == "add" and key not in self._objects.added:
            return f"object {key} is a point"
        if row is not None and int(self._objects.image[row]) != image:
            return f"object {key} is on another image"
        if one.category is not None and isinstance(self._categories.find(one.category), Problem):
            return f"there is no class {one.category}"
        problem = misplaced(one, *self._sizes[image])
        return None if problem is None else f"found {problem.found}, expected {problem.expected}"

    @property
    def faults(self) -> list[Fault]:
        """Lines of the files that aren't decisions."""
        return self._follower.faults


def first_added(words: dict[str, Word]) -> Decision | None:
    """The decision that added an object; None if it has a point."""
    return next((one.added for _, one in sorted(words.items()) if one.added is not None), None)
