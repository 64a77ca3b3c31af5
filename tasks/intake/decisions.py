"""Decisions of reviewers applied to the points: moved and further clicks, classes, added objects.

States of a decision, in one word:

- `honoured`: it has an effect, or is what the object has already;
- `agrees`: with a later one of another reviewer, which is honoured;
- `superseded`, `undone`: by a later one of the same reviewer;
- `contradicted`: two reviewers differ on the object, which counts as undecided;
- why it can't be honoured: `unknown_image`, `rejected_image`, `other_split`, `unknown_object`, `unknown_category`,
  `other_image` (the object is on another one), `known_object` (an added object has the id of a point), `other_size`
  (the mask's size isn't the image's), `outside_image` (a click), `duplicate_point` (the main click is in the pixel of
  another object).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.decisions.record import Decision
from data.decisions.store import SUFFIX
from data.decisions.words import Word, contradictions, joined, last_word, without_undone
from data.points.elsewhere import Elsewhere, WeakImages
from data.points.lookup import Categories
from data.points.record import Problem
from data.tables import DECISIONS, POINTS, Fault, Split, read_parquet

FILE = "decisions.parquet"
"""Below workspace/points; missing where there are no decisions."""
SETTLED = ("honoured", "agrees", "superseded", "undone")
"""States that need no action."""
STEPS = {
    "contradicted": "one of the two undoes the decision, or decides as the other",
    "unknown_object": "undo it, or bring the object's click back",
    "other_size": "undo it and draw the mask again",
    "duplicate_point": "undo it, or move the other click",
}
SHOWN = 100
"""Decisions of a state that the manifest lists."""


class Reviewed(NamedTuple):
    """What became of points and decisions."""

    points: pa.Table
    """with all decisions, table POINTS"""
    decisions: pa.Table
    """with their states, table DECISIONS"""
    summary: dict[str, Any]
    """of these; see `summary`"""


class _Object(NamedTuple):
    """An object, with the decisions on it."""

    image_id: int
    category_id: int
    xy: tuple[float, float] | None
    """of its main click; None without one, and before an addition"""
    row: int | None
    """in the table of points; None of an added object"""


def read_reviewed(points: Path) -> pa.Table:
    """Table DECISIONS of the folder workspace/points; empty where there are no decisions."""
    path = points / FILE
    return read_parquet(path, DECISIONS) if path.is_file() else DECISIONS.empty_table()


def added_ids(points: pa.Table) -> set[str]:
    """The objects of points.parquet that reviewers added."""
    is_added = pc.equal(points["source_file"], pc.binary_join_element_wise(points["annotator"], SUFFIX, ""))
    return set(points.filter(pc.fill_null(is_added, False))["point_id"].to_pylist())


def apply_decisions(
    decisions: Sequence[Decision], points: pa.Table, weak: Split, elsewhere: Elsewhere
) -> Reviewed:
    """
    Args:
        decisions: of all reviewers, each one's in the order of its lines.
        points: as imported, table POINTS.
    """
    return _Review(points, weak, elsewhere).run(decisions)


class _Review:
    def __init__(self, points: pa.Table, weak: Split, elsewhere: Elsewhere) -> None:
        self.points = points
        self.images = WeakImages(weak, elsewhere)
        self.categories = Categories(weak, None)
        columns = (weak.images[name].to_pylist() for name in ("image_id", "width", "height"))
        self.sizes = {image_id: (width, height) for image_id, width, height in zip(*columns, strict=True)}
        names = ("point_id", "image_id", "category_id", "x", "y")
        rows = zip(*(points[name].to_pylist() for name in names), strict=True)
        self.objects = {
            point_id: _Object(image_id, category_id, (x, y), n)
            for n, (point_id, image_id, category_id, x, y) in enumerate(rows)
        }
        self.pixels = {_pixel(one): name for name, one in self.objects.items()}
        self.states: dict[str, tuple[str, str | None, str | None]] = {}
        """by decision: state, found, expected"""
        self.honoured: dict[str, tuple[_Object, bool]] = {}
        """by decision on an object: the object, and whether the decision's mask is learnt"""
        self.moved: dict[str, tuple[_Object, Word]] = {}
        """objects whose click or class changes, and added ones with a click"""

    def run(self, decisions: Sequence[Decision]) -> Reviewed:
        words: dict[str, dict[str, Word]] = {}
        for reviewer, own in _grouped(decisions, lambda one: one.reviewer).items():
            counting, undone = without_undone(own)
            self._set("undone", undone)
            of_images = [one for one in counting if one.object is None]
            for same in _grouped(of_images, lambda one: one.image).values():
                self._set("superseded", same[:-1])
                self._complete(same[-1])
            of_objects = [one for one in counting if one.object is not None]
            for name, same in _grouped(of_objects, lambda one: one.object).items():
                word = last_word(same)
                last = {one.id for one in word.parts()}
                self._set("superseded", [one for one in same if one.id not in last])
                words.setdefault(str(name), {})[reviewer] = word
        for name in sorted(words):
            self._object(name, words[name])
        table = self._table(decisions)
        return Reviewed(self._points(), table, summary(table))

    def _set(self, state: str, decisions: Iterable[Decision]) -> None:
        for one in decisions:
            self.states[one.id] = (state, None, None)

    def _refuse(self, problem: Problem, decisions: Iterable[Decision]) -> None:
        for one in decisions:
            self.states[one.id] = problem

    def _complete(self, one: Decision) -> None:
        image_id = self.images.find(one.image)
        if isinstance(image_id, Problem):
            self._refuse(image_id, [one])
        else:
            self._set("honoured", [one])

    def _object(self, name: str, words: Mapping[str, Word]) -> None:
        """The decisions on one object."""
        base = self.objects.get(name)
        if base is None:
            base = self._added(words)
        kept = {reviewer: self._valid(name, word, base) for reviewer, word in words.items()}
        kept = {reviewer: word for reviewer, word in kept.items() if word.parts()}
        if base is None or not kept:
            return
        differing = contradictions(kept)
        if differing:
            for reviewer, word in kept.items():
                found = differing.get(reviewer, "other reviewers, who contradict each other")
                problem = Problem("contradicted", found, "the same decision of all reviewers")
                self._refuse(problem, word.parts())
            return
        word = joined(list(kept.values()))
        after = self._after(base, word)
        other = None if after.xy is None else self.pixels.get(_pixel(after), name)
        if other not in (None, name) and _pixel(after) != _pixel(base):
            expected = "main clicks of two objects in different pixels"
            problem = Problem("duplicate_point", f"the pixel of object {other}", expected)
            if word.clicks is None or word.clicks == word.added:
                self._refuse(problem, [part for one in kept.values() for part in one.parts()])
                return
            self._refuse(problem, [one.clicks for one in kept.values() if one.clicks is not None])
            word = word_without(word, [word.clicks])
            kept = {who: word_without(one, [one.clicks]) for who, one in kept.items()}
            after = self._after(base, word)
        if after.xy is not None:
            self.pixels.pop(_pixel(base), None)
            self.pixels[_pixel(after)] = name
        if after.xy is not None and (after != base or word.clicks is not None):
            self.moved[name] = (after, word)
        honoured = {one.id for one in word.parts()}
        for one in kept.values():
            self._set("agrees", [part for part in one.parts() if part.id not in honoured])
        for part in word.parts():
            self._set("honoured", [part])
            is_verdict = word.verdict is not None and part.id == word.verdict.id
            self.honoured[part.id] = (after, is_verdict)

    def _added(self, words: Mapping[str, Word]) -> _Object | None:
        """An object that has no point, as it was added; None if it can't be used."""
        for reviewer in sorted(words):
            one = words[reviewer].added
            if one is None:
                continue
            image_id, category_id = self.images.find(one.image), self.categories.find(one.category)
            if isinstance(image_id, Problem) or isinstance(category_id, Problem):
                continue
            return _Object(image_id, category_id, None, None)
        return None

    def _valid(self, name: str, word: Word, base: _Object | None) -> Word:
        """The word without decisions that can't be honoured, whose states are set."""
        problems = {one.id: self._problem(one, base) for one in word.parts()}
        if word.added is not None and (problem := problems[word.added.id]) is not None:
            problems = dict.fromkeys(problems, problem)
        bad = [one for one in word.parts() if problems[one.id] is not None]
        for one in bad:
            self.states[one.id] = problems[one.id]  # type: ignore[assignment]
        return word_without(word, bad)

    def _problem(self, one: Decision, base: _Object | None) -> Problem | None:
        """Why a decision can't be honoured."""
        image_id = self.images.find(one.image)
        category_id = 0 if one.category is None else self.categories.find(one.category)
        if isinstance(image_id, Problem):
            return image_id
        if isinstance(category_id, Problem):
            return category_id
        if base is None:
            return Problem("unknown_object", f"object {one.object}", "a point, or an object that was added")
        if one.action == "add" and base.row is not None:
            return Problem(
                "known_object", f"object {one.object}, which is a point", "an id that no point has"
            )
        if image_id != base.image_id:
            found = f"image {one.image!r}"[:300]
            return Problem("other_image", found, f"{self.images.name(base.image_id)!r}, the object's image")
        return misplaced(one, *self.sizes[image_id])

    def _after(self, base: _Object, word: Word) -> _Object:
        """The object with all decisions on it."""
        category = base.category_id
        if word.category is not None:
            found = self.categories.find(word.category.category)
            assert isinstance(found, int)  # _problem
            category = found
        xy = base.xy if word.clicks is None else word.clicks.point
        return base._replace(category_id=category, xy=xy)

    def _points(self) -> pa.Table:
        """The points with all decisions; the same table if there are none on clicks and classes."""
        if not self.moved:
            return self.points
        changed = [one.row for one, _ in self.moved.values() if one.row is not None]
        known = {row["point_id"]: row for row in self.points.take(pa.array(changed, pa.int64())).to_pylist()}
        rows = [self._row(name, one, word, known.get(name)) for name, (one, word) in self.moved.items()]
        same = np.ones(len(self.points), np.bool_)
        same[changed] = False
        parts = [self.points.filter(pa.array(same)), pa.Table.from_pylist(rows, schema=POINTS)]
        order = [("image_id", "ascending"), ("point_id", "ascending")]
        return pa.concat_tables(parts).sort_by(order)

    def _row(self, name: str, one: _Object, word: Word, row: dict[str, Any] | None) -> dict[str, Any]:
        """A row of POINTS: that of an added object, or `row` with the decisions."""
        if row is None:
            assert word.added is not None
            row = {
                **dict.fromkeys(POINTS.names),
                "point_id": name,
                "image_id": one.image_id,
                "annotator": word.added.reviewer,
                "labelled_at": word.added.time,
                "source_file": f"{word.added.reviewer}{SUFFIX}",
                "source_record": word.added.id,
            }
        assert one.xy is not None
        row |= {"category_id": one.category_id, "x": one.xy[0], "y": one.xy[1]}
        if word.clicks is not None:
            further = sorted(
                word.clicks.further or (), key=lambda click: (not click.inside, click.x, click.y)
            )
            row["further"] = [click._asdict() for click in further] or None
        return row

    def _table(self, decisions: Sequence[Decision]) -> pa.Table:
        rows = []
        for one in decisions:
            if one.action == "undo":
                continue
            state, found, expected = self.states[one.id]
            image_id = self.images.find(one.image)
            row: dict[str, Any] = {
                "decision_id": one.id, "time": one.time, "reviewer": one.reviewer, "action": one.action,
                "state": state, "found": found, "expected": expected, "image": one.image,
                "image_id": None if isinstance(image_id, Problem) else image_id,
                "object_id": one.object, "source": one.source, "category_id": None, "rle_counts": None,
            }  # fmt: skip
            if one.id in self.honoured:
                after, is_verdict = self.honoured[one.id]
                row["category_id"] = after.category_id
                if is_verdict and one.mask is not None:
                    row["rle_counts"] = one.mask.counts
            rows.append(row)
        return pa.Table.from_pylist(rows, schema=DECISIONS)


