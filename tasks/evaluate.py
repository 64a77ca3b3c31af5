"""Scores student and teacher on the val split, and pseudo masks against true masks that were kept aside.

workspace/evaluation:
  metrics.json            metrics to compare runs by, for DVC; percent, null if undefined; and min_score, 0 to 1: the
                          score from which on each model's detections have the best F1; audit, if there is a random
                          sample of pseudo masks
  details.json            all metrics, by class and by size, how many points matched, the hashes of the models
  predictions/            {student,teacher}.json, COCO results, and .parquet, the same as a table
  plots/                  precision_recall.csv, class_ap.csv, pseudo_iou.csv, for `dvc plots show`
  pseudo_quality.parquet  a row for each point whose image has kept-aside masks
  manifest.json
"""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from data.decisions.store import AUDIT
from data.storage import atomic_dir, discard_partials
from data.tables import PSEUDO, Split, read_parquet, write_parquet
from data.text import safe_cell
from models.checkpoint import load_detector
from tasks.common import processes
from tasks.common.config import Params
from tasks.common.device import hardware, set_up
from tasks.common.errors import TaskError
from tasks.common.ray_parts import worker_hardware
from tasks.common.stage_main import fingerprint, read_json, run_folder, stage_main, write_json, write_manifest
from tasks.inference.on_ray import ray_finder
from tasks.inference.predict import Finder, Predictions
from tasks.inference.predict_files import write_predictions
from tasks.promotion.baseline import folder_hash
from tasks.review.audit import present_masks
from tasks.review.estimate import estimate
from tasks.scoring.coco_eval import MaskScores
from tasks.scoring.coco_faster import check_installed
from tasks.scoring.metrics import AP, IOU, KINDS, MODEL_METRICS
from tasks.scoring.outcomes import Chosen, choose_min_score, outcomes
from tasks.scoring.predictions import match_on_ray, score, true_objects
from tasks.scoring.pseudo import PseudoScores, score_pseudo

log = logging.getLogger(__name__)

MODELS = ("teacher", "student")
IOU_BINS = 20
QUALITY_PARTS = "quality"


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/evaluation, all of it or nothing.

    A run that was killed continues after its last finished part of predictions. With several processes, each predicts
    and matches some parts; the first one does the rest and writes. Workers of `runtime.ray` predict and match.

    Raises:
        TaskError: an image can't be read, or a checkpoint is of other classes than the val split.
    """
    device = set_up(params.runtime, params.threads)
    if params.evaluate.evaluator == "faster_coco_eval":
        check_installed()
    val = Split.open(workspace / "dataset" / "val")
    on_ray = params.runtime.ray is not None
    machine = worker_hardware("evaluate", params) if on_ray else hardware(device)
    finders = {name: _finder(name, params, workspace, val, device) for name in MODELS}
    predictions: dict[str, Predictions] = {}
    scores: dict[str, MaskScores] = {}
    for name, finder in finders.items():
        predictions[name] = Predictions.plan(
            _scratch(name, params, workspace, val, machine), val, params.evaluate.part_images
        )
        find = ray_finder(name, params, workspace, val).find if on_ray else None
        predictions[name].make(finder, find)
        on_cluster = partial(match_on_ray, params) if on_ray else None
        found = score(predictions[name], val, params.evaluate, on_cluster)
        if found is not None:
            scores[name] = found
            log.info("evaluate: %s: AP %s on %d images", name, _shown(found.summary[AP.key]), len(val))
    kept_aside = Split.open(workspace / "dataset" / "kept_aside")
    pseudo = score_pseudo(
        workspace / "pseudo", workspace / "points" / "points.parquet", kept_aside, params.evaluate.size_bounds,
        run_folder(workspace, "evaluate") / QUALITY_PARTS,
    )  # fmt: skip
    with processes.first_alone():
        if pseudo is not None:
            _write(params, workspace, val, kept_aside, predictions, scores, pseudo)


def _write(
    params: Params,
    workspace: Path,
    val: Split,
    kept_aside: Split,
    predictions: Mapping[str, Predictions],
    scores: Mapping[str, MaskScores],
    pseudo: PseudoScores,
) -> None:
    """Writes all outputs and removes scratch files."""
    tracked = [metric.key for metric in MODEL_METRICS if metric.tracked]
    chosen = {name: _chosen(name, predictions[name], val, params) for name in MODELS}
    metrics: dict[str, Any] = {
        name: {key: scores[name].summary[key] for key in tracked} | chosen[name]._asdict() for name in MODELS
    }
    metrics["pseudo"] = pseudo.metrics()
    audit = workspace / "points" / AUDIT
    if audit.is_file():
        parts = sorted((workspace / "pseudo").glob("part-*.parquet"))
        present = present_masks((read_parquet(part, PSEUDO) for part in parts), val.categories)
        metrics["audit"] = estimate(read_json(audit, "import_points"), present)
    details = {name: _details(scores[name]) | {"model": folder_hash(workspace / name)} for name in MODELS} | {
        "pseudo": pseudo.details([category.name for category in kept_aside.categories]),
        "size_bounds": list(params.evaluate.size_bounds),
        "max_detections": params.evaluate.max_detections,
    }
    discard_partials(workspace, "evaluation")
    with atomic_dir(workspace / "evaluation") as folder:
        write_json(folder / "metrics.json", metrics)
        write_json(folder / "details.json", details)
        detections = {
            f"{name}_detections": write_predictions(predictions[name], folder / "predictions", name)
            for name in MODELS
        }
        write_parquet(pseudo.quality, folder / "pseudo_quality.parquet")
        write_plots(folder / "plots", scores, pseudo.quality)
        counts = {
            "val_images": len(val),
            "val_instances": sum(true_objects(val).values()),
            "points_measured": len(pseudo.quality),
            **detections,
        }
        write_manifest(folder, "evaluate", counts)
    scratch = run_folder(workspace, "evaluate")
    for folder in (*scratch.glob("predictions-*"), scratch / QUALITY_PARTS):
        shutil.rmtree(folder, ignore_errors=True)
    _log_quality(pseudo)


def _chosen(name: str, predictions: Predictions, val: Split, params: Params) -> Chosen:
    """The threshold of a model's scores; its predictions are read part by part."""
    limit = params.evaluate.max_detections
    parts = (outcomes(predictions.table(n), val, rows, limit) for n, rows in enumerate(predictions.rows))
    chosen = choose_min_score(chain.from_iterable(parts))
    if chosen.min_score is not None:
        log.info(
            "evaluate: %s: best F1 %s, at scores from %.2f on", name, _shown(chosen.F1), chosen.min_score
        )
    return chosen


