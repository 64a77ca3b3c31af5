"""What more labels cost and what they bring, as bands; the back-test; and where no forecast is made, and why."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.budget.curves import LEAST_RUNS, Band, Curves, NoCurve, fit, measured_next
from tasks.budget.record import Measurement

Kind = Literal["masks", "clicks"]
CONFIDENCE = 0.8
"""Of all bands."""
FURTHEST = 2.0
"""Times the present labels. Beyond, curves that fit equally well part from each other."""
SLIGHT = 0.25
"""AP: a gain below this isn't told from nothing, and a band below it is no refusal."""
GROWTHS = (0.25, 0.5, 1.0)
"""Batches of the table, as shares of the present images."""
LEAST_AP = 1.0
"""Of the best training: below, nothing was learnt that a curve could be drawn through."""
FALLS = "AP falls as labels are added, which no learning curve does: the trainings are too short, or too few seeds"


class Batch(NamedTuple):
    """More images with masks, or with clicks, and what they cost and bring.

    Attributes:
        images, labels: more of them; labels by the present number on an image.
        hours: of a person's work.
        gain: in AP points; None where there is no forecast.
        refused: why there is none.
    """

    kind: Kind
    images: int
    labels: int
    hours: float
    gain: Band | None
    refused: str | None

    @property
    def per_hour(self) -> Band | None:
        """AP points an hour."""
        return None if self.gain is None else Band(*(value / max(self.hours, 1e-9) for value in self.gain))


class BackTest(NamedTuple):
    """The largest training as forecast from those with at most half of the masks, and as measured.

    Attributes:
        band: AP that it was forecast to measure; None: the smaller ones allow no forecast (`refused`).
        measured: its AP, a mean over seeds.
        before: AP of the largest of the smaller ones.
    """

    band: Band | None
    measured: float
    before: float
    refused: str | None

    @property
    def error(self) -> float | None:
        """AP points by which the middle of the band was too high."""
        return None if self.band is None else self.band.middle - self.measured

    @property
    def is_inside(self) -> bool:
        return self.band is not None and self.band.low <= self.measured <= self.band.high


