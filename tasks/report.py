"""Writes workspace/report.html: one page, nothing to load, on what the line did and how well."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from data.storage import atomic_write
from data.tables import Split
from tasks.common.config import Params
from tasks.common.stage_main import read_json, stage_main
from tasks.labelling.gate import read_gate
from tasks.promotion.rule import read_comparison
from tasks.reporting.charts import Axis, Series, dumbbell, histogram, line_chart, smooth
from tasks.reporting.figures import figure
from tasks.reporting.gate import gate_view
from tasks.reporting.page import render
from tasks.reporting.pipeline import done_steps, picture, run_record
from tasks.reporting.promotion import promotion_view
from tasks.reporting.rows import pseudo_rows, val_rows
from tasks.scoring.crowding import crowding
from tasks.scoring.metrics import AP, MODEL_METRICS, PSEUDO_METRICS, SIZES

log = logging.getLogger(__name__)

MANIFESTS = {  # folder in the workspace: stage that makes it
    "dataset/strong": "ingest",
    "dataset/weak": "ingest",
    "dataset/val": "ingest",
    "dataset/kept_aside": "ingest",
    "points": "import_points",
    "teacher": "train_teacher",
    "refiner": "train_refiner",
    "pseudo": "pseudo_label",
    "student": "train_student",
    "evaluation": "evaluate",
    "comparison": "compare",
}
LOSS_NAMES = {"loss": "total", "loss_mask": "mask", "loss_category": "class"}


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/report.html from what the other steps left.

    Raises:
        TaskError: a step's output is missing; names the step to run.
    """
    counts = {
        folder: read_json(workspace / folder / "manifest.json", stage)["counts"]
        for folder, stage in MANIFESTS.items()
    }
    metrics = read_json(workspace / "evaluation" / "metrics.json", "evaluate")
    details = read_json(workspace / "evaluation" / "details.json", "evaluate")
    splits = {name: Split.open(workspace / "dataset" / name) for name in ("val", "weak", "kept_aside")}
    models = {
        name: read_json(workspace / name / "model.json", f"train_{name}")
        for name in ("teacher", "refiner", "student")
    }
    steps = done_steps(workspace, splits["weak"].image_root, counts)
    class_rows, class_high = _class_rows(details)
    images = params.report.gallery_images
    comparison = read_comparison(workspace)
    page = render(
        title=params.report.title,
        counts=counts,
        images_rejected=sum(counts[f"dataset/{name}"]["rejected"] for name in ("strong", "weak", "val")),
        metrics=metrics,
        details=details,
        limit_told=crowding(splits["val"]).told(details["max_detections"]),
        line=picture(steps),
        seconds=sum(step.seconds or 0 for step in steps),
        sizes=size_labels(details["size_bounds"]),
        size_counts=_size_counts(splits["val"], details["size_bounds"]),
        model_metrics=[metric for metric in MODEL_METRICS if metric.reported],
        pseudo_metrics=PSEUDO_METRICS,
        class_rows=class_rows,
        class_high=class_high,
        precision_recall=_precision_recall(workspace),
        iou_histogram=_iou_histogram(workspace),
        losses=[
            ("Teacher", _loss_chart(workspace / "teacher" / "log.jsonl", "Teacher's loss")),
            ("Refiner", _loss_chart(workspace / "refiner" / "log.jsonl", "Refiner's loss")),
            ("Student", _loss_chart(workspace / "student" / "log.jsonl", "Student's loss")),
        ],
        pseudo_gallery=pseudo_rows(workspace, splits["weak"], splits["kept_aside"], images),
        val_gallery=val_rows(workspace, splits["val"], images, params.report.score_threshold),
        score_threshold=params.report.score_threshold,
        gate=gate_view(
            read_gate(workspace / "refiner"), counts["pseudo"]["refused"], metrics["pseudo"]["masks"]
        ),
        promotion=promotion_view(comparison),
        fairness=fairness(models["teacher"], models["student"], comparison.baseline.version is None),
        runs=[record for stage in _stages() if (record := run_record(workspace, stage)) is not None],
        settings=json.dumps(models, indent=1, ensure_ascii=False),
    )
    path = workspace / "report.html"
    with atomic_write(path) as temporary:
        Path(temporary).write_text(page, encoding="utf-8")
    log.info("report: %s, %.1f MB", path, len(page.encode()) / 1e6)


def fairness(teacher: Mapping[str, Any], student: Mapping[str, Any], first: bool) -> dict[str, Any]:
    """From the two model.json: whether the difference of teacher and student is the labels' doing alone.

    It is where network, seed (so initial weights too), training settings and steps are the same. The `first` student
    that should start from the promoted model has none to start from: it starts from scratch, as the teacher.
    """
    ours, theirs = ({"network": meta["config"], **_training(meta, first)} for meta in (teacher, student))
    unlike = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    return {"equal": not unlike, "steps": (ours["steps"], theirs["steps"]), "unlike": unlike}


