"""The report's section on promotion: the student against the model that was promoted before it."""

from __future__ import annotations

from typing import Any

from tasks.promotion.rule import PROMOTABLE, WORDS, Change, Comparison


def promotion_view(comparison: Comparison) -> dict[str, Any]:
    """The values of report.html.j2; `rows` is empty for a first model, which is compared with none."""
    version = comparison.baseline.version
    rows = []
    if version is not None:
        objects = sum(one.objects for one in comparison.classes)
        rows = [_row("all classes", objects, comparison.overall, comparison.ap_tolerance, main=True)]
        rows += [_row(one.name, one.objects, one, comparison.class_tolerance) for one in comparison.classes]
    return {
        "headline": headline(comparison),
        "style": "good"
        if comparison.verdict in PROMOTABLE
        else ""
        if comparison.verdict == "same"
        else "bad",
        # The headline of a first model, or of the same one, says it all.
        "reasons": [] if comparison.verdict in ("first", "same") else comparison.reasons,
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
        return "This student is the first model: it may be promoted."
    if comparison.verdict == "same":
        return f"This student is {version}, which was promoted before: training produced the same bytes."
    may = "may take its place" if comparison.verdict in PROMOTABLE else "does not take its place"
    return f"Against {version}, which was promoted before, this student is {WORDS[comparison.verdict]}: it {may}."


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