class Forecaster:
    """Forecasts from one measurement."""

    def __init__(self, measurement: Measurement) -> None:
        self.measurement = measurement
        self.runs = measurement.trainings()
        self.curves: Curves | None = None
        self.refused: str | None = None
        best = max(run.AP for run in measurement.runs)
        if best < LEAST_AP:
            self.refused = (
                f"the best training has {best:.1f} AP, so nothing was learnt yet; train longer (--steps)"
            )
            return
        try:
            self.curves = fit(self.runs)
        except NoCurve:
            self.refused = FALLS

    def batches(self, kind: Kind, growths: tuple[float, ...] = GROWTHS) -> list[Batch]:
        """The batches of the table; none where the project has no label of the kind."""
        present = self._images(kind)
        return [self.batch(kind, max(1, round(growth * present))) for growth in growths] if present else []

    def batch(self, kind: Kind, images: int) -> Batch:
        """What `images` more with labels of this kind cost and bring."""
        whole, present = self.measurement.whole, self._images(kind)
        each = getattr(whole, kind) / max(1, present)
        cost = self.measurement.mask if kind == "masks" else self.measurement.click
        labels = round(each * images)
        hours = labels * cost.seconds / 3600
        gain, refused = None, None
        if not present:
            refused = (
                f"there are no {kind} yet, so nothing was measured that more of them could be forecast from"
            )
        elif present + images > FURTHEST * present:
            refused = (
                f"more than twice the present {present:,} images: beyond, nothing that was measured tells the curves "
                f"apart. Label at most {present:,} more, and measure again"
            )
        else:
            more = {"masks": whole.masks, "clicks": whole.clicks}
            more[kind] += labels
            gain, refused = self.gain(**more)
        return Batch(kind, images, labels, hours, gain, refused)

    def gain(self, masks: float, clicks: float) -> tuple[Band | None, str | None]:
        """AP points with these labels above the present ones; or why there is no forecast."""
        if self.curves is None:
            return None, self.refused
        whole = self.measurement.whole
        if masks > FURTHEST * whole.masks or clicks > FURTHEST * whole.clicks:
            return None, "more than twice the labels that were measured"
        at = self.curves.at(np.array([whole.masks, masks]), np.array([whole.clicks, clicks], np.float64))
        band = Band.of(at[:, 1] - at[:, 0], CONFIDENCE)
        if (band.high - band.low) / 2 > band.middle and band.high > SLIGHT:
            return None, (
                f"the band is wider than the gain: {band.low:+.1f} to {band.high:+.1f} AP around {band.middle:+.1f}. "
                "More steps, more seeds or more validation images make it narrower"
            )
        return band, None

    def curve(self, kind: Kind, growths: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """AP [3, growths]: low, middle and high of the curve at these multiples of the present labels of a kind."""
        if self.curves is None:
            return None
        whole = self.measurement.whole
        masks, clicks = (np.full(len(growths), float(one)) for one in (whole.masks, whole.clicks))
        if kind == "masks":
            masks = masks * growths
        else:
            clicks = clicks * growths
        tail = (1 - CONFIDENCE) / 2
        found: NDArray[np.float64] = np.quantile(self.curves.at(masks, clicks), [tail, 0.5, 1 - tail], axis=0)
        return found

    def back_test(self) -> BackTest:
        """The largest training from those with at most half of the masks."""
        runs = self.measurement.runs
        known = np.array([n for n, run in enumerate(runs) if run.mask_share <= 0.5], np.int64)
        rows = [n for n, run in enumerate(runs) if run.mask_share == 1 and run.click_share == 1]
        measured = float(np.mean([runs[n].AP for n in rows]))
        before = float(np.mean([run.AP for run in runs if run.mask_share == 0.5 and run.click_share == 1]))
        if self.refused is not None and self.refused != FALLS:
            return BackTest(None, measured, before, self.refused)
        if len(known) < LEAST_RUNS:
            return BackTest(None, measured, before, f"{len(known)} smaller trainings are too few for a curve")
        try:
            curves = fit(self.runs.only(known))
        except NoCurve:
            return BackTest(None, measured, before, FALLS)
        values = measured_next(curves, self.runs, known, np.array(rows), rows[0])
        return BackTest(Band.of(values, CONFIDENCE), measured, before, None)

    def _images(self, kind: Kind) -> int:
        whole = self.measurement.whole
        return whole.mask_images if kind == "masks" else whole.click_images


class Came(NamedTuple):
    """An earlier forecast at the labels that there are now, beside what came.

    Attributes:
        masks, clicks: more of them since.
        forecast: AP points; None where there was none (`refused`).
        came: AP points, full trainings before and after; None if the first one isn't known.
    """

    made: str
    masks: int
    clicks: int
    forecast: Band | None
    refused: str | None
    before: float
    after: float

    @property
    def came(self) -> float:
        return self.after - self.before


def came(measurement: Measurement, masks: int, clicks: int, ap: float | None, val: str) -> Came | None:
    """What came of a forecast; None while labels and val images aren't more, or nothing can be compared.

    Args:
        measurement: an earlier one.
        masks, clicks: labels now.
        ap: of the project's student now.
        val: a hash of the val images now.
    """
    whole, finished = measurement.whole, measurement.finished
    grown = masks >= whole.masks and clicks >= whole.clicks and (masks, clicks) != (whole.masks, whole.clicks)
    if not grown or finished is None or ap is None or val != measurement.val:
        return None
    band, refused = Forecaster(measurement).gain(masks, clicks)
    return Came(measurement.made, masks - whole.masks, clicks - whole.clicks, band, refused, finished.AP, ap)
