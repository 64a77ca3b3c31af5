"""A measurement from finished trainings on parts: AP of each student, and the noise of the choice of val images."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from data.tables import PREDICTIONS, read_parquet
from tasks.budget.parts import TRAININGS, Data, Part, val_hash
from tasks.budget.record import Cost, Finished, Measurement, Run
from tasks.common.config import Params
from tasks.common.stage_main import read_json
from tasks.promotion.baseline import folder_hash
from tasks.scoring.bootstrap import sampled_ap
from tasks.scoring.predictions import ranking_of


def measure(
    data: Data, folders: Mapping[Part, Path], params: Params, costs: tuple[Cost, Cost], whole: Path | None
) -> Measurement:
    """
    Args:
        folders: by part, the workspace with its evaluation.
        params: of the trainings on parts.
        costs: of a mask and of a click.
        whole: the project's own workspace, if its student was trained on these labels.

    Raises:
        DataError: predictions of a part are missing.
    """
    rankings = []
    for folder in folders.values():
        found = read_parquet(folder / "evaluation" / "predictions" / "student.parquet", PREDICTIONS)
        rankings.append(ranking_of(found, data.val, params.evaluate))
    usable = sum(status == "ok" for status in data.val.images["status"].to_pylist())
    sampled = sampled_ap(rankings, usable, max(200, params.promotion.bootstrap), params.seed)
    draws = sampled[1:][~np.isnan(sampled[1:]).any(1)]
    covariance = (
        np.atleast_2d(np.cov(draws, rowvar=False)) if len(draws) > 1 else np.zeros((len(folders),) * 2)
    )
    runs = [
        Run(
            mask_share=part.masks, click_share=part.clicks, seed=part.seed, AP=round(float(ap), 4),
            **data.counts(part)._asdict(),
        )
        for part, ap in zip(folders, np.nan_to_num(sampled[0]), strict=True)
    ]  # fmt: skip
    return Measurement(
        made=datetime.now(UTC).date().isoformat(),
        val=val_hash(data.val),
        val_images=usable,
        steps={name: getattr(params, name).steps for name in TRAININGS},
        runs=runs,
        covariance=[[round(float(value), 6) for value in row] for row in covariance],
        mask=costs[0],
        click=costs[1],
        finished=None if whole is None else finished(whole),
    )


def finished(workspace: Path) -> Finished | None:
    """The project's student; None if its AP is undefined."""
    ap = read_json(workspace / "evaluation" / "metrics.json", "evaluate")["student"]["AP"]
    return None if ap is None else Finished(AP=ap, model=folder_hash(workspace / "student"))
