"""How good forecasts of `points2model budget` are.

python -m bench.budget simulate --projects 500     bands on curves of the families, by the noise of a training
python -m bench.budget recorded                    nuclei's 20% from its 5% and 10% (figures of bench/RESULTS.md)
python -m bench.budget project FOLDER              the back-test of a project after `points2model budget`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tasks.budget.curves import CLICK_WORTH, FAMILIES, Band, NoCurve, Runs, fit, measured_next
from tasks.budget.forecast import CONFIDENCE, Forecaster
from tasks.budget.record import read_budget
from tasks.budget.words import back_test_sentence

MASKS = np.repeat([300.0, 600.0, 1200.0], 2)
CLICKS = np.tile([5000.0, 10000.0], 3)
NUCLEI = {
    "from random weights": [(537, 0, 31.0), (537, 16708, 35.2), (1310, 0, 36.3), (1310, 15935, 36.9),
                            (3449, 0, 36.8), (3449, 13796, 36.9)],
}  # fmt: skip
"""Masks, clicks, AP: 5, 10 and 20% of the images with masks, without clicks and with clicks on all others. Those of 20%
are by images, 80 of 398."""


def simulate(projects: int) -> None:
    """Curves with random ceilings, shapes and worths of a click."""
    print(
        "training's noise   masks x 2: inside  width   clicks x 2: inside  width   back-test inside   error"
    )
    for noise in (0.25, 0.5, 1.0):
        generator = np.random.default_rng(0)
        rows: list[list[float]] = []
        while len(rows) < projects:
            family = int(generator.integers(len(FAMILIES)))
            shape, worth = generator.choice(FAMILIES[family].shapes), generator.choice(CLICK_WORTH)
            high = generator.uniform(10, 50)
            n = MASKS + worth * CLICKS
            at = np.array([*n, 2400 + worth * 1e4, 1200 + worth * 2e4])
            g = FAMILIES[family].falls(at / n.max(), n.max(keepdims=True), np.array([shape]))
            low = generator.uniform(0.5, 1) * high
            ap = high - (high - low) * (g - g[5]) / (g[n.argmin()] - g[5])
            if ap[-2:].max() > 100:
                continue
            covariance = 0.8 + (0.1 + noise**2) * np.eye(6)
            runs = Runs(
                MASKS, CLICKS, ap[:6] + generator.multivariate_normal(np.zeros(6), covariance), covariance
            )
            try:
                rows.append(_row(runs, ap))
            except NoCurve:
                rows.append([0.0, np.nan, 0.0, np.nan, 0.0, np.nan])
        shown = np.nanmean(rows, axis=0)
        print(
            "{:>16}   {:>17.0%}  {:>5.2f}   {:>18.0%}  {:>5.2f}   {:>16.0%}   {:>5.2f}".format(noise, *shown)
        )


def _row(runs: Runs, ap: np.ndarray) -> list[float]:
    at = fit(runs).at(np.array([1200.0, 2400.0, 1200.0]), np.array([1e4, 1e4, 2e4]))
    row = []
    for column in (1, 2):
        band = Band.of(at[:, column] - at[:, 0], CONFIDENCE)
        row += [float(band.low <= ap[5 + column] - ap[5] <= band.high), band.high - band.low]
    known = np.arange(4)
    band = Band.of(measured_next(fit(runs.only(known)), runs, known, np.array([5])), CONFIDENCE)
    return [*row, float(band.low <= runs.ap[5] <= band.high), abs(band.middle - runs.ap[5])]


def recorded() -> None:
    """One seed each; the noise is assumed: 1 AP of val images that all share, and 3% of AP of each training."""
    for name, figures in NUCLEI.items():
        masks, clicks, ap = np.array(figures, np.float64).T
        runs = Runs(masks, clicks, ap, 1.0 + (0.03 * ap.max()) ** 2 * np.eye(len(ap)))
        known = np.arange(4)
        curves = fit(runs.only(known))
        for row, labels in ((4, "masks of 20% alone"), (5, "masks of 20%, clicks on the others")):
            band = Band.of(measured_next(curves, runs, known, np.array([row])), CONFIDENCE)
            print(
                f"nuclei {name}, {labels}: {band.low:.1f} to {band.high:.1f}, middle {band.middle:.1f}; "
                f"measured {ap[row]:.1f}, error {band.middle - ap[row]:+.1f}"
            )


def project(folder: Path) -> None:
    """The back-test, and the trainings."""
    for measurement in read_budget(folder / "registry").measurements:
        for run in measurement.runs:
            print(f"{run.masks:>7,} masks {run.clicks:>8,} clicks  seed {run.seed}: {run.AP:.2f} AP")
        print(back_test_sentence(Forecaster(measurement).back_test()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("simulate").add_argument("--projects", type=int, default=500)
    commands.add_parser("recorded")
    commands.add_parser("project").add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "simulate":
        simulate(arguments.projects)
    elif arguments.command == "recorded":
        recorded()
    else:
        project(arguments.folder)
