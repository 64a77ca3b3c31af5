"""The images whose labels would help most: a list with reasons, a page that shows them, and a task for a label tool."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from data.annotations.frames import Frame, Label
from data.annotations.writers.label_studio import LOCAL_FILES
from data.decisions.record import Decision
from data.decisions.store import read_decisions
from data.images.content import sha256
from data.storage import atomic_dir, atomic_write
from data.tables import IMAGES, INSTANCES, POINTS, Category, Split, read_parquet
from data.text import safe_cell
from models.checkpoint import WEIGHTS, load_teacher
from models.config import InferenceConfig
from tasks.budget.costs import costs
from tasks.budget.record import Cost
from tasks.common.code_identity import code_digest
from tasks.common.config import InputConfig
from tasks.common.device import resolve_device
from tasks.common.errors import TaskError
from tasks.common.stage_main import run_folder, write_json
from tasks.review.objects import check_current
from tasks.review.present import present_objects
from tasks.scoring.outcomes import USUAL_MIN_SCORE
from tasks.suggestion.candidates import Candidates, of_files, without_clicks, without_masks
from tasks.suggestion.choice import Choice, Floats, Pool, choose
from tasks.suggestion.outputs import CachedModel
from tasks.suggestion.reasons import reasons
from tasks.suggestion.sheet import write_sheet
from tasks.suggestion.signs import signs
from tasks.tools.chosen_score import chosen_min_score
from tasks.tools.export_labels import TOOLS, read_pseudo, write_for_tool
from tasks.tools.label_files import SUMMARY, foreign_files
from tasks.tools.model_source import Source

LIST, TABLE, SHEET = "suggestion.json", "suggestion.csv", "contact-sheet.html"
BATCH = 4
COLUMNS = ("rank", "image", "objects", "missed", "gain", "reasons", "path")


@dataclass(frozen=True)
class SuggestRequest:
    """What to choose.

    Attributes:
        masks: the number of images that get full masks; None: `clicks` is given.
        clicks: the number of objects that are clicked; None: `masks` is given.
        images: files, folders, patterns or addresses in S3 to choose from; none: the project's weak images, for
            clicks those without any.
        to: one of `TOOLS`, for which a task is written; None: none.
        image_url: of label-studio: what precedes an image's name in its address.
    """

    masks: int | None = None
    clicks: int | None = None
    images: tuple[str, ...] = ()
    to: str | None = None
    image_url: str = LOCAL_FILES


class Made(NamedTuple):
    """A pool, and where its images are."""

    pool: Pool
    rows: list[int]
    """of the candidates' split"""
    outputs: pa.Table
    """OUTPUTS, of the pool's images"""
    faults: list[str]
    """of images that can't be read, which aren't in the pool"""


