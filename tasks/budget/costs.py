"""Seconds of a person's work for a label: from the times of reviewers' decisions, else from the literature."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from data.decisions.record import Decision
from tasks.budget.record import Cost

MASK = Cost(seconds=79.2, source="COCO's annotators (Lin et al., ECCV 2014)")
CLICK = Cost(seconds=2.4, source="Bearman et al., ECCV 2016")
ENOUGH = 10
"""Decisions of a kind from which their times are used."""
PAUSE = 600.0
"""Seconds: a longer time before a decision was a pause, not work."""
DRAWN = ("polygon", "brush")


def costs(
    decisions: Sequence[Decision], mask_seconds: float | None = None, click_seconds: float | None = None
) -> tuple[Cost, Cost]:
    """Of a mask and of a click.

    Args:
        decisions: of all reviewers, each one's in the order of time.
        mask_seconds, click_seconds: as a person gives them.
    """
    given = "as given"
    mask = Cost(seconds=mask_seconds, source=given) if mask_seconds is not None else None
    click = Cost(seconds=click_seconds, source=given) if click_seconds is not None else None
    return (
        mask
        or _measured([one for one in decisions if one.imported is None], "masks drawn", _is_drawn)
        or MASK,
        click
        or _measured([one for one in decisions if one.imported is None], "clicks set", _is_clicked)
        or CLICK,
    )


def _is_drawn(one: Decision) -> bool:
    return one.mask is not None and one.source in DRAWN


def _is_clicked(one: Decision) -> bool:
    return one.action == "clicks" or (one.action == "add" and one.mask is None)


def _measured(decisions, what, counts) -> Cost | None:  # type: ignore[no-untyped-def]
    """The median time since the reviewer's decision before; None with fewer than ENOUGH such times."""
    times = []
    for _, own in itertools.groupby(
        sorted(decisions, key=lambda one: one.reviewer), key=lambda one: one.reviewer
    ):
        for before, one in itertools.pairwise(own):
            seconds = (one.moment - before.moment).total_seconds()
            if counts(one) and 0 < seconds <= PAUSE:
                times.append(seconds)
    if len(times) < ENOUGH:
        return None
    return Cost(
        seconds=round(statistics.median(times), 1), source=f"median of {len(times):,} {what} in review"
    )
