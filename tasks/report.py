"""Writes workspace/report.html: one page, nothing to load, on what the pipeline did and how well.

It links to the folder workspace/report with more images and tables (tasks/reporting/pages.py).
"""

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
from tasks.budget.record import read_budget
from tasks.common.config import Params
from tasks.common.stage_main import read_json, stage_main
from tasks.labelling.gate import read_gate
from tasks.labelling.judge import FILE as JUDGE
from tasks.labelling.judge import read_judge
from tasks.promotion.baseline import folder_hash, registry_of
from tasks.promotion.rule import read_comparison
from tasks.reporting.budget import budget_view
from tasks.reporting.charts import Axis, Series, dumbbell, histogram, line_chart, smooth
from tasks.reporting.figures import count, figure
from tasks.reporting.gate import gate_view
from tasks.reporting.graph import pipeline_graph
from tasks.reporting.judge import judge_view
from tasks.reporting.page import REPORT_TEMPLATE, render
from tasks.reporting.pages import FOLDER, write_pages
from tasks.reporting.pipeline import picture, steps_of
from tasks.reporting.promotion import promotion_view
from tasks.reporting.review import audit_view, review_view
from tasks.reporting.rows import Gallery
from tasks.reporting.val import ValImages, val_gallery
from tasks.reporting.verdict import lost_clicks, verdict
from tasks.reporting.weak import WeakImages, pseudo_gallery
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
    "rounds": "train_rounds",
    "repeats": "train_repeats",
    "evaluation": "evaluate",
    "comparison": "compare",
}
OPTIONAL = {"train_rounds": ("rounds", "rounds"), "train_repeats": ("repeats", "trainings")}
"""Stages that most often have nothing to do: their manifest's folder, and its count of what was done."""
CROPS = 12
"""False alarms, and missed objects, that the page shows."""
LOSS_NAMES = {"loss": "total", "loss_mask": "mask", "loss_category": "class"}

Details = Mapping[str, Any]
"""The content of details.json."""


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/report.html and the folder workspace/report from the outputs of the other stages.

    Raises:
        TaskError: an output is missing; its text names the stage to run.
    """
    manifests = {
        folder: read_json(workspace / folder / "manifest.json", stage) for folder, stage in MANIFESTS.items()
    }
    counts = {folder: manifest["counts"] for folder, manifest in manifests.items()}
    metrics = read_json(workspace / "evaluation" / "metrics.json", "evaluate")
    details = read_json(workspace / "evaluation" / "details.json", "evaluate")
    config = params.report
    weak = WeakImages(workspace)
    val = ValImages(workspace, config)
    write_pages(workspace, config.title, weak, val, config.page_images)
    folder, bounds = workspace / "pseudo", details["size_bounds"]
    judge = read_judge(folder) if (folder / JUDGE).is_file() else None
    proposers = judge_view(
        judge, weak.pseudo, weak.split.categories, bounds, size_labels(bounds),
        manifests["rounds"].get("held_out_iou", ()),
    )  # fmt: skip
    gates = [read_gate(workspace / "refiner")] if judge is None else list(judge.gates.values())
    models = _models(workspace)
    training = read_json(workspace / "student" / "model.json", "train_student")["training"]
    statements = verdict(metrics, counts, training["steps"], training["masks"], gates)
    page = render(
        REPORT_TEMPLATE,
        title=params.report.title,
        verdict=statements,
        learnt_masks=training["masks"],
        lost_clicks=lost_clicks(weak.pseudo, manifests["points"].get("rejected_because", {})),
        counts=counts,
        images_rejected=sum(counts[f"dataset/{name}"]["rejected"] for name in ("strong", "weak", "val")),
        metrics=metrics,
        details=details,
        pseudo_metrics=PSEUDO_METRICS,
        gates=[{"by": None, **gate_view(gates[0], counts["pseudo"]["refused"], metrics["pseudo"]["masks"])}]
        if proposers is None
        else proposers["gates"],
        iou_histogram=_iou_histogram(workspace),
        pseudo_gallery=pseudo_gallery(weak, config.gallery_images),
        weak_images=len(weak.images),
        val_gallery=val_gallery(val, config.gallery_images),
        min_scores=val.min_scores,
        chosen=config.score_threshold is None and metrics["student"].get("min_score") is not None,
        pages=config.page_images > 0,
        pages_hash=folder_hash(workspace / FOLDER),
        judge=proposers,
        review=review_view(manifests["points"].get("review")),
        audit=audit_view(metrics.get("audit")),
        budget=budget_view(read_budget(registry_of(workspace)), workspace, metrics["student"]["AP"]),
        **_errors(val, config.gallery_images),
        **_pipeline(params, workspace, counts),
        **_scores(workspace, details, val.split),
        **models,
    )
    path = workspace / "report.html"
    with atomic_write(path) as temporary:
        Path(temporary).write_text(page, encoding="utf-8")
    for one in statements:
        if one.style == "bad":
            log.warning("report: %s", one.text)
    log.info("report: %s, %.1f MB", path, len(page.encode()) / 1e6)


def _errors(val: ValImages, images: int) -> dict[str, Any]:
    """The section on the student's errors: CROPS of each kind, and the worst `images`."""
    errors, worst = val.errors(), val.worst()[:images]
    crops = {
        kind: val.crops([error for error in errors if error.kind == kind][: CROPS if images else 0])
        for kind in ("false alarm", "missed")
    }
    rule = f"The {count(len(worst), 'image')} on which the student's F1 is lowest; then those with the most errors"
    return {
        "class_counts": val.counts(),
        "false_alarms": crops["false alarm"],
        "missed": crops["missed"],
        "worst_gallery": Gallery(val.rows(worst, "worst"), rule),
    }