def word_without(word: Word, decisions: Sequence[Decision | None]) -> Word:
    """The word without some decisions; without what was added, the rest of it stays."""
    out = {one.id for one in decisions if one is not None}

    def kept(one: Decision | None) -> Decision | None:
        return None if one is None or one.id in out else one

    return Word(kept(word.verdict), kept(word.category), kept(word.clicks), kept(word.added))


def misplaced(one: Decision, width: int, height: int) -> Problem | None:
    """Why a decision's mask or clicks aren't on its image."""
    if one.mask is not None and (one.mask.height, one.mask.width) != (height, width):
        found = f"a mask of {one.mask.width} x {one.mask.height}"
        return Problem("other_size", found, f"{width} x {height}, the image's size")
    clicks = [*([] if one.point is None else [one.point]), *((x, y) for x, y, _ in one.further or ())]
    for x, y in np.asarray(clicks, np.float32).reshape(-1, 2).tolist():  # as in the table
        if not (0 <= x < width and 0 <= y < height):
            return Problem("outside_image", f"a click at {x}, {y}", f"0 <= x < {width} and 0 <= y < {height}")
    return None


def _pixel(one: _Object) -> tuple[int, int, int, int] | None:
    if one.xy is None:
        return None
    return one.image_id, one.category_id, int(one.xy[0]), int(one.xy[1])


