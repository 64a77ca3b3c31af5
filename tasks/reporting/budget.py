"""The report's section on what more labels would bring: registry/budget.json, and what came of earlier forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from tasks.budget.forecast import FURTHEST, GROWTHS, Forecaster, Kind, came
from tasks.budget.parts import WHOLE, Data, val_hash
from tasks.budget.record import Budget, Measurement
from tasks.budget.words import back_test_sentence, batch_sentence, came_sentence, hours, notes
from tasks.reporting.charts import Axis, band_chart

KINDS: tuple[Kind, ...] = ("masks", "clicks")
POINTS = 41
"""Of a curve."""


class BudgetView(NamedTuple):
    """The values of report.html.j2."""

    made: str
    parts: str
    came: list[str]
    batches: list[str]
    back_test: str
    notes: list[str]
    rows: list[dict[str, Any]]
    """kind, images, labels, work, gain, rate, refused"""
    refused: bool
    """whether a row has no forecast"""
    charts: list[tuple[str, Markup]]


def budget_view(budget: Budget, workspace: Path, ap: float | None) -> BudgetView | None:
    """
    Args:
        budget: of the registry.
        workspace: with the present labels.
        ap: of the student.

    Returns:
        None where nothing was measured.
    """
    if not budget.measurements:
        return None
    data = Data.open(workspace)
    now, val = data.counts(WHOLE), val_hash(data.val)
    arrived = [came(one, now.masks, now.clicks, ap, val) for one in budget.measurements]
    last = budget.measurements[-1]
    forecaster = Forecaster(last)
    rows = []
    for batch in (one for kind in KINDS for one in forecaster.batches(kind)):
        gain, rate = batch.gain, batch.per_hour
        rows.append(
            {
                "kind": batch.kind, "images": batch.images, "labels": batch.labels, "work": hours(batch.hours),
                "gain": "–" if gain is None else f"{gain.low:+.1f} to {gain.high:+.1f}",
                "rate": "–" if rate is None else f"{rate.low:.2f} to {rate.high:.2f}", "refused": batch.refused or "",
            }
        )  # fmt: skip
    charts = [(kind, _chart(forecaster, kind)) for kind in KINDS]
    return BudgetView(
        last.made,
        _parts(last),
        [came_sentence(one) for one in arrived if one is not None],
        [batch_sentence(one) for kind in KINDS for one in forecaster.batches(kind, GROWTHS[:1])],
        back_test_sentence(forecaster.back_test()),
        notes(last),
        rows,
        any(row["refused"] for row in rows),
        [(kind, chart) for kind, chart in charts if chart is not None],
    )


def _parts(found: Measurement) -> str:
    whole = found.whole
    clicks = f" and {whole.clicks:,} clicks on {whole.click_images:,}" if whole.clicks else ""
    return f"the largest with {whole.masks:,} masks on {whole.mask_images:,} images{clicks}"


def _chart(forecaster: Forecaster, kind: Kind) -> Markup | None:
    """AP by the number of labels of a kind, with all labels of the other; None where there are none."""
    whole = forecaster.measurement.whole
    present = getattr(whole, kind)
    growths = np.linspace(0.2, FURTHEST, POINTS)
    curve = forecaster.curve(kind, growths) if present else None
    if curve is None:
        return None
    other = "click_share" if kind == "masks" else "mask_share"
    dots = [
        (float(getattr(run, kind)), run.AP, f"{getattr(run, kind):,} {kind}: {run.AP:.1f}")
        for run in forecaster.measurement.runs
        if getattr(run, other) == 1
    ]
    x = Axis.over(kind, [FURTHEST * present])
    y = Axis.over("AP", [*curve.ravel().tolist(), *(ap for _, ap, _ in dots)])
    low, middle, high = curve.tolist()
    title = f"AP by the number of {kind}: trained, and curves with their band"
    return band_chart(x, y, (growths * present).tolist(), (low, middle, high), dots, title)
