"""The report's section on more labels, on the tables of a made project."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.budget.parts import WHOLE, val_hash
from tasks.budget.record import Budget, Finished, Measurement
from tasks.reporting.budget import budget_view
from tests.tasks.budget.test_forecast import RISING, measurement
from tests.tasks.budget.test_parts import project


def scaled(found: Measurement, masks: int, clicks: int, val: str) -> Measurement:
    """The same trainings with so many labels in all."""
    runs = [
        run.model_copy(
            update={"masks": round(masks * run.mask_share), "clicks": round(clicks * run.click_share)}
        )
        for run in found.runs
    ]
    return found.model_copy(update={"runs": runs, "val": val, "finished": Finished(AP=20.0, model="m")})


def test_nothing_measured_no_section(tmp_path: Path) -> None:
    assert budget_view(Budget(measurements=[]), tmp_path / "none", 30.0) is None


@pytest.mark.parametrize("grown", [False, True])
def test_the_forecast_and_what_came(tmp_path: Path, grown: bool) -> None:
    data = project(tmp_path)
    now = data.counts(WHOLE)
    last = scaled(measurement(RISING), now.masks - 3 * grown, now.clicks, val_hash(data.val))
    view = budget_view(Budget(measurements=[last]), tmp_path, 21.5)
    assert view is not None
    assert len(view.came) == grown
    if grown:
        assert "3 more masks" in view.came[0] and "what came is +1.5: 20.0 before, 21.5 now" in view.came[0]
    assert [row["kind"] for row in view.rows] == ["masks"] * 3 + ["clicks"] * 3
    assert not view.refused and view.batches[0].startswith("Masks on 10 more images")
    assert [kind for kind, _ in view.charts] == ["masks", "clicks"]
    svg = view.charts[0][1]
    assert svg.count("<circle") == 3 and svg.count("<polygon") == 1


def test_rows_without_a_forecast_say_why(tmp_path: Path) -> None:
    project(tmp_path)
    rough = measurement([10.0, 11.0, 9.0, 12.0, 10.5, 11.2], noise=4.0)
    view = budget_view(Budget(measurements=[rough]), tmp_path, None)
    assert view is not None and view.refused and view.came == []
    assert {row["gain"] for row in view.rows} == {"–"}
    assert "the band is wider than the gain" in view.rows[0]["refused"]
