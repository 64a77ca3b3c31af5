"""registry/budget.json: what trainings on parts of the data measured; forecasts are computed from it, now and later.

Git has the file, so that a later report can put what came beside what was forecast.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.budget.curves import Runs
from tasks.common.errors import TaskError
from tasks.common.stage_main import write_json
from tasks.promotion.baseline import Record, read_record

FILE = "budget.json"
EMPTY = '{"measurements": []}\n'
ASSUMED_SPREAD = 0.03
"""Standard deviation of AP between seeds as a share of AP, where one seed was trained: on nuclei differences below 1 of
45 AP, and on facade below 0.5 of 11, were noise (bench/RESULTS.md)."""


class Run(Record):
    """A training on a part of the data."""

    mask_share: float
    click_share: float
    seed: int
    mask_images: int
    masks: int
    click_images: int
    clicks: int
    AP: float


class Cost(Record):
    """Seconds of work for a label."""

    seconds: float
    source: str


class Finished(Record):
    """The project's own student when parts were measured: trained in full on these labels."""

    AP: float
    model: str


class Measurement(Record):
    """All trainings on parts of the data as it was on a day."""

    made: str
    """date, UTC"""
    val: str
    """a hash of val images and masks: AP on others isn't comparable"""
    val_images: int
    steps: dict[str, int]
    """by network"""
    runs: list[Run]
    covariance: list[list[float]]
    """of the AP of `runs`, over draws of the val images"""
    mask: Cost
    click: Cost
    finished: Finished | None

    @property
    def whole(self) -> Run:
        """A training on all data."""
        return next(run for run in self.runs if run.mask_share == 1 and run.click_share == 1)

    def spread(self) -> tuple[float, bool]:
        """Standard deviation of AP between seeds, and whether it was measured."""
        groups: dict[tuple[float, float], list[float]] = {}
        for run in self.runs:
            groups.setdefault((run.mask_share, run.click_share), []).append(run.AP)
        freedom = sum(len(group) - 1 for group in groups.values())
        if not freedom:
            return ASSUMED_SPREAD * max(run.AP for run in self.runs), False
        squares = sum(float(np.var(group)) * len(group) for group in groups.values())
        return (squares / freedom) ** 0.5, True

    def trainings(self) -> Runs:
        """For the curves."""
        columns = ([getattr(run, name) for run in self.runs] for name in ("masks", "clicks", "AP"))
        masks, clicks, ap = (np.array(column, np.float64) for column in columns)
        noise = max(self.spread()[0], 0.01) ** 2 * np.eye(len(ap))
        return Runs(masks, clicks, ap, np.array(self.covariance) + noise)


class Budget(Record):
    """The file: the latest measurement comes last."""

    measurements: list[Measurement]


def read_budget(registry: Path) -> Budget:
    """An empty one where nothing was measured.

    Raises:
        TaskError: the file is damaged.
    """
    path = registry / FILE
    return read_record(path, Budget) if path.is_file() else Budget(measurements=[])


def add_measurement(registry: Path, found: Measurement) -> Budget:
    """Appends; takes the place of the last one if that is of the same labels.

    Raises:
        TaskError: the file is damaged.
    """
    before = read_budget(registry).measurements
    kept = before[:-1] if before and _labels(before[-1]) == _labels(found) else before
    budget = Budget(measurements=[*kept, found])
    if not registry.is_dir():
        raise TaskError(f"{registry}: no such folder; run in the project's folder")
    write_json(registry / FILE, budget.model_dump(mode="json"))
    return budget


def _labels(found: Measurement) -> tuple[int, int, str]:
    return found.whole.masks, found.whole.clicks, found.val
