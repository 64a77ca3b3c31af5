from __future__ import annotations

import pytest

from flows.project.plan import _fit


@pytest.mark.parametrize(
    ("budget", "fixed", "trainings", "factor", "least"),
    [
        (1000, 100, 1600, 0.5, None),
        (10_000, 100, 1000, 8.9, None),  # more than the usual steps
        (1000, 700, 1000, 0.2, None),  # just enough
        (999, 700, 1000, 0.2, "16 min 40 s"),  # 1,000 seconds
        (60, 700, 1000, 0.2, "16 min 40 s"),
    ],
)
def test_steps_that_fit_a_budget(
    budget: float, fixed: float, trainings: float, factor: float, least: str | None
) -> None:
    found, note = _fit(budget, fixed, trainings)
    assert found == pytest.approx(factor)
    assert (note is None) == (least is None)
    assert least is None or (note is not None and note.endswith(least))
