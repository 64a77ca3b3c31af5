"""How pages and tables write figures, and metrics.json as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rich.table import Table

from tasks.scoring.metrics import KINDS, MODEL_METRICS, PSEUDO_METRICS, Metric

Metrics = Mapping[str, Mapping[str, float | None]]


class Cells(NamedTuple):
    """A metric's figures before and after, and their difference, as written; "" where metrics.json has none."""

    metric: Metric
    before: str
    after: str
    difference: str


def figure(value: float | None) -> str:
    """One decimal; a dash if there is no figure."""
    return "–" if value is None else f"{value:.1f}"


def difference(before: float | None, after: float | None) -> str:
    """`after` less `before`, signed, of the figures as shown, so that columns add up; a dash without both."""
    if before is None or after is None:
        return "–"
    change = round(after, 1) - round(before, 1)
    return f"{change:+.1f}".replace("-", "−") if round(change, 1) else "0.0"


def count(n: int, thing: str) -> str:
    """`1 image`, `1,200 images`, `4 classes`."""
    return f"{n:,} {thing}" + ("" if n == 1 else "es" if thing.endswith("s") else "s")


def model_cells(metrics: Metrics) -> list[Cells]:
    """Teacher and student of metrics.json, a row a metric; metrics that an older file lacks are left out."""
    rows = [(metric, metrics["teacher"], metrics["student"]) for metric in MODEL_METRICS]
    return [
        Cells(metric, figure(a[metric.key]), figure(b[metric.key]), difference(a[metric.key], b[metric.key]))
        for metric, a, b in rows
        if metric.key in a and metric.key in b
    ]


def pseudo_cells(metrics: Metrics) -> list[Cells]:
    """Rough and refined masks of metrics.json, a row a metric."""
    rows = []
    for metric in PSEUDO_METRICS:
        values = {kind: metrics["pseudo"][f"{kind}_{metric.key}"] for kind in metric.tracked}
        before, after = (figure(values[kind]) if kind in values else "" for kind in KINDS)
        change = difference(values["rough"], values["refined"]) if len(values) == len(KINDS) else ""
        rows.append(Cells(metric, before, after, change))
    return rows


def summary_table(metrics: Metrics) -> Table:
    """metrics.json for the terminal: AP of teacher and student, below it pseudo masks rough and refined."""
    table = Table(title="Mask AP on the validation images, in percent", title_justify="left")
    table.add_column("")
    for name in ("teacher", "student", "difference"):
        table.add_column(name, justify="right")
    for n, (metric, *cells) in enumerate(model_cells(metrics)):
        table.add_row(metric.label, *cells, style=None if n else "bold")
    table.add_section()
    table.add_row("Pseudo masks", *KINDS, "difference", style="dim")
    for n, (metric, *cells) in enumerate(pseudo_cells(metrics)):
        table.add_row(metric.label, *cells, style=None if n else "bold")
    pseudo = metrics["pseudo"]
    table.caption = f"{pseudo['masks']:,} of {pseudo['points']:,} points became masks"
    table.caption_justify = "left"
    return table
