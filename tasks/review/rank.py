"""How doubtful each pseudo mask is, from 0 to 1, and why in words. See docs/review.md.

A mask is worth its predicted IoU. Each of three signs takes up to half of that: rough and refined mask differ, the
size is rare for the class, the box overlaps the box of another object. The doubt is what is missing to 1.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from data.masks.rle import FloatArray, IntArray
from tasks.review.objects import Float32, Objects

WORDS = (
    "Worst first: a mask is worth its predicted IoU; each of three signs takes up to half of that: the rough and the "
    "refined mask differ, its size is rare for its class, its box overlaps that of another object."
)
LEAST_OF_CLASS = 10
"""Masks of a class from which sizes are compared."""
RARE = 2.0, 6.0
"""Distance from the median size, in robust standard deviations of the logarithm: where doubt begins, where it is 1."""
LEAST_SPREAD = 0.2
"""Of the logarithm of areas: masks of a class that are all alike make none of them rare."""
PAIRS_AT_ONCE = 1 << 20
ORDERS = {
    "doubt": "all signs",
    "score": "predicted IoU",
    "disagreement": "rough and refined differ",
    "size": "size rare for the class",
    "overlap": "overlaps another object",
}
"""By which sign objects may be ordered."""


class Doubts(NamedTuple):
    """float32 [N] each, from 0 (none) to 1."""

    doubt: Float32
    score: Float32
    disagreement: Float32
    size: Float32
    overlap: Float32
    size_factor: Float32
    """area over the median area of the class; NaN without a mask or with few masks of the class"""


def doubts(objects: Objects) -> Doubts:
    """Of all objects; an object without a mask has doubt 1."""
    drawn = objects.area > 0
    score = 1 - np.clip(np.nan_to_num(objects.score), 0, 1)
    score[objects.misses_click] = 1
    disagreement = 1 - np.clip(np.nan_to_num(objects.agreement, nan=1.0), 0, 1)
    size, factor = _sizes(objects)
    overlap = _overlaps(objects)
    worth = (1 - score) * (1 - disagreement / 2) * (1 - size / 2) * (1 - overlap / 2)
    doubt = np.where(drawn, 1 - worth, 1)
    return Doubts(*(one.astype(np.float32) for one in (doubt, score, disagreement, size, overlap, factor)))


def why(objects: Objects, found: Doubts, row: int) -> list[str]:
    """Why an object is where it is, the most telling first."""
    if objects.area[row] == 0:
        return [objects.reason(row) or "it has no mask"]
    parts: list[tuple[float, str]] = []
    if objects.misses_click[row]:
        parts.append((2.0, "the mask doesn't contain its click"))
    parts.append((float(found.score[row]), f"predicted IoU {objects.score[row]:.2f}"))
    if not np.isnan(objects.agreement[row]):
        text = f"rough and refined mask agree by {objects.agreement[row]:.2f}"
        parts.append((float(found.disagreement[row]) / 2, text))
    elif (reason := objects.reason(row)) is not None:
        parts.append((0.0, f"the rough mask: {reason}"))
    factor = float(found.size_factor[row])
    if found.size[row] > 0:
        times = f"{factor:.1f} times" if factor >= 1 else f"1/{1 / factor:.1f} of"
        parts.append((float(found.size[row]) / 2, f"{times} the usual area of its class"))
    if found.overlap[row] >= 0.1:
        parts.append((float(found.overlap[row]) / 2, f"its box overlaps another by {found.overlap[row]:.2f}"))
    return [text for _, text in sorted(parts, key=lambda one: -one[0])]


def _sizes(objects: Objects) -> tuple[FloatArray, FloatArray]:
    """Doubt by size, and the factor to the class's median."""
    doubt, factor = np.zeros(len(objects)), np.full(len(objects), np.nan)
    for category in np.unique(objects.category):
        rows = np.flatnonzero((objects.category == category) & (objects.area > 0))
        if len(rows) < LEAST_OF_CLASS:
            continue
        logs = np.log(objects.area[rows].astype(np.float64))
        away = logs - np.median(logs)
        spread = max(1.4826 * float(np.median(np.abs(away))), LEAST_SPREAD)
        begin, end = RARE
        doubt[rows] = np.clip((np.abs(away) / spread - begin) / (end - begin), 0, 1)
        factor[rows] = np.exp(away)
    return doubt, factor


def _overlaps(objects: Objects) -> FloatArray:
    """The greatest IoU of each box with another one of its image."""
    rows = np.flatnonzero(objects.area > 0)
    # By image, then by left edge: the boxes that begin before one ends are those that follow it.
    rows = rows[np.lexsort((objects.box[rows, 0], objects.image[rows]))]
    x0, y0, w, h = objects.box[rows].astype(np.float64).T
    x1, y1 = x0 + w, y0 + h
    # One axis for all images, so that one search finds the ends.
    shift = objects.image[rows] * (float(x1.max(initial=0)) + 1)
    followers = np.searchsorted(x0 + shift, x1 + shift, side="left") - np.arange(len(rows)) - 1
    followers = np.maximum(followers, 0)  # a box of no width
    best = np.zeros(len(rows))
    for first, last in _chunks(followers):
        counts = followers[first:last]
        a = np.repeat(np.arange(first, last), counts)
        b = a + 1 + np.arange(len(a)) - np.repeat(np.cumsum(counts) - counts, counts)
        wide = np.minimum(x1[a], x1[b]) - np.maximum(x0[a], x0[b])
        high = np.minimum(y1[a], y1[b]) - np.maximum(y0[a], y0[b])
        both = np.clip(wide, 0, None) * np.clip(high, 0, None)
        iou = both / np.maximum(w[a] * h[a] + w[b] * h[b] - both, 1e-9)
        np.maximum.at(best, a, iou)
        np.maximum.at(best, b, iou)
    found = np.zeros(len(objects))
    found[rows] = best
    return found


def _chunks(counts: IntArray) -> list[tuple[int, int]]:
    """Ranges of rows with about PAIRS_AT_ONCE pairs each."""
    group = np.cumsum(counts) // PAIRS_AT_ONCE
    starts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(counts)]
    return [(a, b) for a, b in itertools.pairwise(starts) if b > a]
