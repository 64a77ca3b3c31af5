"""Detections and true objects matched at IoU 0.50: what is found, what is a false alarm, what is missed.

Matched by COCO's rules (see `tasks.scoring.coco_match`): within an image and class, the detection with the highest
score takes the free object that it overlaps most. A detection with a lower score never changes the match of one with a
higher score, so one matching serves all thresholds of the score.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.masks import rle
from data.tables import Split

Records = list[dict[str, Any]]

OVERLAP = 0.5
USUAL_MIN_SCORE = 0.3
"""Where none could be chosen: below it most detections are wrong."""
STEPS = 100
"""Thresholds of the score that are compared: 0, 0.01 to 1."""


class Outcome(NamedTuple):
    """An image of a split: its detections, its true objects, and which belong together."""

    image_id: int
    detections: Records
    """PREDICTIONS, in the table's order; at most `max_detections` of a class, those with the highest scores"""
    objects: Records
    """INSTANCES without crowds"""
    overlap: NDArray[np.float64]
    """[detections, objects]: IoU of any two, whatever their classes"""
    match: list[int | None]
    """for each detection the index of its object; None for a false alarm"""
    ignored: list[bool]
    """for each detection whether it is on a crowd, and so neither correct nor false"""

    def missed(self) -> list[int]:
        """Indices of the objects without a detection."""
        return sorted(set(range(len(self.objects))) - set(self.match))

    def false_alarms(self) -> list[int]:
        """Indices of the detections without an object."""
        pairs = zip(self.match, self.ignored, strict=True)
        return [n for n, (match, ignored) in enumerate(pairs) if match is None and not ignored]


def outcomes(table: pa.Table, split: Split, rows: Sequence[int], max_detections: int) -> Iterator[Outcome]:
    """The outcome of each of a split's images.

    Args:
        table: PREDICTIONS on them.
        split: with the true objects.
        rows: of the images in the split.
        max_detections: of an image and class.
    """
    by_image: dict[int, Records] = defaultdict(list)
    for row in table.to_pylist():
        by_image[row["image_id"]].append(row)
    for i in rows:
        facts = split.image(i)
        found = _best(by_image.pop(facts["image_id"], []), max_detections)
        yield _outcome(facts, found, split.instances_of(i).to_pylist())


def _best(detections: Records, limit: int) -> Records:
    ranks: dict[int, int] = defaultdict(int)
    kept = set()
    for n in sorted(range(len(detections)), key=lambda n: -detections[n]["score"]):
        category = detections[n]["category_id"]
        ranks[category] += 1
        if ranks[category] <= limit:
            kept.add(n)
    return [row for n, row in enumerate(detections) if n in kept]


def _outcome(image: dict[str, Any], detections: Records, instances: Records) -> Outcome:
    height, width = image["height"], image["width"]
    objects = [row for row in instances if not row["iscrowd"]]
    crowds = [row for row in instances if row["iscrowd"]]
    found = [row["rle_counts"] for row in detections]
    overlap = rle.iou_matrix(found, [row["rle_counts"] for row in objects], height, width)
    on_crowd = rle.iou_matrix(found, [row["rle_counts"] for row in crowds], height, width, crowd=True)
    on_crowd = on_crowd * _same_class(detections, crowds)
    match = _match([row["score"] for row in detections], overlap * _same_class(detections, objects))
    covered = [bool(row.any()) for row in on_crowd >= OVERLAP]
    ignored = [m is None and inside for m, inside in zip(match, covered, strict=True)]
    return Outcome(image["image_id"], detections, objects, overlap, match, ignored)


def _same_class(detections: Records, objects: Records) -> NDArray[np.bool_]:
    ids = [np.array([row["category_id"] for row in rows], np.int64) for rows in (detections, objects)]
    return ids[0][:, None] == ids[1][None, :]


def _match(scores: Sequence[float], overlap: NDArray[np.float64]) -> list[int | None]:
    match: list[int | None] = [None] * len(scores)
    free = np.ones(overlap.shape[1], bool)
    reaching = np.flatnonzero((overlap >= OVERLAP).any(axis=1)).tolist()
    for n in sorted(reaching, key=lambda n: -scores[n]):
        own = np.where(free, overlap[n], -1.0)
        best = len(own) - 1 - int(np.argmax(own[::-1]))  # of equals the last one, as in COCO's evaluation
        if own[best] >= OVERLAP:
            match[n], free[best] = best, False
    return match


class Chosen(NamedTuple):
    """The threshold of the score with the best F1."""

    min_score: float | None
    """None without true objects, or where nothing is found at any score"""
    F1: float | None
    """in percent, over the objects of all classes; None without true objects"""


def choose_min_score(found: Iterable[Outcome]) -> Chosen:
    """The score from which on detections are best kept: F1 at IoU 0.50, over the objects of all classes, is highest.

    F1 is 2 TP / (detections + objects). Of equally good thresholds, which only differ by scores that no detection has,
    it is the one in the middle.
    """
    objects = 0
    counts = np.zeros(
        (2, STEPS + 1), np.int64
    )  # of false and of correct detections, by the threshold they just pass
    for one in found:
        objects += len(one.objects)
        for detection, match, ignored in zip(one.detections, one.match, one.ignored, strict=True):
            if not ignored:
                counts[int(match is not None), int(detection["score"] * STEPS + 1e-9)] += 1
    if not objects:
        return Chosen(None, None)
    kept = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    f1 = 2 * kept[1] / (kept.sum(axis=0) + objects)
    best = np.flatnonzero(f1 == f1.max())
    if not f1.max():
        return Chosen(None, 0.0)
    return Chosen(float(best[len(best) // 2]) / STEPS, round(100 * float(f1.max()), 3))
