from __future__ import annotations

import pytest

from flows.project.plan import _fit
from tasks.common.progress import format_seconds


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
