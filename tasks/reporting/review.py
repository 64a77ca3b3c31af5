"""The report's section on the decisions of reviewers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tasks.reporting.figures import count

WORDS = {
    "accept": "masks accepted",
    "mask": "masks drawn",
    "reject": "objects rejected",
    "clicks": "clicks changed",
    "class": "classes changed",
    "add": "objects added",
    "complete": "images complete",
}
"""Of the actions, in the order of the table's columns."""
SHOWN = 20
"""Decisions that aren't honoured, in the list."""


class AuditView(NamedTuple):
    """The estimate of a random sample, for report.html.j2."""

    sentence: str
    notes: list[str]
    rows: list[dict[str, Any]]
    """label, main, precision, low, high (percent or None), judged, sampled"""


def audit_view(audit: Mapping[str, Any] | None) -> AuditView | None:
    """
    Args:
        audit: of metrics.json (tasks/review/estimate.py); None: there is no sample.
    """
    if audit is None:
        return None
    right = "none was judged yet"
    if audit["precision"] is not None:
        right = f"{audit['precision']:.1f}% of the pseudo masks are right ({audit['low']:.1f} to {audit['high']:.1f}%)"
    drawn = f"{audit['judged']:,} of {count(audit['sampled'], 'mask')} of a random sample were judged"
    notes = []
    wrong = [f"{name} {number:,}" for name, number in audit["wrong"].items() if number]
    notes += [f"Wrong: {', '.join(wrong)}."] if wrong else []
    notes += [f"Reviewers disagree on {count(audit['disagreed'], 'mask')}, which don't count."] * bool(
        audit["disagreed"]
    )
    notes += [
        f"Of {count(audit['other_mask'], 'object')} another mask was accepted, which doesn't count."
    ] * bool(audit["other_mask"])
    notes += [
        f"{audit['changed']:,} of {audit['sampled']:,} sampled masks have changed since they were drawn: the "
        "estimate is of the former ones. Draw another sample with points2model review --audit N --redraw."
    ] * bool(audit["changed"])
    rows = [{"label": "all", "main": True, **audit}]
    rows += [{"label": name, "main": False, **own} for name, own in audit["by_class"].items()]
    return AuditView(f"{right[0].upper()}{right[1:]}: {drawn}.", notes, rows)


class ReviewView(NamedTuple):
    """The values of report.html.j2."""

    sentence: str
    columns: list[str]
    rows: list[dict[str, Any]]
    """label, main, counts: all reviewers, then each"""
    open: list[dict[str, Any]]
    """decisions that aren't honoured"""
    more: int
    """as many more aren't listed"""


def review_view(review: Mapping[str, Any] | None) -> ReviewView | None:
    """
    Args:
        review: of the manifest of stage import_points (tasks/intake/decisions.py, `summary`); None: no decisions.
    """
    if review is None:
        return None
    states, actions = review["states"], review["actions"]
    honoured = sum(actions.values())
    later = states.get("superseded", 0) + states.get("undone", 0)
    objects = review["objects_contradicted"]
    other = review["decisions"] - honoured - later - states.get("contradicted", 0)
    parts = [f"Honoured: {honoured:,} of {count(review['decisions'], 'decision')}"]
    parts += (
        [f"{later:,} {'was' if later == 1 else 'were'} undone or followed by a later one"] if later else []
    )
    parts += [f"reviewers contradict each other on {count(objects, 'object')}"] if objects else []
    parts += [f"{other:,} can't be honoured"] if other else []
    columns = [action for action in WORDS if actions.get(action)]
    rows = [{"label": "all", "main": True, "counts": [actions[action] for action in columns]}]
    rows += [
        {"label": name, "main": False, "counts": [own.get(action, 0) for action in columns]}
        for name, own in review["reviewers"].items()
    ]
    listed = [*review["contradicted"], *review["not_honoured"]]
    more = states.get("contradicted", 0) + other - len(listed[:SHOWN])
    return ReviewView(
        "; ".join(parts) + ".", [WORDS[action] for action in columns], rows, listed[:SHOWN], max(0, more)
    )
