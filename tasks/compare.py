"""Compares the student with the promoted model on the val split, and decides whether it may be promoted.

workspace/comparison:
  comparison.json   verdict, reasons, AP of both over all classes and by class, differences with intervals; AP of each
                    training of the student, if there are several (promotion.repeats)
  predictions/      baseline.json (COCO results) and .parquet: the promoted model's detections, if there is one
  manifest.json

This stage doesn't promote: the flow does, or `points2model promote` (docs/registry.md).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from data.storage import atomic_dir, discard_partials
from data.tables import PREDICTIONS, Category, Split, read_parquet
from models.checkpoint import load_detector, load_meta
from tasks.common import processes
from tasks.common.config import Params, model_input
from tasks.common.device import hardware, set_up
from tasks.common.progress import Bar
from tasks.common.stage_main import fingerprint, read_json, run_folder, stage_main, write_json, write_manifest
from tasks.inference.predict import Finder, Predictions, StoredPredictions
from tasks.inference.predict_files import write_predictions
from tasks.promotion.baseline import (
    Baseline,
    Trainings,
    checked_model,
    folder_hash,
    read_baseline,
    registry_of,
)
from tasks.promotion.classes import Classes, common_classes
from tasks.promotion.rule import (
    FILE,
    FOLDER,
    Change,
    ClassChange,
    Comparison,
    Verdict,
    behind_teacher,
    change,
    judge,
    moved,
)
from tasks.promotion.trainings import (
    REPEATS,
    fitting,
    further_seeds,
    other_side_text,
    repeat_name,
    summary_text,
)
from tasks.scoring.bootstrap import Ranking, Spread, differences, rank, spread
from tasks.scoring.coco_eval import MaskScores, scores_of
from tasks.scoring.coco_match import Matches, Rules, accumulate
from tasks.scoring.metrics import AP
from tasks.scoring.predictions import matches_of, true_objects

log = logging.getLogger(__name__)

NAME = "baseline"
CANDIDATE_PARTS = "candidate"


@dataclass(frozen=True)
class KnownFinder(Finder):
    """Keeps only instances of the split's classes: an older model may have others."""

    def find(self, parts: Sequence[Sequence[int]], bar: Bar) -> Iterator[tuple[pa.Table, list[str]]]:
        ids = pa.array([category.id for category in self.split.categories], pa.int64())
        for table, faults in super().find(parts, bar):
            yield table.filter(pc.is_in(table["category_id"], ids)), faults


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/comparison, all of it or nothing.

    A run that was killed continues after its last finished part of predictions. With several processes, each predicts
    and matches some parts.

    Raises:
        TaskError: registry/baseline.json or its model can't be used.
    """
    baseline = read_baseline(registry_of(workspace))
    student = folder_hash(workspace / "student")
    alone: Verdict | None = (
        "first" if baseline.version is None else "same" if baseline.model == student else None
    )
    seeds = further_seeds(params)
    if alone is not None and not seeds:
        _write(params, workspace, baseline, student, _alone(workspace, params, alone, baseline), None)
        return
    device = set_up(params.runtime, params.threads)
    val = Split.open(workspace / "dataset" / "val")

    def predicted(folder: Path, name: str) -> tuple[Predictions, Classes]:
        known = common_classes(_categories(folder), val.categories)
        made = Predictions.plan(
            _scratch(folder, params, workspace, val, device), val, params.evaluate.part_images
        )
        made.make(_finder(folder, name, known, params, val, device))
        return made, known

    predictions, classes = None, common_classes(val.categories, val.categories)
    if alone is None and baseline.version is not None and baseline.model is not None:
        folder = checked_model(registry_of(workspace), baseline.version, baseline.model)
        predictions, classes = predicted(folder, baseline.version)
    repeats = [predicted(workspace / REPEATS / repeat_name(seed), f"seed {seed}")[0] for seed in seeds]
    stored = StoredPredictions(
        run_folder(workspace, "compare") / CANDIDATE_PARTS,
        Predictions.plan(Path(), val, params.evaluate.part_images).rows,
        read_parquet(workspace / "evaluation" / "predictions" / "student.parquet", PREDICTIONS),
        val.images["image_id"].to_pylist(),
    )
    stored.folder.mkdir(exist_ok=True)
    before = None if predictions is None else matches_of(predictions, val, params.evaluate)
    matches = [matches_of(one, val, params.evaluate) for one in (stored, *repeats)]
    after, *others = [found for found in matches if found is not None] or [[]]  # in the first process only
    with processes.first_alone() as first:
        if first and alone is not None:
            scores = [_scores(parts, val, classes.common, params) for parts in (after, *others)]
            found = _alone(workspace, params, alone, baseline, _trainings(scores, params))
            _write(params, workspace, baseline, student, found, None)
        elif before is not None and baseline.version is not None:
            found = compared(
                before, after, val, classes, baseline.version, params, others, baseline.trainings
            )
            _write(params, workspace, baseline, student, found, predictions)


class Found(NamedTuple):
    """The result of the comparison."""

    verdict: Verdict
    reasons: list[str]
    overall: Change
    classes: list[ClassChange]
    only_baseline: list[str]
    only_candidate: list[str]
    images: int
    draws: int
    trainings: Trainings | None


def compared(
    before: Sequence[Matches],
    after: Sequence[Matches],
    val: Split,
    classes: Classes,
    version: str,
    params: Params,
    repeats: Sequence[Sequence[Matches]] = (),
    older: Trainings | None = None,
) -> Found:
    """AP of both models and the verdict from their matches, over the classes that both have.

    With `repeats`, the matches of the student's further trainings, means over trainings are compared: that of the older
    model's too, if `older` (its trainings by the registry) has the AP that it has here.
    """
    image_ids = val.images["image_id"].to_numpy()[
        np.asarray([status == "ok" for status in val.images["status"].to_pylist()], bool)
    ]
    scores = [_scores(parts, val, classes.common, params) for parts in (before, after, *repeats)]
    trainings = _trainings(scores[1:], params)
    fits = fitting(older, scores[0].summary[AP.key], {row.category_id: row.AP for row in scores[0].per_class})
    rankings = [_of(rank(parts, image_ids, len(val.categories)), classes.common) for parts in (before, after)]
    config = params.promotion
    draws = differences(rankings[0], rankings[1], len(image_ids), config.bootstrap, params.seed)

    def spread_of(column: int) -> Spread:
        return spread(draws[:, column], config.confidence)

    def changed(
        a: float | None, b: float | None, tolerance: float, column: int, id: int | None = None
    ) -> Change:
        single = change(a, b, tolerance, *spread_of(column))
        if trainings is None:
            return single
        a = older.mean(id) if older is not None and fits else a
        return moved(single, change(a, trainings.mean(id), tolerance))

    overall = changed(scores[0].summary[AP.key], scores[1].summary[AP.key], config.ap_tolerance, 0)
    rows = [
        ClassChange(
            category_id=b.category_id, name=b.name, objects=b.instances,
            **changed(a.AP, b.AP, config.class_tolerance, 1 + k, b.category_id).model_dump(),
        )
        for k, (a, b) in enumerate(zip(scores[0].per_class, scores[1].per_class, strict=True))
    ]  # fmt: skip
    verdict, reasons = judge(overall, rows, version, config)
    if trainings is not None:
        reasons.append(f"{summary_text(trainings)} {other_side_text(version, older, fits)}")
    if classes.only_baseline or classes.only_candidate:
        reasons.append(_other_classes(classes, version))
    return Found(
        verdict, reasons, overall, rows, classes.only_baseline, classes.only_candidate, len(image_ids), len(draws),
        trainings,
    )  # fmt: skip


def _trainings(scores: Sequence[MaskScores], params: Params) -> Trainings | None:
    """AP of all trainings of the student from their scores; None for a single one."""
    if len(scores) == 1:
        return None
    return Trainings(
        seeds=[params.seed, *further_seeds(params)],
        AP=[one.summary[AP.key] for one in scores],
        classes={
            row.category_id: [one.per_class[k].AP for one in scores]
            for k, row in enumerate(scores[0].per_class)
        },
    )


def _other_classes(classes: Classes, version: str) -> str:
    parts = []
    if classes.only_candidate:
        parts.append(f"{version} doesn't know {', '.join(classes.only_candidate)}")
    if classes.only_baseline:
        parts.append(f"the new model doesn't know {', '.join(classes.only_baseline)}")
    return f"Compared over the classes that both know, {len(classes.common)}: {'; '.join(parts)}."


def _scores(parts: Sequence[Matches], val: Split, common: Sequence[int], params: Params) -> MaskScores:
    rules = Rules(params.evaluate.max_detections, params.evaluate.size_bounds)
    whole = accumulate(parts, len(val.categories), rules)
    return scores_of(whole.of_classes(common), [val.categories[k] for k in common], true_objects(val), rules)


def _of(ranking: Ranking, common: Sequence[int]) -> Ranking:
    return Ranking([ranking.objects[k] for k in common], [ranking.detections[k] for k in common])


def _alone(
    workspace: Path,
    params: Params,
    verdict: Verdict,
    baseline: Baseline,
    trainings: Trainings | None = None,
) -> Found:
    """The result for a student that needs no comparison, with the metrics of stage evaluate."""
    both = read_json(workspace / "evaluation" / "details.json", "evaluate")
    details, teacher = both["student"], both["teacher"]["scores"][AP.key]
    images = read_json(workspace / "evaluation" / "manifest.json", "evaluate")["counts"]["val_images"]
    first = verdict == "first"

    def own(ap: float | None, id: int | None = None) -> Change:
        ap = ap if trainings is None else trainings.mean(id)
        return change(None if first else ap, ap, tolerance=0.0)

    reason = (
        "Nothing was promoted before, so there is nothing to compare it with."
        if first
        else f"It is {baseline.version} itself, byte for byte: training came to the same model again."
    )
    rows = [
        ClassChange(
            category_id=row["category_id"], name=row["name"], objects=row["instances"],
            **own(row[AP.key], row["category_id"]).model_dump(),
        )
        for row in details["per_class"]
    ]  # fmt: skip
    reasons = [reason] if trainings is None else [reason, summary_text(trainings)]
    overall = own(details["scores"][AP.key])
    if first and (behind := behind_teacher(teacher, overall.candidate, params.promotion)) is not None:
        verdict, reasons = "behind_teacher", [behind, *reasons[1:]]
    return Found(verdict, reasons, overall, rows, [], [], images, 0, trainings)


def _write(
    params: Params,
    workspace: Path,
    baseline: Baseline,
    student: str,
    found: Found,
    predictions: Predictions | None,
) -> None:
    """Writes all outputs, in the first process, and removes scratch files."""
    if not processes.is_first():
        return
    config = params.promotion
    result = Comparison(
        **found._asdict(), baseline=baseline, model=student, confidence=config.confidence,
        ap_tolerance=config.ap_tolerance, class_tolerance=config.class_tolerance,
    )  # fmt: skip
    counts = {"images": found.images, "classes": len(found.classes), "draws": found.draws}
    discard_partials(workspace, FOLDER)
    with atomic_dir(workspace / FOLDER) as folder:
        write_json(folder / FILE, result.model_dump(mode="json"))
        if predictions is not None:
            counts["detections"] = write_predictions(predictions, folder / "predictions", NAME)
        write_manifest(folder, "compare", counts)
    for old in run_folder(workspace, "compare").glob("*/"):
        shutil.rmtree(old, ignore_errors=True)
    log.info("compare: %s: %s", found.verdict, " ".join(found.reasons))


def _scratch(folder: Path, params: Params, workspace: Path, val: Split, device: torch.device) -> Path:
    """The folder of the older model's parts until all are done; its name is a hash of everything they depend on."""
    files = [val.root / "images.arrow", folder / "model.safetensors", folder / "model.json"]
    config = params.evaluate
    classes = [list(category) for category in val.categories]
    key = fingerprint(
        "compare",
        files, config.inference.model_dump(), config.batch_size, config.part_images, params.threads, classes,
        machine=hardware(device),
    )  # fmt: skip
    return run_folder(workspace, "compare") / f"predictions-{key}"


def _categories(folder: Path) -> list[Category]:
    return [Category(row["id"], row["name"]) for row in load_meta(folder)["categories"]]


def _finder(
    folder: Path, version: str, classes: Classes, params: Params, val: Split, device: torch.device
) -> KnownFinder:
    """The older model with the image size that it was trained on and the current settings of section evaluate."""
    model = load_detector(folder, device)
    model.categories = [row | {"id": id} for row, id in zip(model.categories, classes.ids, strict=True)]
    return KnownFinder(
        model,
        val,
        size=model_input(folder, load_meta(folder)),
        inference=params.evaluate.inference,
        batch_size=params.evaluate.batch_size,
        device=device,
        workers=params.runtime.workers,
        name=version,
    )


if __name__ == "__main__":
    stage_main("compare", run, parallel=True)
