"""A project on a reviewer's desk: its objects, what was decided on them, and new decisions."""

from __future__ import annotations

import threading
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
from tasks.review.ledger import Ledger, Standing, first_added
from tasks.review.objects import STATUSES, Objects
from tasks.review.picture import Pictures, Window, paths, window_around
from tasks.review.queue import Filters, select
from tasks.review.rank import doubts, why

NEIGHBOURS = 200
"""Most of them that are drawn, the nearest ones."""
CHECKED = "a decision of the review page"


class Desk:
    """Objects, decisions and pictures; safe in several threads.

    Attributes:
        objects: of the project.
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
        self.objects = Objects(root / "workspace")
        self.listed, self.audit = listed, audit
        self._doubts = doubts(self.objects)
        self._folder = root / params.review.decisions
        self._ledger = Ledger(self._folder, self.objects, audit)
        self.pictures = Pictures(self.objects.weak)
        self._logs: dict[str, DecisionLog] = {}
        self._lock = threading.RLock()
        weak = self.objects.weak
        self._names = weak.images["file_name"]
        self._ids = weak.images["image_id"]
        self._sizes = np.stack([weak.images[name].to_numpy() for name in ("width", "height")], axis=1)
        self.categories = {category.id: category.name for category in weak.categories}

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

    def image_size(self, image: int) -> tuple[int, int]:
        """Width and height of an image, by its row."""
        width, height = self._sizes[image].tolist()
        return width, height

    def image_facts(self, image: int) -> dict[str, Any]:
        """Id, name and size of an image, by its row."""
        width, height = self.image_size(image)
        return {
            "id": self._ids[image].as_py(), "name": self._names[image].as_py(), "width": width, "height": height,
        }  # fmt: skip

    def describe(self, row: int) -> dict[str, Any]:
        """What the page shows of an object: itself, its neighbours, why it is here, and what was decided."""
        objects = self.objects
        image = int(objects.image[row])
        width, height = self.image_size(image)
        xy = objects.xy[row].astype(float)
        click = None if np.isnan(xy).any() else (float(xy[0]), float(xy[1]))
        window = window_around(objects.box[row].tolist(), click, width, height)
        near = self._near(row, window)
        with self._lock:
            self._ledger.refresh()
            standing = self._ledger.standing(objects.ids[row])
            decided = self._ledger.decided
            rejected = {n: self._is_rejected(objects.ids[n]) for n in near}
        own, *others = objects.masks([row, *near])
        verdict = standing.word.verdict
        drawn = verdict is not None and verdict.mask is not None and verdict.action != "accept"
        if verdict is not None and verdict.mask is not None:
            own = verdict.mask.counts
        clicks = standing.word.clicks
        if clicks is not None and clicks.point is not None:
            click, further = clicks.point, [one._asdict() for one in clicks.further or ()]
        else:
            further = objects.further(row)
        codes = [code or b"" for code in (own, *others)]
        traced = iter(paths([code for code in codes if code], height, width, window))
        own_path, *other_paths = [next(traced) if code else "" for code in codes]
        score = float(objects.score[row])
        return {
            "id": objects.ids[row],
            "image": self.image_facts(image),
            "category": self.categories[int(objects.category[row])],
            "status": STATUSES[int(objects.status[row])],
            "proposer": None if objects.proposer[row] < 0 else objects.proposers[int(objects.proposer[row])],
            "score": None if np.isnan(score) else round(score, 3),
            "doubt": round(float(self._doubts.doubt[row]), 3),
            "why": why(objects, self._doubts, row),
            "window": window,
            "click": click,
            "further": further,
            "mask": None if own is None else {"size": [height, width], "counts": own.decode("ascii")},
            "drawn": drawn,
            "path": own_path,
            "neighbours": [
                {
                    "id": objects.ids[n], "path": path, "category": self.categories[int(objects.category[n])],
                    "decided": bool(decided[n]), "rejected": rejected[n],
                }
                for n, path in zip(near, other_paths, strict=True) if path
            ],
            **_decided_on(standing),
        }  # fmt: skip

    def _near(self, row: int, window: Window) -> list[int]:
        """Objects with a mask whose boxes meet the window, the nearest first."""
        x, y, w, h = window
        of_image = np.array(self.objects.of_image(int(self.objects.image[row])))
        box = self.objects.box[of_image]
        meets = (box[:, 0] < x + w) & (box[:, 0] + box[:, 2] > x) & (box[:, 2] > 0)
        meets &= (box[:, 1] < y + h) & (box[:, 1] + box[:, 3] > y) & (of_image != row)
        found = of_image[meets]
        centre = box[meets, :2] + box[meets, 2:] / 2 - (x + w / 2, y + h / 2)
        nearest = np.argsort((centre**2).sum(axis=1), kind="stable")[:NEIGHBOURS]
        return [int(n) for n in found[nearest]]

    def _is_rejected(self, name: str) -> bool:
        verdict = self._ledger.standing(name).word.verdict
        return verdict is not None and verdict.action == "reject"

    def image(self, image: int) -> dict[str, Any]:
        """What the page shows of a whole image, by its row."""
        objects = self.objects
        width, height = self.image_size(image)
        rows = list(objects.of_image(image))
        with self._lock:
            self._ledger.refresh()
            standings = [self._ledger.standing(objects.ids[n]) for n in rows]
            added = [(name, self._ledger.standing(name)) for name in self._ledger.added.get(image, ())]
            complete = list(self._ledger.complete.get(image, ()))
        shown = []
        codes: list[bytes] = []
        for n, code, standing in zip(rows, objects.masks(rows), standings, strict=True):
            xy = objects.xy[n].astype(float).tolist()
            click = None if np.isnan(xy).any() else xy
            shown.append(
                _on_image(objects.ids[n], self.categories[int(objects.category[n])], click, standing)
            )
            mask = None if standing.word.verdict is None else standing.word.verdict.mask
            codes.append(code or b"" if mask is None else mask.counts)
        for name, standing in added:
            one = first_added(standing.words)
            assert one is not None
            shown.append(
                _on_image(name, one.category or "", one.point, standing)
                | {"added": one.id, "by": one.reviewer}
            )
            mask = None if standing.word.verdict is None else standing.word.verdict.mask
            codes.append(b"" if mask is None else mask.counts)
        traced = iter(paths([code for code in codes if code], height, width, (0, 0, width, height)))
        for one_shown, code in zip(shown, codes, strict=True):
            one_shown["path"] = next(traced) if code else ""
        return {"image": self.image_facts(image), "row": image, "objects": shown, "complete": complete}

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
            return {
                "version": self._ledger.version,
                "objects": len(self.objects),
                "decided": int(self._ledger.decided.sum()),
                "contradicted": int(self._ledger.contradicted.sum()),
                "made": self._ledger.made(),
                "pace": None if pace is None else round(pace),
                "last": None if last is None else _brief(last),
            }

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
            if done is not None:
                return done
            log = self._logs.get(reviewer)
            if log is None:
                log = self._logs[reviewer] = DecisionLog(self._folder, reviewer)
            made = log.append(action, **values)
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
                "fields as in docs/review.md",
                "reload the page",
            )
        ) from None
    return values


def _brief(one: Decision) -> dict[str, Any]:
    return {
        "id": one.id, "reviewer": one.reviewer, "time": one.time, "action": one.action, "what": described(one),
        "object": one.object, "image": one.image,
    }  # fmt: skip


def _decided_on(standing: Standing) -> dict[str, Any]:
    """What was decided on an object, for the page."""
    verdict, category = standing.word.verdict, standing.word.category
    return {
        "decisions": [_brief(one) for _, word in sorted(standing.words.items()) for one in word.parts()],
        "contradicted": standing.contradicted,
        "verdict": None if verdict is None else verdict.action,
        "decided_category": None if category is None else category.category,
        "decided": standing.is_decided,
    }


def _on_image(name: str, category: str, click: Sequence[float] | None, standing: Standing) -> dict[str, Any]:
    """An object of a whole image, without its outline."""
    word = standing.word
    if word.clicks is not None and word.clicks.point is not None:
        click = word.clicks.point
    return {
        "id": name, "category": category if word.category is None else word.category.category,
        "click": click, "verdict": None if word.verdict is None else word.verdict.action,
        "decided": standing.is_decided, "contradicted": bool(standing.contradicted),
    }  # fmt: skip
