"""Seconds of a label from the times of decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from data.decisions.record import Decision, Mask
from tasks.budget.costs import CLICK, ENOUGH, MASK, costs

START = datetime(2026, 11, 29, 9, 0, tzinfo=UTC)
DRAWN: dict[str, Any] = {"action": "mask", "mask": Mask(1, 1, b"01"), "source": "polygon"}


def decisions(gaps: list[float], reviewer: str = "anna", **fields: Any) -> list[Decision]:
    """An acceptance, and decisions each so many seconds after the one before."""
    found, moment = [], START
    for n, gap in enumerate([0.0, *gaps]):
        moment += timedelta(seconds=gap)
        own = fields if n else {"action": "accept"}
        time = moment.isoformat(timespec="milliseconds")
        found.append(Decision(id=f"{reviewer}{n}", time=time, reviewer=reviewer, object="o", **own))
    return found


def test_without_a_review_the_costs_are_the_literatures() -> None:
    assert costs([]) == (MASK, CLICK)
    assert (MASK.seconds, CLICK.seconds) == (79.2, 2.4)


def test_given_costs_win() -> None:
    mask, click = costs(decisions([20.0] * ENOUGH, **DRAWN), 30.0, 1.5)
    assert ((mask.seconds, mask.source), click.seconds) == ((30.0, "as given"), 1.5)


def test_the_median_of_drawn_masks_without_pauses() -> None:
    mask, click = costs(decisions([31.0, *[20.0] * (ENOUGH - 1), 4000.0], **DRAWN))
    assert (mask.seconds, click) == (20.0, CLICK)
    assert mask.source == f"median of {ENOUGH} masks drawn in review"
    assert costs(decisions([20.0] * (ENOUGH - 1), **DRAWN))[0] == MASK  # too few


def test_a_reviewers_time_counts_from_their_own_decision_before() -> None:
    both = [*decisions([40.0] * 5, "anna", **DRAWN), *decisions([50.0] * 6, "bob", **DRAWN)]
    both.sort(key=lambda one: one.time)
    assert costs(both)[0].seconds == 50.0


def test_imported_masks_took_no_time_here() -> None:
    assert costs(decisions([0.5] * 20, **DRAWN, imported="f"))[0] == MASK
    assert costs(decisions([0.5] * 20, **DRAWN | {"source": "click"}))[0] == MASK


def test_clicks() -> None:
    _, click = costs(decisions([3.0] * ENOUGH, action="clicks", point=(1.0, 1.0)))
    assert click.seconds == 3.0
