"""Which images to label: a greedy choice by what their labels add, for what they cost. See docs/suggest.md.

A set of images S is worth the sum of three parts, each as a share of what all candidates together would add:

    diversity   sum over images u of max over v in S and the labelled ones of similarity(u, v): facility location
                (Wei, Iyer and Bilmes, "Submodularity in data subset selection and active learning", ICML 2015,
                section 4)
    classes     sum over classes c of log(1 + masks of c, those that exist and those of S): the fewer there are of a
                class, the more another one adds (the same, section 3: concave over modular), as accuracy grows with
                the logarithm of the number of labels (Sun et al., "Revisiting unreasonable effectiveness of data in
                deep learning era", ICCV 2017, section 4.2)
    doubt       sum over classes c of the expected number of objects of c in S that the model misses, over the square
                root of that number in all candidates, so that rare classes count too

All three have diminishing returns, so that the greedy choice by gain over cost is near the best one (Leskovec et al.,
"Cost-effective outbreak detection in networks", KDD 2007, section 3), and gains needn't be computed anew for all
candidates at each step (lazy evaluation, the same).

Legend: N candidates, M labelled images, R images that stand for all, F features, C classes.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MOST_REPRESENTED = 2000
"""R: with more candidates, an even part of them stands for all in the diversity, so that memory stays small."""

ALIKE = 0.5
"""Cosine similarity from which on images are said to be alike."""


class Weights(NamedTuple):
    """Of the three parts; 0 leaves one out."""

    diversity: float = 1.0
    classes: float = 1.0
    doubt: float = 1.0


DEFAULT = Weights()


@dataclass(frozen=True)
class Pool:
    """The candidates, in the order of their names: a tie is won by the first one.

    Attributes:
        features: [N, F], of the backbone.
        objects: [N, C], their expected number by class.
        doubts: [N, C], of these, the expected number that the model misses.
        labelled: [M, F], features of images that have labels already.
        masks: [C], masks that exist.
    """

    features: Floats
    objects: Floats
    doubts: Floats
    labelled: Floats
    masks: Floats

    def __len__(self) -> int:
        return len(self.features)


class Choice(NamedTuple):
    """A chosen image.

    Attributes:
        row: of the pool.
        gains: what it adds to diversity, classes and doubt, weighted, as shares of what all candidates would add.
        likeness: cosine similarity to the most similar labelled image, or earlier choice; -1 if there is none.
        stands_for: candidates that are like it, and more so than like anything before it; itself included.
    """

    row: int
    gains: tuple[float, float, float]
    likeness: float
    stands_for: int


class _Value:
    """The set that was chosen so far, and what another image would add to it."""

    def __init__(self, pool: Pool, weights: Weights) -> None:
        self.pool, self.weights = pool, weights
        self.features, labelled = _directions(pool)
        step = max(1, -(-len(pool) // MOST_REPRESENTED))
        self.represented = self.features[::step].astype(np.float32)
        self.step = step
        # A column for each candidate: what is needed for one gain lies side by side.
        self.similar = np.clip(self.features.astype(np.float32) @ self.represented.T, 0, 1)
        self.nearest = np.zeros(len(self.represented), np.float32)
        self.likeness = np.full(len(pool), -1.0)
        for one in labelled:
            self._cover(one)
        self.masks = pool.masks.astype(np.float64).copy()
        of_class = np.sqrt(pool.doubts.sum(0))
        doubts = np.divide(pool.doubts, of_class, out=np.zeros_like(pool.doubts), where=of_class > 0).sum(1)
        most = np.array([
            float(np.maximum(self.similar.max(0, initial=0) - self.nearest, 0).sum()),
            float((np.log1p(self.masks + pool.objects.sum(0)) - np.log1p(self.masks)).sum()),
            float(doubts.sum()),
        ])  # fmt: skip
        self.scale = np.divide(np.array(weights), most, out=np.zeros(3), where=most > 0)
        self.doubts = doubts

    def gains(self, row: int) -> Floats:
        """[3], of one candidate."""
        diversity = np.maximum(self.similar[row] - self.nearest, 0).sum(dtype=np.float64)
        classes = (np.log1p(self.masks + self.pool.objects[row]) - np.log1p(self.masks)).sum()
        found: Floats = np.array([diversity, classes, self.doubts[row]]) * self.scale
        return found

    def add(self, row: int) -> Choice:
        gains = self.gains(row)
        closer = (self.similar[row] > self.nearest) & (self.similar[row] >= ALIKE)
        stands_for = int(closer.sum()) * self.step
        choice = Choice(row, tuple(gains.tolist()), float(self.likeness[row]), stands_for)
        self._cover(self.features[row])
        self.masks += self.pool.objects[row]
        return choice

    def _cover(self, features: Floats) -> None:
        np.maximum(self.likeness, self.features @ features, out=self.likeness)
        similar = np.clip(self.represented @ features.astype(np.float32), 0, 1)
        np.maximum(self.nearest, similar, out=self.nearest)


def _directions(pool: Pool) -> tuple[Floats, Floats]:
    """Features of length 1 about the mean of all images, [N, F] and [M, F]: all images of one kind are alike without
    that."""
    centre = np.concatenate([pool.features, pool.labelled]).mean(0) if len(pool) else 0.0
    return _unit(pool.features - centre), _unit(pool.labelled - centre)


def _unit(rows: Floats) -> Floats:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def costs(pool: Pool) -> Floats:
    """[N]: the objects to label, and for opening and searching the image as much as for the usual number of objects."""
    objects = pool.objects.sum(1)
    return np.maximum(objects + objects.mean(), 1.0) if len(objects) else objects


def choose(
    pool: Pool,
    *,
    images: int | None = None,
    objects: float | None = None,
    weights: Weights = DEFAULT,
    cost: Sequence[float] | Floats | None = None,
) -> list[Choice]:
    """The candidates to label, the most useful first.

    Args:
        images: their number; None: any.
        objects: the number of expected objects that they have at most, an image counting as one at least; a first image
            may have more. None: any.
        weights: of the parts of the value.
        cost: [N], above 0; by default `costs`.
    """
    value = _Value(pool, weights)
    price = costs(pool) if cost is None else np.asarray(cost, np.float64)
    expected = np.maximum(pool.objects.sum(1), 1)
    # Gains only fall, so the best of the queue is the best of all if its gain is of this step.
    queue = [(-float(value.gains(row).sum() / price[row]), row, 0) for row in range(len(pool))]
    heapq.heapify(queue)
    chosen: list[Choice] = []
    left = np.inf if objects is None else float(objects)
    while queue and (images is None or len(chosen) < images) and left > 0:
        _, row, step = heapq.heappop(queue)
        if expected[row] > left and chosen:
            continue
        if step < len(chosen):
            gain = float(value.gains(row).sum() / price[row])
            heapq.heappush(queue, (-gain, row, len(chosen)))
            continue
        chosen.append(value.add(row))
        left -= expected[row]
    return chosen


def at_random(pool: Pool, objects: float, seed: int) -> list[int]:
    """Rows in random order under the rule of `objects` in `choose`: what a choice is compared with."""
    expected, left = np.maximum(pool.objects.sum(1), 1), float(objects)
    chosen: list[int] = []
    for row in np.random.default_rng(seed).permutation(len(pool)).tolist():
        if expected[row] <= left or not chosen:
            chosen.append(row)
            left -= expected[row]
    return chosen
