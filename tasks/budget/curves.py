"""Learning curves with a ceiling through the AP of a few trainings, as a distribution of curves and not as one.

AP = a - b g(n), where a is the ceiling and n = masks + w * clicks: a click counts as w masks. Three families of g:

- power law, n^-s (Hestness et al., 2017, "Deep learning scaling is predictable, empirically")
- exponential, exp(-s n / N)
- inverse logarithm, 1 / log(1 + n)

Kolachina et al. (ACL 2012, "Prediction of learning curves in machine translation") compare these three as Pow3, Exp3
and ILog2, and Viering and Loog (TPAMI 2023, "The shape of learning curves: a review") review them. A few points fit all
of them, so none is chosen. Every curve counts by how well it explains the points, given their noise (Bayes, on a grid
of s and w). The prior: families alike; s and w even in their logarithm within the bounds below; AP of the smallest and
the largest training even between 0 and the ceiling, which is at most 100.

Legend: R trainings, D curves, Q places, G cells of the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CEILING = 100.0
CURVES = 4000
"""D"""
TRIES = 64
"""Curves that are drawn in each cell of the grid, from which the D are chosen."""
CLICK_WORTH = np.concatenate([[0.0], np.geomspace(0.003, 1.0, 13)])
"""w: from nothing to as much as a mask."""
LEAST_RUNS = 3


class Family(NamedTuple):
    """g(n / N, N, s), which falls to 0, and the values of s."""

    name: str
    falls: Callable[[Floats, Floats, Floats], Floats]
    shapes: Floats


FAMILIES = (
    Family("power law", lambda x, N, s: x**-s, np.geomspace(0.1, 2.5, 16)),
    Family("exponential", lambda x, N, s: np.exp(-s * x), np.geomspace(0.25, 8, 16)),
    Family("inverse logarithm", lambda x, N, s: 1 / np.log1p(N * x) + 0 * s, np.ones(1)),
)


class NoCurve(Exception):
    """No curve that rises to a ceiling explains the points: AP falls as labels are added."""


class Runs(NamedTuple):
    """Trainings on parts of the data.

    Attributes:
        masks, clicks: [R] numbers of labels.
        ap: [R], in percent.
        covariance: [R, R] of the noise in `ap`: choice of val images, and chance in training.
    """

    masks: Floats
    clicks: Floats
    ap: Floats
    covariance: Floats

    def only(self, rows: NDArray[np.int64]) -> Runs:
        """Some of them."""
        return Runs(self.masks[rows], self.clicks[rows], self.ap[rows], self.covariance[np.ix_(rows, rows)])


class Curves(NamedTuple):
    """D equally likely curves.

    Attributes:
        family: [D] index into FAMILIES.
        shape, worth: [D] s and w.
        unit: [D] N, n of the largest training.
        places: [2, D] n of the smallest and the largest training.
        ends: [2, D] AP there.
        scale: by how much the noise was enlarged, 1 or more.
    """

    family: NDArray[np.int64]
    shape: Floats
    worth: Floats
    unit: Floats
    places: Floats
    ends: Floats
    scale: float

    def at(self, masks: Floats, clicks: Floats) -> Floats:
        """AP [D, Q] with these numbers of labels [Q], in percent."""
        n = masks[None, :] + self.worth[:, None] * clicks[None, :]
        found = np.empty((len(self.shape), len(masks)))
        for f in range(len(FAMILIES)):
            own = self.family == f
            t = _along(f, n[own], self.places[:, own], self.unit[own], self.shape[own])
            low, high = self.ends[0, own, None], self.ends[1, own, None]
            found[own] = low + (high - low) * t
        return found


def _along(family: int, n: Floats, places: Floats, unit: Floats, shape: Floats) -> Floats:
    """How far the curves have come at n [D, Q] on the way from `places`[0] (0) to `places`[1] (1)."""
    falls = FAMILIES[family].falls
    low, high = (_value(falls, place, unit, shape)[:, None] for place in places)
    there = _value(falls, n, unit[:, None], shape[:, None])
    return (low - there) / (low - high)


def _value(falls: Callable[..., Floats], n: Floats, unit: Floats, shape: Floats) -> Floats:
    found: Floats = falls(np.maximum(n, 1e-3 * unit) / unit, unit, shape)
    return found


def fit(runs: Runs, seed: int = 0) -> Curves:
    """Curves through the trainings.

    If all curves miss the points by more than the noise explains, the noise is enlarged until they don't (Birge, 1932):
    the band gets wider.

    Raises:
        NoCurve: no curve that rises fits.
        ValueError: there are fewer than LEAST_RUNS trainings.
    """
    if len(runs.ap) < LEAST_RUNS:
        raise ValueError(f"{len(runs.ap)} trainings, expected {LEAST_RUNS} or more")
    cells = _grid(runs)
    generator = np.random.default_rng(seed)
    drawn = _draw(runs, cells, 1.0, generator)
    freedom = max(1, len(runs.ap) - 3 - bool(runs.clicks.any()))
    scale = max(1.0, float(drawn[-1].min()) / freedom)
    if scale > 1:
        drawn = _draw(runs, cells, scale, generator)
    cell, ends, weight, _ = drawn
    chosen = generator.choice(len(weight), CURVES, p=weight / weight.sum())
    own = cells.take(cell[chosen])
    return Curves(own.family, own.shape, own.worth, own.unit, own.places, ends[:, chosen], scale)


class _Cells(NamedTuple):
    """The grid: G cells, each a family, s and w."""

    family: NDArray[np.int64]
    shape: Floats
    worth: Floats
    unit: Floats
    """[G] N: n of the largest training"""
    places: Floats
    """[2, G] n of the smallest and the largest training"""
    share: Floats
    """[G] prior probability"""

    def take(self, rows: NDArray[np.int64]) -> _Cells:
        return _Cells(*(part[..., rows] for part in self))  # type: ignore[arg-type]


def _grid(runs: Runs) -> _Cells:
    worths = CLICK_WORTH if runs.clicks.any() else CLICK_WORTH[:1]
    rows = [
        (f, s, w, 1 / len(one.shapes)) for f, one in enumerate(FAMILIES) for s in one.shapes for w in worths
    ]
    family, shape, worth, share = (np.array(column) for column in zip(*rows, strict=True))
    n = runs.masks[None, :] + worth[:, None] * runs.clicks[None, :]
    places = np.stack([n.min(1), n.max(1)])
    usable = places[1] > places[0] * (1 + 1e-9)  # w = 0, where only the clicks differ, is no curve
    return _Cells(family.astype(np.int64), shape, worth, n.max(1), places, share).take(np.flatnonzero(usable))


_Drawn = tuple[NDArray[np.int64], Floats, Floats, Floats]


def _draw(runs: Runs, cells: _Cells, scale: float, generator: np.random.Generator) -> _Drawn:
    """Weighted curves: their cells, ends [2, .], weights, and misfits (chi-square by the noise as given)."""
    n = runs.masks[None, :] + cells.worth[:, None] * runs.clicks[None, :]
    along = np.empty_like(n)
    top = np.empty(len(n))
    for f in range(len(FAMILIES)):
        own = cells.family == f
        parts = cells.places[:, own], cells.unit[own], cells.shape[own]
        along[own] = _along(f, n[own], *parts)
        falls = FAMILIES[f].falls
        low, high = (_value(falls, place, *parts[1:]) for place in parts[0])
        top[own] = low / (low - high)  # of the ceiling, where g is 0
    design = np.stack([1 - along, along], -1)  # [G, R, 2]
    precision: Floats = np.linalg.inv(runs.covariance).astype(np.float64)
    weighed = np.einsum("grk,rs->gks", design, precision / scale)  # [G, 2, R]
    inverse = weighed @ design
    spread = np.linalg.inv(inverse)
    mean = np.einsum("gkl,gls,s->gk", spread, weighed, runs.ap)
    miss = _misfit(runs, design, mean[:, :, None], precision)[:, 0]
    root = np.linalg.cholesky(spread)
    ends = mean[:, :, None] + root @ generator.standard_normal((len(mean), 2, TRIES))  # [G, 2, TRIES]
    low, high = ends[:, 0], ends[:, 1]
    valid = (low >= 0) & (high >= low) & (low + (high - low) * top[:, None] <= CEILING)
    if not valid.any():
        raise NoCurve
    log_weight = np.log(cells.share) - 0.5 * miss / scale + 0.5 * np.linalg.slogdet(spread)[1]
    # Relative to the likeliest cell that has a valid curve, so that not all weights underflow.
    log_weight -= log_weight[valid.any(1)].max()
    weight = np.exp(np.minimum(log_weight, 700.0))[:, None] * valid
    at = np.nonzero(valid)
    misses = _misfit(runs, design, ends, precision)
    return at[0], ends[at[0], :, at[1]].T, weight[at], misses[at]


def _misfit(runs: Runs, design: Floats, ends: Floats, precision: Floats) -> Floats:
    """Chi-square [G, tries] of curves with `ends` [G, 2, tries]."""
    left = runs.ap[None, :, None] - design @ ends
    found: Floats = np.einsum("grt,rs,gst->gt", left, precision, left)
    return found


class Band(NamedTuple):
    """What holds the middle CONFIDENCE of a forecast, and its median."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Floats, confidence: float) -> Band:
        """Of values [D]."""
        tail = (1 - confidence) / 2
        return cls(*np.quantile(values, [tail, 0.5, 1 - tail]).tolist())


def measured_next(
    curves: Curves, runs: Runs, known: NDArray[np.int64], rows: NDArray[np.int64], seed: int = 0
) -> Floats:
    """What the trainings `rows` of the same labels would measure in the mean, [D], by curves through the trainings
    `known` alone: with their own noise, as far as the noise of the known ones, on the same val images, doesn't show it.
    More seeds make less of the chance in training, but not of the noise of the val images, which they share."""
    others = runs.only(known)
    at = curves.at(runs.masks, runs.clicks)
    cross = curves.scale * runs.covariance[np.ix_(rows, known)].mean(0)
    gain = np.linalg.solve(curves.scale * others.covariance, cross)
    own = curves.scale * runs.covariance[np.ix_(rows, rows)].mean()
    left = max(0.0, float(own - gain @ cross))
    noise = np.random.default_rng(seed).standard_normal(len(at)) * left**0.5
    found: Floats = at[:, rows[0]] + (others.ap - at[:, known]) @ gain + noise
    return found
