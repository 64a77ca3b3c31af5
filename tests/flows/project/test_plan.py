from __future__ import annotations

import pytest

from flows.project.plan import _fit, _fit_trainings
from tasks.common.progress import format_seconds
from tasks.planning.probe import Forecast
from tasks.planning.recipe import Kept


@pytest.mark.parametrize(
    ("budget", "fixed", "trainings", "factor", "least"),
    [
        (1000, 100, 1600, 0.5, "50% of the usual steps"),  # of which all take 1,700 s
        (10_000, 100, 1000, 8.9, None),  # more than the usual steps
        (1000, 700, 1000, 0.2, "20% of the usual steps"),  # just enough
        (999, 700, 1000, 0.2, "the least that learns something, 15 min 00 s"),
        (60, 700, 1000, 0.2, "the least that learns something, 15 min 00 s"),
        (60, 700, 0, 1.0, "the numbers of steps are yours"),  # nothing to fit
        (800, 700, 0, 1.0, None),
    ],
)
def test_steps_that_fit_a_budget(
    budget: float, fixed: float, trainings: float, factor: float, least: str | None
) -> None:
    found, note = _fit(budget, fixed, trainings)
    assert found == pytest.approx(factor)
    assert (note is None) == (least is None)
    usual = format_seconds(fixed + trainings)
    assert least is None or (note is not None and least in note and note.endswith(usual))


def test_steps_that_are_a_persons_are_not_fitted() -> None:
    """The other trainings get what the teacher, and all that is no training, leave of nine tenths of 1,000 s."""
    usual = Forecast(100.0, 500.0, 7.0, 1000.0, 3.0)
    steps, times, note = _fit_trainings(
        1000, usual, [Kept("teacher.steps", 40, 1000), Kept("student.lr", 1, 2)]
    )
    assert steps == pytest.approx((900 - 110) / 1500)
    assert times == pytest.approx((100, 500 * steps, 7, 1000 * steps, 3))
    assert note is not None and "53% of the usual steps" in note
    every = [Kept(f"{name}.steps", 40, 1000) for name in ("teacher", "refiner", "student")]
    assert _fit_trainings(1000, usual, every)[:2] == (1.0, usual)
