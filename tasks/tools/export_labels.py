"""Labels of the workspace, or of any annotation file, as files of other formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.annotations.export import EXPORTS, write_frames
from data.annotations.frames import (
    Frame,
    ImageFolder,
    frames_of_file,
    frames_of_pseudo,
    frames_of_results,
    frames_of_split,
)
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.annotations.results import read_results
from data.errors import DataError, Fault
from data.storage import atomic_dir
from data.tables import PSEUDO, Category, Split, read_parquet
from tasks.common.errors import TaskError
from tasks.common.stage_main import read_json, write_json
from tasks.promotion.baseline import registry_of
from tasks.promotion.registry import Registry
from tasks.promotion.rule import read_comparison
from tasks.scoring.outcomes import USUAL_MIN_SCORE
from tasks.tools.chosen_score import min_score_of
from tasks.tools.label_files import SUMMARY, foreign_files

WHATS = ("pseudo", "dataset", "predictions", "file")
_WITH_MASKS = ("strong", "val", "kept_aside")


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and how.

    Attributes:
        what: `pseudo` (the pseudo labels of the weak images), `dataset` (the masks that were ingested),
            `predictions` (of the model on the val images), `file` (an annotation file).
        format: one of `data.annotations.export.EXPORTS`.
        masks: of pseudo labels: `refined` or `rough`.
        min_score: of pseudo labels and predictions: the lowest score that is exported. None: all pseudo labels; of
            predictions those from the score on that was chosen on the val images, but all as coco-results.
        model: of predictions: `student`, `teacher`, or `baseline`, the model that the student was compared with.
        annotations: of `file`: a file or folder in any format that ingest reads.
        images: of `file`: the image root, for formats without all sizes and names; None: not needed.
    """

    what: str
    format: str
    masks: str = "refined"
    min_score: float | None = None
    model: str = "student"
    annotations: Path | None = None
    images: Path | None = None


def export_labels(request: ExportRequest, out: Path, workspace: Path) -> dict[str, Any]:
    """Writes the labels into folder `out`, all or nothing, with a summary export.json.

    Args:
        request: what to export, and how.
        out: a new folder, or the output of an earlier export, which is replaced.
        workspace: the pipeline's.

    Returns:
        The summary: what, format, min_score, and by part (a split, `pseudo`, ...) its counts.

    Raises:
        DataError: faults of the input files; content that the format can't hold.
        TaskError: an impossible request, missing results, other files in `out`.
    """
    _check(request, out)
    least = request.min_score
    if least is None:
        least = _chosen(request, workspace)
    summary: dict[str, Any] = {
        "what": request.what,
        "format": request.format,
        "min_score": least,
        "parts": {},
    }
    parts = _parts(request, workspace, least)
    with atomic_dir(out) as folder:
        for name, frames, categories in parts:
            summary["parts"][name] = write_frames(folder, name, request.format, frames, categories)
        write_json(folder / SUMMARY, summary)
    return summary


def _check(request: ExportRequest, out: Path) -> None:
    if request.what not in WHATS:
        raise TaskError(f"--what: found {request.what!r}, expected one of {', '.join(WHATS)}")
    if request.format not in EXPORTS:
        raise TaskError(f"--format: found {request.format!r}, expected one of {', '.join(EXPORTS)}")
    if request.format == "coco-results" and request.what in ("dataset", "file"):
        raise TaskError(
            f"--format coco-results: found --what {request.what}, whose masks have no scores; use coco"
        )
    if (request.what == "file") != (request.annotations is not None):
        raise TaskError("--what file and --annotations FILE go together: give both or neither")
    if fault := foreign_files(out):
        raise TaskError(fault)


def _chosen(request: ExportRequest, workspace: Path) -> float:
    """The lowest score that is exported if none is given."""
    if request.what != "predictions" or request.format == "coco-results":
        return 0.0
    if request.model == "baseline":
        version = read_comparison(workspace).baseline.version
        metrics = Registry(registry_of(workspace)).entry(version).metrics if version else {}
        chosen = min_score_of(metrics, "student")
    else:
        metrics = read_json(workspace / "evaluation" / "metrics.json", "evaluate")
        chosen = min_score_of(metrics, request.model)
    return USUAL_MIN_SCORE if chosen is None else chosen


def _parts(
    request: ExportRequest, workspace: Path, least: float
) -> list[tuple[str, Iterator[Frame], Sequence[Category]]]:
    """The files to write: name, frames, classes."""
    if request.annotations is not None:
        images = None if request.images is None else ImageFolder(request.images)
        coco = read_annotations(request.annotations, options=ReadOptions(images=images))
        return [(_stem(request.annotations), frames_of_file(coco), coco.categories)]
    if request.what == "dataset":
        splits = {name: Split.open(workspace / "dataset" / name) for name in _WITH_MASKS}
        return [(n, frames_of_split(s), s.categories) for n, s in splits.items() if len(s)]
    if request.what == "predictions":
        val = Split.open(workspace / "dataset" / "val")
        sizes = {
            row["image_id"]: (row["height"], row["width"])
            for row in val.images.select(["image_id", "height", "width"]).to_pylist()
        }
        made_by = "comparison" if request.model == "baseline" else "evaluation"
        path = workspace / made_by / "predictions" / f"{request.model}.json"
        rows = read_results(path, sizes, {category.id for category in val.categories})
        found = [row for row in rows if row["score"] >= least]
        return [(request.model, frames_of_results(val, found), val.categories)]
    weak = Split.open(workspace / "dataset" / "weak")
    frames = frames_of_pseudo(weak, _pseudo(workspace), request.masks, least)
    return [("pseudo", frames, weak.categories)]


def _pseudo(workspace: Path) -> pa.Table:
    paths = sorted((workspace / "pseudo").glob("part-*.parquet"))
    if not paths:
        raise DataError(
            Fault(str(workspace / "pseudo"), "folder", "no part-*.parquet", "pseudo labels",
                  "run `points2model run --target pseudo_label`")
        )  # fmt: skip
    return pa.concat_tables([read_parquet(path, PSEUDO) for path in paths])


def _stem(path: Path) -> str:
    name = path.name if path.is_dir() else path.stem
    return name if name not in ("", ".", "..") and name != Path(SUMMARY).stem else "labels"
