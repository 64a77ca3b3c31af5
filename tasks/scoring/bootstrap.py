"""Confidence interval of the difference between two models' AP: the paired bootstrap over images (Efron, 1979).

Each draw takes as many images as there are, with repetition, and both models' AP is computed on it. No detection is
matched again: a draw is a weight for each image (0, 1, 2, ...), and a detection counts as often as its image. The
detections of a class are sorted once; a draw costs two cumulative sums and a look-up of the recall points.

Legend: B draws, I images, K classes, T IoU thresholds, R recall points, D detections of a class, N of them correct.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.common.progress import Bar
from tasks.scoring.coco_match import Matches, thresholds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CHUNK = 1 << 22
"""Weights of detections in memory at a time: 32 MB."""
_MOST_DRAWS = 50
"""at a time, so that the progress bar moves"""


class Objects(NamedTuple):
    """The true objects of a class that count."""

    images: Ints
    """[images with at least one]: indices among the I images"""
    counts: Ints
    """of objects, for each of these images"""


class Ranked(NamedTuple):
    """One model's detections of a class, best first, in the order of COCO's evaluation."""

    images: Ints
    """[D]: indices among the I images"""
    hits: list[Ints]
    """T times [N]: indices of the detections that match a true object that counts"""
    ignored: list[Ints]
    """T times: indices of the detections that count neither as correct nor as false"""


class Ranking(NamedTuple):
    """One model's matches, as AP over all sizes needs them; both lists are by class."""

    objects: list[Objects]
    detections: list[Ranked]


class Spread(NamedTuple):
    """The interval of the middle `confidence` of the differences of AP over the draws, in AP points (of 100)."""

    low: float | None
    high: float | None


def rank(parts: Sequence[Matches], image_ids: Ints, classes: int) -> Ranking:
    """Sorts matches as `tasks.scoring.coco_match.accumulate` does.

    Args:
        parts: in the order of their image ids.
        image_ids: [I], of all images, ascending.
        classes: K.
    """
    found: list[list[tuple[Ints, Floats, NDArray[np.bool_], NDArray[np.bool_]]]] = [
        [] for _ in range(classes)
    ]
    true: list[list[tuple[int, int]]] = [[] for _ in range(classes)]
    for part in parts:
        d = g = 0
        places = np.searchsorted(image_ids, part.images)
        for place, (k, detections, objects) in zip(places.tolist(), part.pairs.tolist(), strict=True):
            mine = slice(d, d + detections)
            counted = int((~part.objects_ignored[0, g : g + objects]).sum())
            if counted:
                true[k].append((place, counted))
            if detections:
                found[k].append(
                    (
                        np.full(detections, place, np.int64),
                        part.scores[mine],
                        part.matched[0, :, mine],
                        part.ignored[0, :, mine],
                    )
                )
            d, g = d + detections, g + objects
    return Ranking([_objects(rows) for rows in true], [_ranked(rows) for rows in found])


def _objects(rows: Sequence[tuple[int, int]]) -> Objects:
    table = np.array(rows, np.int64).reshape(-1, 2)
    return Objects(table[:, 0], table[:, 1])


def _ranked(rows: Sequence[tuple[Ints, Floats, NDArray[np.bool_], NDArray[np.bool_]]]) -> Ranked:
    nothing = np.zeros(0, np.int64)
    if not rows:
        steps = len(thresholds()[0])
        return Ranked(nothing, [nothing] * steps, [nothing] * steps)
    images, scores, matched, ignored = (np.concatenate(column, axis=-1) for column in zip(*rows, strict=True))
    order = np.argsort(-scores, kind="mergesort")  # pycocotools' own: equal scores stay in the images' order
    matched, ignored = matched[:, order], ignored[:, order]
    return Ranked(
        images[order],
        [np.flatnonzero(row) for row in matched & ~ignored],
        [np.flatnonzero(row) for row in ignored],
    )