def _pipeline(params: Params, workspace: Path, counts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The picture of the pipeline, and when and where each stage ran."""
    # dvc.yaml isn't a dependency of stage report: any edit would make the report stale. An edge changes only with a
    # stage's deps or outs, or with ingest.* and points.*, which name the inputs of ingest and import_points. That stage
    # runs again, and if its results change, so does the report. If they don't, the page's figures stay right.
    idle = [stage for stage, (folder, key) in OPTIONAL.items() if not counts[folder][key]]
    graph = pipeline_graph(workspace.parent, params.model_dump(mode="json"), "report", idle)
    steps = steps_of(graph, workspace, counts)
    return {
        "diagram": picture(steps) if steps else None,
        "steps": steps,
        "seconds": sum(step.seconds for step in steps),
        "runs": [step.run for step in steps if step.run is not None],
    }


def _scores(workspace: Path, details: Details, val: Split) -> dict[str, Any]:
    """The section on teacher and student."""
    class_rows, class_high = _class_rows(details)
    return {
        "model_metrics": [metric for metric in MODEL_METRICS if metric.reported],
        "sizes": size_labels(details["size_bounds"]),
        "size_counts": _size_counts(val, details["size_bounds"]),
        "limit_note": crowding(val).limit_note(details["max_detections"]),
        "class_rows": class_rows,
        "class_high": class_high,
        "precision_recall": _precision_recall(workspace),
    }


def _models(workspace: Path) -> dict[str, Any]:
    """How the networks were trained, and whether the student may be promoted."""
    names = ("teacher", "refiner", "student")
    models = {name: read_json(workspace / name / "model.json", f"train_{name}") for name in names}
    comparison = read_comparison(workspace)
    return {
        "promotion": promotion_view(comparison, registry_of(workspace)),
        "fairness": fairness(models["teacher"], models["student"], comparison.baseline.version is None),
        "losses": [
            (name.title(), _loss_chart(workspace / name / "log.jsonl", f"{name.title()}'s loss"))
            for name in names
        ],
        "settings": json.dumps(models, indent=1, ensure_ascii=False),
    }


def fairness(teacher: Mapping[str, Any], student: Mapping[str, Any], first: bool) -> dict[str, Any]:
    """From the two model.json: whether only the labels can explain the difference between teacher and student.

    `equal` if network, seed (so initial weights too), training settings and steps are the same. The `first` student
    starts from scratch like the teacher, even with `start: promoted`.
    """
    ours, theirs = ({"network": meta["config"], **_training(meta, first)} for meta in (teacher, student))
    unlike = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    return {"equal": not unlike, "steps": (ours["steps"], theirs["steps"]), "unlike": unlike}


def _training(meta: Mapping[str, Any], first: bool) -> dict[str, Any]:
    # These don't change how a network learns, or are the labels themselves. The page mentions held-out images apart.
    aside = {"stage", "milestones", "checkpoint_every", "log_every", "masks", "min_score", "weight_by_score"}
    aside |= {"holdout", "unusable", "strong_share", "strong_end", "classes_from"}
    training = {"start": "scratch", **meta["training"]}  # a teacher has no key `start`
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
    # With a single part, that part is the loss itself.
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


if __name__ == "__main__":
    stage_main("report", run)
