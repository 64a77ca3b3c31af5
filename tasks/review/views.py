"""What the review page shows of objects and images: outlines, clicks, reasons, and what was decided."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.decisions.record import Decision
from data.decisions.words import described
from data.errors import Fault
from data.masks.rle import FloatArray, bbox_xywh
from tasks.common.errors import TaskError
from tasks.review.ledger import Ledger, Standing, first_added
from tasks.review.objects import STATUSES, Objects
from tasks.review.picture import Window, paths, window_around
from tasks.review.rank import doubts, why

NEIGHBOURS = 200
"""Most of them that are drawn, the nearest ones."""


class Views:
    """Objects of a project with the decisions on them; safe in several threads.

    Attributes:
        objects: of the project.
        categories: names of the classes, by id.
        has_reasons: whether it is shown why a mask is doubtful; not to those who judge a random sample.
    """

    has_reasons = True

    def __init__(self, objects: Objects, ledger: Ledger) -> None:
        self.objects, self._ledger = objects, ledger
        self._doubts = doubts(objects)
        self._lock = threading.RLock()
        weak = objects.weak
        self._names = weak.images["file_name"]
        self._ids = weak.images["image_id"]
        self._sizes = np.stack([weak.images[name].to_numpy() for name in ("width", "height")], axis=1)
        self.categories = {category.id: category.name for category in weak.categories}

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
        xy = objects.xy[row].astype(float)
        click = None if np.isnan(xy).any() else (float(xy[0]), float(xy[1]))
        score = float(objects.score[row])
        facts = {
            "id": objects.ids[row],
            "category": self.categories[int(objects.category[row])],
            "status": STATUSES[int(objects.status[row])],
            "proposer": None if objects.proposer[row] < 0 else objects.proposers[int(objects.proposer[row])],
            "score": None if np.isnan(score) else round(score, 3),
            "doubt": round(float(self._doubts.doubt[row]), 3),
            "why": why(objects, self._doubts, row) if self.has_reasons else [],
            "further": objects.further(row),
        }
        (own,) = objects.masks([row])
        with self._lock:
            self._ledger.refresh()
            standing = self._ledger.standing(objects.ids[row])
        return self._shown(facts, int(objects.image[row]), objects.box[row], click, own, standing, row)

    def describe_added(self, name: str) -> dict[str, Any] | None:
        """As `describe`, of an object that a reviewer added and that no run has drawn yet; None if there is none."""
        with self._lock:
            self._ledger.refresh()
            standing = self._ledger.standing(name)
        one = first_added(standing.words)
        image = None if one is None else self._ledger.image_row(one.image)
        if one is None or image is None:
            return None
        verdict = standing.word.verdict
        mask = one.mask if verdict is None else verdict.mask
        box = (0.0, 0.0, 0.0, 0.0) if mask is None else bbox_xywh(mask.counts, mask.height, mask.width)
        facts = {
            "id": name, "category": one.category, "status": "added", "proposer": None, "score": None, "doubt": None,
            "why": [f"added by {one.reviewer}"], "further": [],
        }  # fmt: skip
        own = None if mask is None else mask.counts
        return self._shown(facts, image, np.array(box), one.point, own, standing)

    def _shown(
        self, facts: Mapping[str, Any], image: int, box: FloatArray, click: Sequence[float] | None, own: bytes | None,
        standing: Standing, row: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """
        Args:
            facts: of the object alone.
            image: row of its image.
            box: x, y, width, height of its mask; zeros without one.
            click: as it was before reviewers changed it.
            own: its mask, as it was before.
            standing: what was decided on it.
            row: its own; None of an added object.
        """
        objects = self.objects
        width, height = self.image_size(image)
        at = None if click is None else (click[0], click[1])
        window = window_around(box.tolist(), at, width, height)
        near = self._near(image, row, window)
        with self._lock:
            decided = self._ledger.decided
            standings = [self._ledger.standing(objects.ids[n]) for n in near]
            added = {name: self._ledger.standing(name) for name in self._ledger.added.get(image, ())}
        added.pop(facts["id"], None)
        neighbours, others = [], []
        for n, code, one in zip(near, objects.masks(near), standings, strict=True):
            neighbours.append(
                _neighbour(objects.ids[n], self.categories[int(objects.category[n])], one, bool(decided[n]))
            )
            others.append(_mask_now(one, code))
        for name, one in added.items():
            first = first_added(one.words)
            neighbours.append(_neighbour(name, "" if first is None else first.category or "", one, True))
            others.append(_mask_now(one, None))
        verdict = standing.word.verdict
        drawn = verdict is not None and verdict.mask is not None and verdict.action != "accept"
        own = _mask_now(standing, own)
        clicks, further = standing.word.clicks, facts["further"]
        if clicks is not None and clicks.point is not None:
            click, further = clicks.point, [one._asdict() for one in clicks.further or ()]
        rivals = _rivals(standing, own)
        codes = [code or b"" for code in (own, *others, *rivals.values())]
        traced = iter(self._paths(image, codes, window))
        own_path, *other_paths = [next(traced) if code else "" for code in codes]
        return {
            **facts,
            "image": self.image_facts(image),
            "window": window,
            "click": click,
            "further": further,
            "mask": None if own is None else {"size": [height, width], "counts": own.decode("ascii")},
            "drawn": drawn,
            "path": own_path,
            "neighbours": [
                {**one, "path": path} for one, path in zip(neighbours, other_paths, strict=False) if path
            ],
            "rivals": [
                {"reviewer": name, "path": path}
                for name, path in zip(rivals, other_paths[len(neighbours) :], strict=True)
            ],
            **_decided_on(standing),
        }  # fmt: skip

    def _paths(self, image: int, codes: Sequence[bytes], window: Window) -> list[str]:
        """Of the masks of an image that there are.

        Raises:
            TaskError: a mask of another size than the image's.
        """
        width, height = self.image_size(image)
        try:
            return paths([code for code in codes if code], height, width, window)
        except ValueError as error:
            expected = f"masks of {width} x {height} pixels: ingest has run since they were made"
            name, step = self._names[image].as_py(), "points2model run"
            where = "workspace/pseudo"
            raise TaskError(str(Fault(where, f"image {name}", str(error), expected, step))) from None

    def _near(self, image: int, row: int | None, window: Window) -> list[int]:
        """Objects with a mask whose boxes meet the window, the nearest first; without `row`."""
        x, y, w, h = window
        of_image = np.array(self.objects.of_image(image))
        box = self.objects.box[of_image]
        meets = (box[:, 0] < x + w) & (box[:, 0] + box[:, 2] > x) & (box[:, 2] > 0)
        meets &= (
            (box[:, 1] < y + h) & (box[:, 1] + box[:, 3] > y) & (of_image != (-1 if row is None else row))
        )
        found = of_image[meets]
        centre = box[meets, :2] + box[meets, 2:] / 2 - (x + w / 2, y + h / 2)
        nearest = np.argsort((centre**2).sum(axis=1), kind="stable")[:NEIGHBOURS]
        return [int(n) for n in found[nearest]]

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
            codes.append(_mask_now(standing, code) or b"")
        for name, standing in added:
            one = first_added(standing.words)
            assert one is not None
            shown.append(
                _on_image(name, one.category or "", one.point, standing)
                | {"added": one.id, "by": one.reviewer}
            )
            codes.append(_mask_now(standing, None) or b"")
        traced = iter(self._paths(image, codes, (0, 0, width, height)))
        for one_shown, code in zip(shown, codes, strict=True):
            one_shown["path"] = next(traced) if code else ""
        return {"image": self.image_facts(image), "row": image, "objects": shown, "complete": complete}


def brief(one: Decision) -> dict[str, Any]:
    return {
        "id": one.id, "reviewer": one.reviewer, "time": one.time, "action": one.action, "what": described(one),
        "object": one.object, "image": one.image,
    }  # fmt: skip


def _mask_now(standing: Standing, mask: bytes | None) -> bytes | None:
    """The mask that a reviewer drew or accepted, else the object's own."""
    verdict = standing.word.verdict
    return mask if verdict is None or verdict.mask is None else verdict.mask.counts


def _neighbour(name: str, category: str, standing: Standing, decided: bool) -> dict[str, Any]:
    verdict = standing.word.verdict
    rejected = verdict is not None and verdict.action == "reject"
    return {"id": name, "category": category, "decided": decided, "rejected": rejected}


def _rivals(standing: Standing, own: bytes | None) -> dict[str, bytes]:
    """Where reviewers contradict each other, the masks of some that aren't the one that is shown."""
    masks = {
        name: word.verdict.mask.counts
        for name, word in sorted(standing.words.items())
        if name in standing.contradicted and word.verdict is not None and word.verdict.mask is not None
    }
    return {name: counts for name, counts in masks.items() if counts != own}


def _decided_on(standing: Standing) -> dict[str, Any]:
    """What was decided on an object, for the page."""
    verdict, category = standing.word.verdict, standing.word.category
    return {
        "decisions": [brief(one) for _, word in sorted(standing.words.items()) for one in word.parts()],
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