def _grouped(decisions: Iterable[Decision], key: Any) -> dict[Any, list[Decision]]:
    found: dict[Any, list[Decision]] = {}
    for one in decisions:
        found.setdefault(key(one), []).append(one)
    return found


def unsettled(decisions: pa.Table, folder: str) -> dict[str, list[Fault]]:
    """By state: the decisions that aren't honoured though they are some reviewer's last word."""
    found: dict[str, list[Fault]] = {}
    for row in decisions.filter(pc.invert(pc.is_in(decisions["state"], pa.array(SETTLED)))).to_pylist():
        record = f"{row['action']} {row['decision_id']}"
        record += f", object {row['object_id']}" if row["object_id"] else ""
        record += f", image {row['image']}"
        step = STEPS.get(row["state"], "undo it, or bring back what it is about")
        fault = Fault(
            f"{folder}/{row['reviewer']}{SUFFIX}",
            record,
            f"{row['found']} ({row['state']})",
            row["expected"],
            step,
        )
        found.setdefault(row["state"], []).append(fault)
    return dict(sorted(found.items()))


def summary(decisions: pa.Table) -> dict[str, Any]:
    """Counts for the manifest and the report: by state; of those honoured by action and by reviewer; contradictions
    and other decisions that aren't honoured, the first `SHOWN` of each with what is in their way."""
    rows = decisions.select([name for name in DECISIONS.names if name != "rle_counts"]).to_pylist()
    honoured = [row for row in rows if row["state"] in ("honoured", "agrees")]
    contradicted = [row for row in rows if row["state"] == "contradicted"]
    others = [row for row in rows if row["state"] not in (*SETTLED, "contradicted")]
    listed = ("state", "reviewer", "action", "decision_id", "image", "object_id", "found", "expected")
    return {
        "decisions": len(rows),
        "states": _counts(row["state"] for row in rows),
        "actions": _counts(row["action"] for row in honoured),
        "reviewers": {
            reviewer: _counts(row["action"] for row in honoured if row["reviewer"] == reviewer)
            for reviewer in sorted({row["reviewer"] for row in rows})
        },
        "objects_contradicted": len({row["object_id"] for row in contradicted}),
        "contradicted": [{name: row[name] for name in listed} for row in contradicted[:SHOWN]],
        "not_honoured": [{name: row[name] for name in listed} for row in others[:SHOWN]],
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