def _training(meta: Mapping[str, Any], first: bool) -> dict[str, Any]:
    # Not part of how a network learns, or the labels themselves; images held out have words of their own.
    aside = {"stage", "milestones", "checkpoint_every", "log_every", "masks", "min_score", "weight_by_score"}
    aside |= {"holdout", "unusable", "strong_share", "classes_from"}
    training = {"start": "scratch", **meta["training"]}  # the teacher's only way
    if first and training["start"] == "promoted":
        training["start"] = "scratch"
    return {key: value for key, value in training.items() if key not in aside}


def size_labels(bounds: Sequence[float]) -> dict[str, str]:
    """What small, medium and large mean, in words."""
    small, medium = (f"{bound:g}" for bound in bounds)
    words = (f"under {small}² px", f"{small}² to {medium}² px", f"over {medium}² px")
    return dict(zip(SIZES, words, strict=True))


def _size_counts(val: Split, bounds: Sequence[float]) -> dict[str, int]:
    """Objects of the val split by size as COCO counts them: by the annotation's own area, without crowds."""
    areas = [
        row["area"] for row in val.instances.select(["area", "iscrowd"]).to_pylist() if not row["iscrowd"]
    ]
    ends = [0, *(bound**2 for bound in bounds), math.inf]
    return {size: sum(ends[n] <= area <= ends[n + 1] for area in areas) for n, size in enumerate(SIZES)}


def _class_rows(details: Mapping[str, Any]) -> tuple[list[dict[str, Any]], float]:
    """The rows of the class table, and the AP at which their tracks end."""
    pairs = zip(details["teacher"]["per_class"], details["student"]["per_class"], strict=True)
    rows = [
        {"name": a["name"], "instances": a["instances"], "teacher": a[AP.key], "student": b[AP.key]}
        for a, b in pairs
    ]
    known = [row[key] for row in rows for key in ("teacher", "student") if row[key] is not None]
    high = Axis.over("", known or [1.0]).high
    for row in rows:
        title = f"{row['name']}: teacher {figure(row['teacher'])}, student {figure(row['student'])}"
        row["track"] = dumbbell(row["teacher"], row["student"], high, title)
    return rows, high


def _precision_recall(workspace: Path) -> Markup | None:
    rows = _read_csv(workspace / "evaluation" / "plots" / "precision_recall.csv")
    series = []
    for name, style in (("teacher", "s-before"), ("student", "s-after")):
        points = [(float(row["recall"]), float(row[name])) for row in rows if row[name]]
        if points:
            x, y = zip(*points, strict=True)
            series.append(Series(name, style, x, y))
    ticks = [i / 5 for i in range(6)]
    x_axis, y_axis = Axis("recall", 0, 1, ticks), Axis("precision", 0, 1, ticks)
    return line_chart(series, x_axis, y_axis, "Precision against recall at IoU 0.50") if series else None


def _iou_histogram(workspace: Path) -> Markup | None:
    rows = _read_csv(workspace / "evaluation" / "plots" / "pseudo_iou.csv")
    kinds = [
        (kind, style, [int(row[kind]) for row in rows])
        for kind, style in (("rough", "s-before"), ("refined", "s-after"))
    ]
    if not any(sum(values) for _, _, values in kinds):
        return None
    edges = [i / len(rows) for i in range(len(rows) + 1)]
    return histogram(edges, kinds, "IoU with the true mask", "points", "Points by their pseudo mask's IoU")


def _loss_chart(path: Path, title: str) -> dict[str, Any] | None:
    """The chart and its legend; None where nothing was logged."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    if not rows:
        return None
    parts = [key for key in rows[0] if key not in ("step", "lr")]
    # The parts of a loss that has only one are the loss itself.
    parts = ["loss", *(key for key in parts if key != "loss")] if len(parts) > 2 else ["loss"]
    steps = [row["step"] for row in rows]
    series = [
        Series(
            LOSS_NAMES.get(key, key.removeprefix("loss_").replace("_", " ")),
            f"s-part{i}",
            steps,
            smooth([row[key] for row in rows], 0.6),
        )
        for i, key in enumerate(parts)
    ]
    x = Axis.over("step", [float(step) for step in steps])
    y = Axis.over("loss", [value for one in series for value in one.y])
    return {"svg": line_chart(series, x, y, title), "legend": [(one.label, one.style) for one in series]}


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _stages() -> list[str]:
    return list(dict.fromkeys(["make_demo", *MANIFESTS.values()]))


if __name__ == "__main__":
    stage_main("report", run)
