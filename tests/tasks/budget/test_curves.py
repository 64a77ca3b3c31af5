"""Curves: known ones are found, bands hold the truth as often as they say, and nothing rises above 100."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.budget.curves import CLICK_WORTH, FAMILIES, Band, Floats, NoCurve, Runs, fit, measured_next

MASKS = np.repeat([300.0, 600.0, 1200.0], 2)
CLICKS = np.tile([5000.0, 10000.0], 3)
WHOLE = 1200.0, 10000.0
Truth = Callable[[float, float], float]


def truth(family: int, shape: float, worth: float, low: float, high: float) -> Truth:
    """A curve through AP `low` and `high` of the smallest and the largest training."""
    n = MASKS + worth * CLICKS
    unit = np.array([n.max()])

    def g(value: float) -> float:
        return float(FAMILIES[family].falls(np.array([value]) / unit, unit, np.array([shape]))[0])

    b = (high - low) / (g(n.min()) - g(n.max()))
    return lambda masks, clicks: high + b * (g(n.max()) - g(masks + worth * clicks))


def runs(curve: Truth, covariance: Floats, noise: Floats | float = 0.0) -> Runs:
    ap = np.array([curve(m, c) for m, c in zip(MASKS, CLICKS, strict=True)]) + noise
    return Runs(MASKS, CLICKS, ap, covariance)


@pytest.mark.parametrize(("family", "shape"), [(0, 0.5), (0, 1.3), (1, 2.0), (2, 1.0)])
def test_known_curves_are_found(family: int, shape: float) -> None:
    curve = truth(family, shape, 0.01, 20.0, 30.0)
    found = fit(runs(curve, 1e-4 * np.eye(6)))
    at = found.at(np.array([1800.0, 1200.0]), np.array([10000.0, 15000.0]))
    for column, place in enumerate([(1800, 10000), (1200, 15000)]):
        band = Band.of(at[:, column], 0.98)
        assert band.low - 0.1 <= curve(*place) <= band.high + 0.1
        assert band.high - band.low < 2.5
    families = np.bincount(found.family, minlength=3) / len(found.family)
    assert families[family] > 0.1


@settings(max_examples=30)
@given(
    st.lists(st.floats(0, 100), min_size=6, max_size=6),
    st.floats(0.05, 5),
    st.booleans(),
)
def test_every_curve_rises_below_the_ceiling(ap: list[float], noise: float, with_clicks: bool) -> None:
    clicks = CLICKS if with_clicks else np.zeros(6)
    try:
        found = fit(Runs(MASKS, clicks, np.array(ap), noise**2 * np.eye(6)))
    except NoCurve:
        return
    many = np.geomspace(300, 1e12, 30)
    for masks, more in ((many, np.full(30, WHOLE[1])), (np.full(30, WHOLE[0]), 10 * many)):
        at = found.at(masks, more if with_clicks else np.zeros(30))
        assert (np.diff(at, axis=1) >= -1e-6).all()
        assert at.max() <= 100 + 1e-6
    assert found.scale >= 1


def test_bands_hold_the_truth_as_often_as_they_say() -> None:
    """80% of 150 simulations would be 120, with a standard deviation of 5."""
    generator = np.random.default_rng(3)
    inside = {"masks": 0, "clicks": 0, "measured": 0}
    for _ in range(150):
        family = int(generator.integers(3))
        shape, worth = generator.choice(FAMILIES[family].shapes), generator.choice(CLICK_WORTH)
        high = generator.uniform(10, 45)
        curve = truth(family, shape, worth, generator.uniform(0.5, 1) * high, high)
        covariance = 0.8 * np.ones((6, 6)) + 0.3 * np.eye(6)
        given = runs(curve, covariance, generator.multivariate_normal(np.zeros(6), covariance))
        at = fit(given).at(np.array([1200.0, 2400.0, 1200.0]), np.array([1e4, 1e4, 2e4]))
        for column, (name, place) in enumerate(
            {"masks": (2400, 1e4), "clicks": (1200, 2e4)}.items(), start=1
        ):
            band = Band.of(at[:, column] - at[:, 0], 0.8)
            inside[name] += band.low <= curve(*place) - curve(*WHOLE) <= band.high
        known = np.arange(4)
        band = Band.of(measured_next(fit(given.only(known)), given, known, np.array([5])), 0.8)
        inside["measured"] += band.low <= given.ap[5] <= band.high
    assert all(110 <= count <= 145 for count in inside.values()), inside


def test_seeds_dont_average_what_their_val_images_share() -> None:
    """Twelve trainings, each part with two seeds, whose noise is that of the val images; and two of all data."""
    masks, clicks = np.repeat(MASKS, 2), np.repeat(CLICKS, 2)
    curve = truth(0, 0.5, 0.01, 20.0, 30.0)
    ap = np.array([curve(m, c) for m, c in zip(masks, clicks, strict=True)])
    same_part = np.kron(np.eye(6), np.ones((2, 2)))
    given = Runs(masks, clicks, ap, 2.0 * same_part + 1e-3 * np.eye(12))
    known = np.arange(8)
    curves = fit(given.only(known))
    one, both = (np.std(measured_next(curves, given, known, np.array(rows))) for rows in ([10], [10, 11]))
    assert both == pytest.approx(one, rel=0.02)


def test_curves_that_fall_fit_nothing() -> None:
    with pytest.raises(NoCurve):
        fit(Runs(MASKS, CLICKS, np.array([30.0, 28.0, 25.0, 22.0, 15.0, 10.0]), 1e-4 * np.eye(6)))


def test_points_that_no_curve_explains_make_the_band_wider() -> None:
    curve = truth(0, 0.5, 0.01, 20.0, 30.0)
    smooth, rough = (
        fit(runs(curve, 0.01 * np.eye(6), np.array(noise)))
        for noise in (np.zeros(6), [0.0, 0.0, 2.0, -2.0, 0.0, 1.0])
    )
    widths = [np.ptp(Band.of(one.at(np.array([1800.0]), np.array([1e4])), 0.8)) for one in (smooth, rough)]
    assert smooth.scale < 3 < rough.scale
    assert widths[0] < widths[1]


def test_two_trainings_are_too_few() -> None:
    with pytest.raises(ValueError, match="2 trainings"):
        fit(runs(truth(0, 0.5, 0.0, 20.0, 30.0), np.eye(6)).only(np.array([0, 5])))