def precisions(objects: Objects, ranked: Ranked, weights: Ints) -> Floats:
    """Interpolated precision of a class for each draw.

    With all weights 1 it equals pycocotools' bit for bit. Only correct detections are looked at: recall increases only
    there, and a false detection after them has the same recall with less precision.

    Args:
        objects: of the class.
        ranked: detections of the class.
        weights: [B, I], how often each image was drawn.

    Returns:
        [B, T, R], 0 to 1; NaN for a draw without a true object.
    """
    overlaps, recall = thresholds()
    result = np.zeros((len(weights), len(overlaps), len(recall)))
    total = weights[:, objects.images] @ objects.counts  # [B]
    needed = _least_counts(total, recall)
    seen = np.cumsum(weights[:, ranked.images], axis=1)  # [B, D]
    for t, (hits, ignored) in enumerate(zip(ranked.hits, ranked.ignored, strict=True)):
        if not len(hits):
            continue
        right = np.cumsum(weights[:, ranked.images[hits]], axis=1)  # [B, N]
        counted = seen[:, hits]
        if len(ignored):
            before = np.searchsorted(ignored, hits)
            skipped = np.cumsum(weights[:, ranked.images[ignored]], axis=1)
            counted = counted - np.where(before > 0, skipped[:, before - 1], 0)
        # COCO's own safeguard against 0 / 0.
        precision = right / (counted + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        result[:, t] = _looked_up(precision, right, needed)
    result[total == 0] = np.nan
    return result


def _least_counts(total: Ints, recall: Floats) -> Ints:
    """[B, R]: the least number of correct detections whose share of `total` [B] reaches each recall point [R].

    Shares are computed by the same division as in COCO's evaluation, so that they round alike.
    """
    whole = np.maximum(total, 1)[:, None]
    least = np.ceil(recall * whole).astype(np.int64)
    least = np.where((least > 0) & ((least - 1) / whole >= recall), least - 1, least)
    return np.where(least / whole < recall, least + 1, least)


def _looked_up(precision: Floats, right: Ints, needed: Ints) -> Floats:
    """[B, R]: precision [B, N] where `right` [B, N], ascending, first reaches `needed` [B, R]; else 0."""
    draws, length = right.shape
    # One search for all draws: the numbers of each draw are shifted above those of the draw before.
    stride = int(max(right[:, -1].max(), needed.max())) + 1
    shift = np.arange(draws)[:, None]
    at = np.searchsorted((right + stride * shift).ravel(), (needed + stride * shift).ravel())
    padded = np.concatenate([precision, np.zeros((draws, 1))], axis=1)
    return np.take_along_axis(padded, at.reshape(needed.shape) - length * shift, axis=1)


def draws_of(count: int, images: int, generator: np.random.Generator) -> Ints:
    """[count, images]: how often each image is drawn if `images` of them are drawn."""
    return generator.multinomial(images, np.full(images, 1 / images), size=count)


def differences(before: Ranking, after: Ranking, images: int, draws: int, seed: int) -> Floats:
    """AP of the second model minus AP of the first, in AP points, over draws of the images.

    Args:
        before, after: rankings of the same images and classes.
        images: I.
        draws: B.
        seed: of the draws.

    Returns:
        [B, 1 + K]: over all classes, then by class; NaN if a draw has no true object.
    """
    classes = len(before.detections)
    if not draws or not images:
        return np.zeros((0, 1 + classes))
    size = _at_once([before, after], images)
    generator = np.random.default_rng(seed)
    rows = []
    with Bar("bootstrap", draws, "draw") as bar:
        for at in range(0, draws, size):
            weights = draws_of(min(size, draws - at), images, generator)
            first, second = (_ap(side, weights) for side in (before, after))
            change = 100 * (second - first)
            rows.append(np.column_stack([_mean_of_known(change), change]))
            bar.advance(len(weights))
    return np.concatenate(rows)


def sampled_ap(rankings: Sequence[Ranking], images: int, draws: int, seed: int) -> Floats:
    """AP of several models on the same draws of the images, in percent.

    Args:
        rankings: of the same images and classes, one a model.
        images, draws, seed: as for `differences`.

    Returns:
        [1 + B, models]: first on all images as they are, then over the draws; NaN without a true object.
    """
    weights = np.concatenate(
        [np.ones((1, images), np.int64), draws_of(draws, images, np.random.default_rng(seed))]
    )
    size = _at_once(rankings, images)
    parts = [weights[at : at + size] for at in range(0, len(weights), size)]
    rows = [[100 * _mean_of_known(_ap(side, drawn)) for side in rankings] for drawn in parts]
    return np.concatenate([np.stack(columns, 1) for columns in rows])


def _at_once(rankings: Sequence[Ranking], images: int) -> int:
    """Draws whose weights are in memory together."""
    most = max([1, *(len(one.images) for side in rankings for one in side.detections)])
    return max(1, min(_MOST_DRAWS, CHUNK // max(most, images, 1)))


def _ap(ranking: Ranking, weights: Ints) -> Floats:
    """AP [B, K] of each class, 0 to 1; NaN without a true object."""
    found = np.full((len(weights), len(ranking.detections)), np.nan)
    for k, own in enumerate(ranking.objects):
        if len(own.images):
            found[:, k] = precisions(own, ranking.detections[k], weights).mean((1, 2))
    return found


def _mean_of_known(values: Floats) -> Floats:
    """[B, K] -> [B]: the mean without NaN; NaN if all are NaN."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(1) / known.sum(1)


def spread(values: Floats, confidence: float) -> Spread:
    """The interval that holds the middle `confidence` of the values [B], without NaN; None if all are NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Spread(None, None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail]).tolist()
    return Spread(_rounded(low), _rounded(high))


def _rounded(value: float) -> float:
    return round(value, 3) if math.isfinite(value) else value
