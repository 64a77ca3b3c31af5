"""A project on a reviewer's desk: its objects, what was decided on them, and new decisions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.decisions.record import FIELDS, Click, Decision, Mask
from data.decisions.store import DecisionLog
from data.decisions.words import Word, described
from data.errors import DataError, Fault
from data.masks.rle import IntArray
from tasks.common.config import Params
from tasks.review.agreeing import to_agree
from tasks.review.ledger import Ledger
from tasks.review.objects import Objects
from tasks.review.picture import Pictures
from tasks.review.queue import Filters, select
from tasks.review.views import Views, brief

CHECKED = "a decision of the review page"


class Desk(Views):
    """Objects, decisions and pictures; safe in several threads.

    Attributes:
        listed: ids of the only objects to review, in this order; None: all objects.
        audit: the id of a random sample for whose estimate decisions are made; those made before don't show.
    """

    def __init__(
        self,
        params: Params,
        root: Path,
        listed: Sequence[str] | None = None,
        audit: str | None = None,
    ) -> None:
        """
        Raises:
            TaskError: there are no pseudo masks.
            DataError: a table is missing or of another format.
        """
        objects, self._folder = Objects(root / "workspace"), root / params.review.decisions
        super().__init__(objects, Ledger(self._folder, objects, audit))
        self.listed, self.audit, self.has_reasons = listed, audit, audit is None
        self.pictures = Pictures(objects.weak)
        self._logs: dict[str, DecisionLog] = {}

    def queue(self, filters: Filters) -> IntArray:
        """The rows of a queue, see tasks/review/queue.py."""
        with self._lock:
            self._ledger.refresh()
            return select(self.objects, self._doubts, self._ledger, filters, self.listed)

    def first_undecided(self, rows: IntArray, position: int) -> int | None:
        """The first place of a queue, from a place on and then from its beginning, whose object isn't decided."""
        with self._lock:
            self._ledger.refresh()
            places = np.flatnonzero(~self._ledger.decided[rows] & ~self._ledger.contradicted[rows])
        if not len(places):
            return None
        return int(places[np.searchsorted(places, position) % len(places)])

    def words(self, image: int) -> dict[str, Word]:
        """What counts on the objects of an image, by its row; on those that reviewers added too."""
        names = [self.objects.ids[n] for n in self.objects.of_image(image)]
        with self._lock:
            self._ledger.refresh()
            names += self._ledger.added.get(image, ())
            found = {name: self._ledger.standing(name).word for name in names}
        return {name: word for name, word in found.items() if word.parts()}

    def now(self, reviewer: str) -> dict[str, Any]:
        """How far things are."""
        with self._lock:
            self._ledger.refresh()
            last = self._ledger.last(reviewer)
            pace = self._ledger.pace(reviewer)
            undo = self._ledger.redoable(reviewer)
            undone = None if undo is None else self._ledger.find(reviewer, str(undo.undoes))
            redo = None if undo is None or undone is None else brief(undone) | {"undo": undo.id}
            return {
                "version": self._ledger.version,
                "objects": len(self.objects) if self.audit is None else len(self.listed or ()),
                "decided": int(self._ledger.decided.sum()),
                "contradicted": int(self._ledger.contradicted.sum()),
                "made": self._ledger.made(),
                "pace": None if pace is None else round(pace),
                "last": None if last is None else brief(last),
                "redo": redo,
            }

    def reviewers(self) -> list[str]:
        """Who decided something."""
        with self._lock:
            self._ledger.refresh()
            return list(self._ledger.made())

    def notices(self) -> list[dict[str, str]]:
        """Decisions on what doesn't exist, and lines that aren't decisions."""
        with self._lock:
            self._ledger.refresh()
            lost = self._ledger.lost()
            faults = self._ledger.faults
        found = [
            {
                "text": f"{one.decision.reviewer}: {described(one.decision)}: {one.why}",
                "step": "it has no effect; undo it, or bring back what it is about",
                "undoes": one.decision.id, "reviewer": one.decision.reviewer,
            }
            for one in lost
        ]  # fmt: skip
        return found + [{"text": str(fault), "step": ""} for fault in faults]

    def decide(self, reviewer: str, action: Any, fields: dict[str, Any]) -> Decision:
        """Makes a decision; it is on the disk when this returns. One that the reviewer made already isn't made again,
        so that a request may be repeated whose response was lost.

        Args:
            action: see data/decisions/record.py.
            fields: those of the action, as JSON has them.

        Raises:
            DataError: values that don't fit the project.
            OSError: it can't be written; nothing was.
        """
        values = _values(fields)
        if self.audit is not None and "audit" in FIELDS.get(action, ((), ()))[1]:
            values["audit"] = self.audit
        with self._lock:
            self._ledger.refresh()
            self._check(action, values)
            done = self._already(reviewer, action, values)
            return self._append(reviewer, [(action, values)])[0] if done is None else done

    def agree(self, reviewer: str, name: str, other: str) -> list[Decision]:
        """Decides on an object as another reviewer did; nothing if they agree.

        Raises:
            DataError: the other one has decided nothing there.
            OSError: it can't be written; nothing was.
        """
        with self._lock:
            self._ledger.refresh()
            words = self._ledger.standing(name).words
            if other not in words:
                found = f"no decision of {other!r:.80} on object {name!r:.80}"
                raise DataError(Fault("review", CHECKED, found, "one to agree with", "reload the page"))
            image = next(one.image for one in words[other].parts())
            rows = [
                (action, {"image": image, "object": name, **fields})
                for action, fields in to_agree(words.get(reviewer, Word()), words[other])
            ]
            for action, fields in rows:
                if self.audit is not None and "audit" in FIELDS[action][1]:
                    fields["audit"] = self.audit
            return self._append(reviewer, rows) if rows else []

    def _append(self, reviewer: str, rows: Sequence[tuple[Any, dict[str, Any]]]) -> list[Decision]:
        log = self._logs.get(reviewer)
        if log is None:
            log = self._logs[reviewer] = DecisionLog(self._folder, reviewer)
        made = log.extend(rows)
        self._ledger.refresh()
        return made

    def _check(self, action: Any, values: dict[str, Any]) -> None:
        """
        Raises:
            DataError: an image, object or class that doesn't exist, or a place outside of the image.
        """
        faults: list[Fault] = []

        def fault(found: str, expected: str, step: str = "reload the page") -> None:
            faults.append(Fault("review", CHECKED, found, expected, step))

        name = values.get("object")
        is_known = (
            name in self.objects.row_of or action == "add" or bool(self._ledger.standing(str(name)).words)
        )
        if name is not None and not is_known:
            fault(f"object {name!r}"[:300], "an object of the project")
        category = values.get("category")
        if category is not None and category not in self.categories.values():
            fault(f"class {category!r}"[:300], "a class of the data set")
        image = None if values.get("image") is None else self._ledger.image_row(values["image"])
        if values.get("image") is not None and image is None:
            fault(f"image {values['image']!r}"[:300], "a weak image")
        if image is not None:
            width, height = self.image_size(image)
            mask: Mask | None = values.get("mask")
            if mask is not None and (mask.height, mask.width) != (height, width):
                fault(f"a mask of {mask.width} x {mask.height}", f"{width} x {height}, the image's size")
            places = [*([values["point"]] if values.get("point") else []), *(values.get("further") or ())]
            for x, y, *_ in places:
                if not (0 <= x < width and 0 <= y < height):
                    fault(f"a click at {x}, {y}", f"a place inside {width} x {height} pixels")
        if faults:
            raise DataError(faults)

    def _already(self, reviewer: str, action: str, values: dict[str, Any]) -> Decision | None:
        """The same decision, if it is the reviewer's last word."""
        if action == "undo":
            undone = self._ledger.find(reviewer, str(values.get("undoes")))
            return undone if undone is not None and self._ledger.is_undone(undone) else None
        if action == "complete":
            return self._ledger.completed(reviewer, values.get("image"))
        word = self._ledger.standing(str(values.get("object"))).words.get(reviewer)
        for one in () if word is None else word.parts():
            if one.action == action and all(getattr(one, name) == value for name, value in values.items()):
                return one
        return None


def _values(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of JSON as `Decision` has them; wrong ones stay, for the log refuses them."""
    values = dict(fields)
    try:
        if "mask" in values:
            (height, width), counts = values["mask"]["size"], values["mask"]["counts"]
            values["mask"] = Mask(int(height), int(width), counts.encode())
        if "point" in values:
            x, y = values["point"]
            values["point"] = (float(x), float(y))
        if "further" in values:
            values["further"] = tuple(
                Click(float(one["x"]), float(one["y"]), one["inside"]) for one in values["further"]
            )
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            Fault(
                "review",
                CHECKED,
                f"{type(error).__name__}: {error}",
                "fields as in docs/decisions.md",
                "reload the page",
            )
        ) from None
    return values