def _log_quality(pseudo: PseudoScores) -> None:
    if not len(pseudo.quality):
        log.info("evaluate: no masks of weak images were kept aside, so pseudo masks are not measured")
        return
    rough, refined = (_shown(pseudo.metrics()[f"{kind}_{IOU.key}"]) for kind in KINDS)
    log.info(
        "evaluate: pseudo masks of %d points: mean IoU rough %s, refined %s",
        len(pseudo.quality),
        rough,
        refined,
    )


def write_plots(folder: Path, scores: Mapping[str, MaskScores], quality: pa.Table) -> None:
    """The CSV files that `plots:` in dvc.yaml names."""
    recall = scores[MODELS[0]].recall
    curves = [scores[name].precision[50] for name in MODELS]
    _write_csv(
        folder / "precision_recall.csv",
        ["recall", *MODELS],
        ([round(r, 2), *_at(curves, i)] for i, r in enumerate(recall.tolist())),
    )
    # A row for each bar: DVC's bar template adds up rows of one label. Sorted, so that a class's bars are neighbours.
    bars = [(row.name, name, row.AP) for name in MODELS for row in scores[name].per_class]
    _write_csv(
        folder / "class_ap.csv",
        ["class", "AP"],
        ([f"{label} ({name})", _cell(ap)] for label, name, ap in sorted(bars, key=lambda bar: bar[:2])),
    )
    edges = np.linspace(0, 1, IOU_BINS + 1)
    counts = [np.histogram(quality[f"{kind}_iou"].to_numpy(), edges)[0] for kind in ("rough", "refined")]
    _write_csv(
        folder / "pseudo_iou.csv",
        ["iou", "rough", "refined"],
        ([round(float(edges[i]), 2), int(counts[0][i]), int(counts[1][i])] for i in range(IOU_BINS)),
    )


def _scratch(name: str, params: Params, workspace: Path, val: Split, machine: str) -> Path:
    """The folder of a model's parts until all are done; its name is a hash of everything that they depend on."""
    files = [
        val.root / "images.arrow",
        *(workspace / name / file for file in ("model.safetensors", "model.json")),
    ]
    config = params.evaluate
    key = fingerprint(
        "evaluate",
        files, params.input.model_dump(), config.inference.model_dump(), config.batch_size, config.part_images,
        params.threads, machine=machine,
    )  # fmt: skip
    return run_folder(workspace, "evaluate") / f"predictions-{name}-{key}"


def _finder(name: str, params: Params, workspace: Path, val: Split, device: torch.device) -> Finder:
    folder = workspace / name
    model = load_detector(folder, device)
    classes = [{"id": category.id, "name": category.name} for category in val.categories]
    if model.categories != classes:
        raise TaskError(
            f"{folder}: a model of the classes {model.categories}, but dataset/val has {classes}; "
            f"run `dvc repro train_{name}`"
        )
    return Finder(
        model,
        val,
        size=params.input,
        inference=params.evaluate.inference,
        batch_size=params.evaluate.batch_size,
        device=device,
        workers=params.runtime.workers,
        name=name,
    )


def _details(scores: MaskScores) -> dict[str, Any]:
    return {"scores": scores.summary, "per_class": [row.row() for row in scores.per_class]}


def _at(curves: Iterable[Any], i: int) -> list[str]:
    return ["" if curve is None else f"{curve[i]:.5f}" for curve in curves]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1f}"


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([safe_cell(value) for value in row] for row in rows)


if __name__ == "__main__":
    stage_main("evaluate", run, parallel=True, on_ray=True)
