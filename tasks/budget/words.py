"""A forecast in sentences, for the terminal and the report."""

from __future__ import annotations

from tasks.budget.curves import Band
from tasks.budget.forecast import CONFIDENCE, SLIGHT, BackTest, Batch, Came
from tasks.budget.record import Measurement


def batch_sentence(batch: Batch) -> str:
    """`Masks on 10 more images (about 350) cost 7.7 hours and bring between +0.2 and +0.9 AP.`"""
    what = f"{batch.kind.title()} on {batch.images:,} more images (about {batch.labels:,}) cost {hours(batch.hours)}"
    if batch.gain is None:
        return f"{what}; no forecast: {batch.refused}."
    return f"{what} and bring {brings(batch.gain)}."


def brings(gain: Band) -> str:
    """`between +0.2 and +0.9 AP`."""
    if gain.high <= SLIGHT:
        return f"next to nothing, at most {gain.high:+.2f} AP"
    return f"between {gain.low:+.1f} and {gain.high:+.1f} AP"


def hours(value: float) -> str:
    """`2.4 hours`, `25 minutes`."""
    if value >= 1:
        return f"{value:,.1f} hours" if value < 100 else f"{value:,.0f} hours"
    minutes = max(1, round(60 * value))
    return f"{minutes} minute" + "s" * (minutes > 1)


def back_test_sentence(test: BackTest) -> str:
    """What the same method says of the largest training from the smaller ones, and what that one measured."""
    if test.band is None:
        return f"Back-test: not possible: {test.refused}."
    verdict = "inside the band" if test.is_inside else "outside the band: don't rely on the forecast"
    return (
        f"Back-test: the trainings with at most half of the masks (the largest has {test.before:.1f} AP) forecast "
        f"{test.band.low:.1f} to {test.band.high:.1f} for all data, in the middle {test.band.middle:.1f}; measured was "
        f"{test.measured:.1f}, {verdict} (the middle is off by {test.error:+.1f})."
    )


def came_sentence(found: Came) -> str:
    """An earlier forecast beside what came."""
    labels = " and ".join(
        f"{number:,} more {kind}"
        for kind, number in (("masks", found.masks), ("clicks", found.clicks))
        if number
    )
    what = f"On {found.made}, {labels} had no forecast ({found.refused})"
    if found.forecast is not None:
        what = f"On {found.made} the forecast for {labels} was {brings(found.forecast)}"
    return f"{what}; what came is {found.came:+.1f}: {found.before:.1f} before, {found.after:.1f} now."


def notes(measurement: Measurement) -> list[str]:
    """How far to trust it."""
    spread, is_measured = measurement.spread()
    chance = (
        f"AP differs between seeds with a standard deviation of {spread:.2f}"
        if is_measured
        else f"one seed was trained, so a standard deviation of {spread:.2f} AP between seeds is assumed (3% of AP); "
        "--seeds 2 measures it"
    )
    return [
        f"A band holds {100 * CONFIDENCE:.0f}% of the curves that explain the trainings, of three families; {chance}.",
        f"Trainings had {measurement.steps['student']:,} steps, so their AP is below that of a full run, whose gain "
        "can differ from theirs.",
        f"Seconds a mask: {measurement.mask.seconds:g} ({measurement.mask.source}); a click: "
        f"{measurement.click.seconds:g} ({measurement.click.source}).",
    ]
