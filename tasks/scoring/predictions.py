"""COCO mask AP of predictions in parts, by all processes of the stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.tables import Split
from tasks.common import processes
from tasks.common.config import EvaluateConfig, Params
from tasks.common.ray_parts import Job, map_parts
from tasks.inference.predict import Predictions
from tasks.inference.predict_files import as_results
from tasks.inference.split_parts import SplitPart, without_files
from tasks.scoring.bootstrap import Ranking, rank
from tasks.scoring.coco_eval import MaskScores, check_results, coco_ground_truth, evaluate_masks, scores_of
from tasks.scoring.coco_match import Matches, Rules, accumulate, match


def true_masks(split: Split, rows: Sequence[int] | None = None) -> dict[str, Any]:
    """The ground truth of `evaluate_masks`: objects of a split's usable images, or of those among `rows`."""
    usable = [i for i, status in enumerate(split.images["status"].to_pylist()) if status == "ok"]
    if rows is not None:
        usable = sorted(set(usable) & set(rows))
    images = split.images.select(["image_id", "height", "width"]).take(usable).to_pylist()
    sizes = {row["image_id"]: (row["height"], row["width"]) for row in images}
    instances = split.instances
    if rows is not None:
        instances = pa.concat_tables([instances.slice(0, 0), *map(split.instances_of, usable)])
    return coco_ground_truth(sizes, instances, split.categories)


def true_objects(split: Split) -> dict[int, int]:
    """Objects on a split's usable images by category id, without crowds."""
    usable = np.asarray([status == "ok" for status in split.images["status"].to_pylist()], bool)
    on_usable = np.isin(split.instances["image_id"].to_numpy(), split.images["image_id"].to_numpy()[usable])
    single = on_usable & ~split.instances["iscrowd"].to_numpy()
    ids = split.instances["category_id"].to_numpy()[single]
    return {category.id: int((ids == category.id).sum()) for category in split.categories}


MatchAll = Callable[[Predictions, Split], Iterator[tuple[int, Matches]]]
"""Returns the matches of each part by its number, in any order."""


def score(
    predictions: Predictions, split: Split, config: EvaluateConfig, match_all: MatchAll | None = None
) -> MaskScores | None:
    """Scores of a split's predictions. All processes of the stage call this together; the first gets the result.

    pycocotools matches a part at a time; each process takes some parts, and no masks are kept. faster-coco-eval takes
    everything at once, in the first process.

    Args:
        match_all: matches the parts for pycocotools, in place of the processes of the stage.
    """
    if config.evaluator == "faster_coco_eval":
        with processes.first_alone() as first:
            return _whole(predictions, split, config) if first else None
    parts = matches_of(predictions, split, config, match_all)
    if parts is None:
        return None
    rules = Rules(config.max_detections, config.size_bounds)
    curves = accumulate(parts, len(split.categories), rules)
    return scores_of(curves, split.categories, true_objects(split), rules)


def matches_of(
    predictions: Predictions, split: Split, config: EvaluateConfig, match_all: MatchAll | None = None
) -> list[Matches] | None:
    """pycocotools' matches of a split's predictions, part by part; as for `score`, the first process gets them."""
    for n, found in (match_all or partial(_match_own, config))(predictions, split):
        found.save(_path(predictions, n))
    processes.barrier()  # until all are written
    with processes.first_alone() as first:
        return [Matches.load(_path(predictions, n)) for n in range(len(predictions.rows))] if first else None


def _match_own(
    config: EvaluateConfig, predictions: Predictions, split: Split
) -> Iterator[tuple[int, Matches]]:
    """The parts of this process."""
    for n in range(processes.index(), len(predictions.rows), processes.count()):
        yield n, _match(config, true_masks(split, predictions.rows[n]), predictions.table(n))


def match_on_ray(params: Params, predictions: Predictions, split: Split) -> Iterator[tuple[int, Matches]]:
    """All parts, by workers of a Ray cluster."""
    job = Job("evaluate", params, _load, _match_part, gpu=False)
    return map_parts(
        job,
        ((n, (without_files(split, rows), predictions.table(n))) for n, rows in enumerate(predictions.rows)),
    )


def _load(params: Params, folder: Path) -> EvaluateConfig:
    return params.evaluate


def _match_part(config: EvaluateConfig, part: tuple[SplitPart, pa.Table]) -> Matches:
    images, table = part
    return _match(config, true_masks(images.in_memory()), table)


def _match(config: EvaluateConfig, truth: dict[str, Any], table: pa.Table) -> Matches:
    results = as_results(table)
    check_results(truth, results)
    return match(truth, results, Rules(config.max_detections, config.size_bounds))


def _whole(predictions: Predictions, split: Split, config: EvaluateConfig) -> MaskScores:
    results = [row for n in range(len(predictions.rows)) for row in as_results(predictions.table(n))]
    return evaluate_masks(
        true_masks(split), results, max_detections=config.max_detections, size_bounds=config.size_bounds,
        evaluator=config.evaluator,
    )  # fmt: skip


def _path(predictions: Predictions, n: int) -> Path:
    return predictions.folder / f"matches-{n:05d}.npz"


def ranking_of(table: pa.Table, split: Split, config: EvaluateConfig) -> Ranking:
    """A model's matches for the bootstrap, from all its detections on a split.

    Args:
        table: PREDICTIONS, as evaluation/predictions/student.parquet has them.
    """
    usable = np.asarray([status == "ok" for status in split.images["status"].to_pylist()], bool)
    matches = _match(config, true_masks(split), table)
    return rank([matches], split.images["image_id"].to_numpy()[usable], len(split.categories))
