"""The report's section on promotion: the student against the model that was promoted before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.common.errors import TaskError
from tasks.promotion.registry import Registry
from tasks.promotion.rule import PROMOTABLE, WORDS, Change, Comparison


def promotion_view(comparison: Comparison, registry: Path) -> dict[str, Any]:
    """The values of report.html.j2; `rows` is empty for a first model, which is compared with none."""
    version = comparison.baseline.version
    rows = []
    if version is not None:
        objects = sum(one.objects for one in comparison.classes)
        rows = [_row("all classes", objects, comparison.overall, comparison.ap_tolerance, main=True)]
        rows += [_row(one.name, one.objects, one, comparison.class_tolerance) for one in comparison.classes]
    return {
        "headline": headline(comparison),
        "decision": "" if comparison.verdict == "same" else decision(registry, comparison.model),
        "style": "good"
        if comparison.verdict in PROMOTABLE
        else ""
        if comparison.verdict == "same"
        else "bad",
        # The headline of a first model, or of the same one, says what the first reason does.
        "reasons": comparison.reasons[comparison.verdict in ("first", "same") :],
        "means": comparison.trainings is not None,
        "rows": rows,
        "version": version,
        "images": comparison.images,
        "draws": comparison.draws,
        "percent": 100 * comparison.confidence,
        "ap_tolerance": comparison.ap_tolerance,
        "class_tolerance": comparison.class_tolerance,
    }


def headline(comparison: Comparison) -> str:
    """The verdict in a sentence."""
    version = comparison.baseline.version
    if comparison.verdict == "first":
        return "This student was the first model, so it could be promoted."
    if comparison.verdict == "behind_teacher":
        return "This student was the first model, and worse than its own teacher: it could not be promoted."
    if comparison.verdict == "same":
        return f"This student was {version}, which was promoted before: training produced the same bytes."
    could = "could" if comparison.verdict in PROMOTABLE else "could not"
    verdict = WORDS[comparison.verdict]
    return f"Against {version}, promoted before, this student was {verdict}: it {could} take its place."


def decision(registry: Path, model: str) -> str:
    """What became of a student, as far as the registry has it: a run decides after it has written the report."""
    try:
        entry = Registry(registry).entry_of(model)
    except TaskError:
        entry = None
    if entry is None:
        return "points2model models shows whether it was promoted; a run decides that after this report."
    return f"It was {entry.decision} as {entry.version} on {entry.when[:10]}."


def _row(label: str, objects: int, change: Change, tolerance: float, main: bool = False) -> dict[str, Any]:
    known = change.low is not None and change.high is not None
    interval = f"{change.low:+.1f} to {change.high:+.1f}".replace("-", "−") if known else "–"
    return {
        "label": label,
        "objects": objects,
        "baseline": change.baseline,
        "candidate": change.candidate,
        "interval": interval,
        "broken": f"falls by more than {tolerance:g}" if change.broken else "",
        "main": main,
    }