def suggest(
    request: SuggestRequest,
    source: Source,
    inference: InferenceConfig,
    out: Path,
    project: Path,
    *,
    decisions: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Writes `out`/suggestion.json, suggestion.csv and contact-sheet.html, with `to` the folder `out`/TOOL.

    The model's outputs are kept in workspace/runs/suggest, so that another call goes on from it.

    Args:
        source: the model.
        inference: rules of its detections.
        project: the folder with workspace/; without a data set there, no image counts as labelled.
        decisions: the folder of reviewers' decisions; None: there are none.

    Returns:
        The content of suggestion.json.

    Raises:
        TaskError: a request that can't be met, no image to choose from.
        DataError: tables, decisions or images can't be read.
    """
    _check(request, out)
    workspace = project / "workspace"
    decided = [] if decisions is None else list(read_decisions(decisions).decisions)
    model = open_model(source.folder, source.size, inference, device)
    categories = [Category(row["id"], row["name"]) for row in model.network.categories]
    strong = _strong(workspace, categories, needed=not request.images)
    found = _candidates(request, workspace, categories, decided, out)
    made = pool_of(model, found, strong, run_folder(workspace, "suggest"))
    chosen = choose(made.pool, images=request.masks, objects=request.clicks)
    classes = found.split.categories
    clicked = [row in found.clicks for row in made.rows]
    why = reasons(made.pool, chosen, [one.name for one in classes], clicked)
    cost = costs(decided)[0 if request.masks is not None else 1]
    summary = _summary(request, source, found, made, chosen, why, len(strong), cost)
    score = chosen_min_score(source.folder)
    least = USUAL_MIN_SCORE if score is None else score
    present = {} if request.images else _present(workspace, decided)
    frames = list(_frames(found.split, made, chosen, present, least))
    out.mkdir(parents=True, exist_ok=True)
    if request.to is not None:
        _write_task(out / request.to, request, frames, classes)
    write_sheet(
        out / SHEET, summary, frames, [found.split.image_path(made.rows[one.row]) for one in chosen], classes
    )
    _write_table(out / TABLE, summary["images"])
    write_json(out / LIST, summary)
    return summary


def open_model(model: Path, size: InputConfig, inference: InferenceConfig, device: str) -> CachedModel:
    """The model of a folder."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    where = resolve_device(device)
    identity = sha256(model / WEIGHTS) + code_digest("evaluate")
    return CachedModel(load_teacher(model, where), size, inference, BATCH, where, identity)


def pool_of(model: CachedModel, candidates: Candidates, strong: Split, cache: Path) -> Made:
    """The pool of all images that can be read, from the model's outputs on them and on those with masks."""
    split = candidates.split
    outputs = model.outputs(split, cache, "predict on images")
    labelled = model.outputs(strong, cache, "predict on images with masks")
    faults = [*candidates.faults, *(one for one in outputs["fault"].to_pylist() if one is not None)]
    names = split.images["file_name"].to_pylist()
    read = [n for n, fault in enumerate(outputs["fault"].to_pylist()) if fault is None]
    rows = sorted(read, key=lambda row: names[row])
    outputs = outputs.take(pa.array(rows, pa.int64()))
    classes = [category.id for category in split.categories]
    heights = [split.images["height"][row].as_py() for row in rows]
    clicks = {n: candidates.clicks[row] for n, row in enumerate(rows) if row in candidates.clicks}
    found = signs(outputs, heights, clicks, classes)
    ids = strong.instances["category_id"].to_numpy()
    masks = np.array([(ids == category_id).sum() for category_id in classes], np.float64)
    width = model.network.backbone.body.channels[-1]
    labelled = labelled.filter(labelled["fault"].is_null())
    pool = Pool(_features(outputs, width), found.objects, found.doubts, _features(labelled, width), masks)
    return Made(pool, rows, outputs, faults)


def _features(outputs: pa.Table, width: int) -> Floats:
    return np.array(outputs["features"].to_pylist(), np.float64).reshape(-1, width)


def _check(request: SuggestRequest, out: Path) -> None:
    if (request.masks is None) == (request.clicks is None):
        raise TaskError(
            "expected one of --masks N, images to give masks to, and --clicks N, objects to click"
        )
    for option, number in (("--masks", request.masks), ("--clicks", request.clicks)):
        if number is not None and number < 1:
            raise TaskError(f"{option}: found {number}, expected 1 or more")
    if request.to is not None:
        if request.to not in TOOLS:
            raise TaskError(f"--to: found {request.to!r}, expected one of {', '.join(TOOLS)}")
        if request.clicks is not None:
            raise TaskError(
                "--to: found --clicks, expected --masks: a task has masks to correct. For clicks, give the images of "
                f"{TABLE} to the tool (docs/points.md)"
            )
        if fault := foreign_files(out / request.to):
            raise TaskError(fault)


def _strong(workspace: Path, categories: Sequence[Category], needed: bool) -> Split:
    """The images with masks; none, where there is no data set and none is needed."""
    folder = workspace / "dataset" / "strong"
    if folder.exists() or needed:
        return Split.open(folder)
    return Split(folder, IMAGES.empty_table(), INSTANCES.empty_table(), list(categories), "")


def _candidates(
    request: SuggestRequest,
    workspace: Path,
    categories: Sequence[Category],
    decided: Sequence[Decision],
    out: Path,
) -> Candidates:
    if request.images:
        return of_files(request.images, out, categories)
    weak = Split.open(workspace / "dataset" / "weak")
    points = read_points(workspace)
    found = (
        without_masks(weak, points, decided) if request.masks is not None else without_clicks(weak, points)
    )
    if not len(found.split):
        why = (
            "all weak images are complete" if request.masks is not None and len(weak)
            else "all weak images have clicks" if len(weak) else "there are no weak images"
        )  # fmt: skip
        raise TaskError(f"no image to choose from: {why}; name other ones with --images FOLDER")
    return found


def _summary(
    request: SuggestRequest, source: Source, found: Candidates, made: Made, chosen: Sequence[Choice],
    why: Sequence[Sequence[str]], labelled: int, cost: Cost,
) -> dict[str, Any]:  # fmt: skip
    pool, names = made.pool, [one.name for one in found.split.categories]
    expected = float(sum(pool.objects[one.row].sum() for one in chosen))
    shown = pool.masks + pool.objects.sum(0) + pool.doubts.sum(0)
    return {
        "for": "masks" if request.masks is not None else "clicks",
        "model": source.folder.as_posix(),
        "candidates": len(pool),
        "labelled": labelled,
        "objects": round(expected, 1),
        "seconds": round(expected * cost.seconds),
        "cost": {"seconds": cost.seconds, "source": cost.source},
        "unreadable": sorted(made.faults),
        "classes_nowhere": [name for name, n in zip(names, shown.tolist(), strict=True) if n < 0.5],
        "images": [
            {
                "rank": n,
                "image": made.outputs["file_name"][one.row].as_py(),
                "path": str(found.split.image_path(made.rows[one.row])),
                "objects": round(float(pool.objects[one.row].sum()), 1),
                "missed": round(float(pool.doubts[one.row].sum()), 1),
                "classes": {
                    name: round(value, 1)
                    for name, value in zip(names, pool.objects[one.row].tolist(), strict=True)
                    if value >= 0.5
                },
                "gain": round(sum(one.gains), 6),
                "reasons": list(own),
            }
            for n, (one, own) in enumerate(zip(chosen, why, strict=True), start=1)
        ],
    }


def read_points(workspace: Path) -> pa.Table:
    """Table POINTS; empty before the first import_points."""
    path = workspace / "points" / "points.parquet"
    return read_parquet(path, POINTS) if path.exists() else POINTS.empty_table()


def _present(workspace: Path, decided: Sequence[Decision]) -> dict[str, tuple[Label, ...]]:
    """The masks that weak images have now, with reviewers' decisions, by file name; of images that have clicks."""
    if not list((workspace / "pseudo").glob("part-*.parquet")):
        return {}
    weak, pseudo = Split.open(workspace / "dataset" / "weak"), read_pseudo(workspace)
    check_current(pseudo, weak, workspace / "pseudo")
    names = dict(zip(*(weak.images[key].to_pylist() for key in ("image_id", "file_name")), strict=True))
    found: dict[str, list[Label]] = {
        names[image_id]: [] for image_id in pseudo["image_id"].unique().to_pylist()
    }
    for one in present_objects(pseudo, read_points(workspace), weak, decided):
        label = Label(0, one.category_id, one.counts, score=one.score, point_id=one.object)
        found.setdefault(names[one.image_id], []).append(label)
    return {name: tuple(labels) for name, labels in found.items()}


def _frames(
    split: Split, made: Made, chosen: Sequence[Choice], present: dict[str, tuple[Label, ...]], least: float
) -> Iterator[Frame]:
    """The chosen images with the masks that they have; where they have none, with those that the model finds."""
    next_id = 1
    for one in chosen:
        image = split.image(made.rows[one.row])
        labels = present.get(image["file_name"])
        if labels is None:
            outputs = made.outputs.slice(one.row, 1).to_pylist()[0]
            rows = zip(outputs["category_id"], outputs["rle_counts"], outputs["score"], strict=True)
            labels = tuple(
                Label(0, kind, counts, score=score) for kind, counts, score in rows if score >= least
            )
        numbered = tuple(replace(label, label_id=next_id + n) for n, label in enumerate(labels))
        next_id += len(numbered)
        yield Frame(image["image_id"], image["file_name"], image["width"], image["height"], numbered)


def _write_task(
    folder: Path, request: SuggestRequest, frames: Sequence[Frame], categories: Sequence[Category]
) -> None:
    assert request.to is not None
    name = "images" if request.images else "pseudo"
    with atomic_dir(folder) as unfinished:
        counts = write_for_tool(unfinished, name, request.to, frames, categories, image_url=request.image_url)
        write_json(
            unfinished / SUMMARY, {"what": "suggestion", "format": request.to, "parts": {name: counts}}
        )


def _write_table(path: Path, images: Sequence[dict[str, Any]]) -> None:
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in images:
            row = one | {"reasons": "; ".join(one["reasons"])}
            writer.writerow([safe_cell(row[name]) for name in COLUMNS])
