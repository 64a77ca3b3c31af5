"""Labels of the workspace, or of any annotation file, as files of other formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from data.annotations.writers.cvat import write_labels
from data.annotations.writers.label_studio import LOCAL_FILES
from data.decisions.store import read_decisions
from data.errors import DataError, Fault
from data.storage import atomic_dir
from data.tables import POINTS, PSEUDO, SENT, Category, Split, read_parquet, write_parquet
from tasks.common.config import StudentConfig
from tasks.common.errors import TaskError
from tasks.common.stage_main import read_json, write_json
from tasks.promotion.baseline import registry_of
from tasks.promotion.registry import Registry
from tasks.promotion.rule import read_comparison
from tasks.review.objects import check_current
from tasks.review.present import frames_of_present, present_objects
from tasks.scoring.outcomes import USUAL_MIN_SCORE
from tasks.tools.chosen_score import min_score_of
from tasks.tools.label_files import SUMMARY, foreign_files
from tasks.tools.training_set import FORMATS, write_training_set

WHATS = ("pseudo", "dataset", "predictions", "file", "training")
TOOLS = ("cvat", "label-studio", "coco", "yolo-seg")
"""Formats that label tools import as pre-annotations."""
SENT_FILE = "sent.parquet"
"""The masks of an export for a label tool, with which `review --import` compares what comes back."""
LABELS_FILE = "labels.json"
"""Of an export for CVAT: the labels, for the constructor of a task."""
_WITH_MASKS = ("strong", "val", "kept_aside")


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and how.

    Attributes:
        what: `pseudo` (the pseudo labels of the weak images), `dataset` (the masks that were ingested),
            `predictions` (of the model on the val images), `file` (an annotation file), `training` (a folder for
            other trainers: images, true masks and pseudo labels; see training_set.py).
        format: one of `data.annotations.export.EXPORTS`.
        masks: of pseudo labels: `refined` or `rough`; of `training` those of `student`.
        min_score: of pseudo labels and predictions: the lowest score that is exported. None: all pseudo labels; of
            predictions those from the score on that was chosen on the val images, but all as coco-results.
        model: of predictions: `student`, `teacher`, or `baseline`, the model that the student was compared with.
        annotations: of `file`: a file or folder in any format that ingest reads.
        images: of `file`: the image root, for formats without all sizes and names; None: not needed.
        decisions: of pseudo labels: the folder of decisions, to export the masks as reviewers left them, for
            correction in a label tool (see `for_tool`). None: pseudo labels as the networks drew them.
        image_url: of label-studio: what precedes an image's name in its address.
        student: of `training`: which pseudo labels are used, and what is ignored.
    """

    what: str
    format: str
    masks: str = "refined"
    min_score: float | None = None
    model: str = "student"
    annotations: Path | None = None
    images: Path | None = None
    decisions: Path | None = None
    image_url: str = LOCAL_FILES
    student: StudentConfig | None = None

    @property
    def for_tool(self) -> bool:
        """Whether the export is for correction: all images with clicks, the reviewers' decisions, `SENT_FILE`."""
        return self.decisions is not None


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
    if request.student is not None:
        student = request.student
        if request.min_score is not None:
            student = student.model_copy(update={"min_score": request.min_score})
        summary["min_score"] = student.min_score
        pseudo = read_pseudo(workspace)
        with atomic_dir(out) as folder:
            summary["parts"] = write_training_set(folder, request.format, workspace, pseudo, student)
            write_json(folder / SUMMARY, summary)
        return summary
    parts = _for_tool(request, workspace, least) if request.for_tool else _parts(request, workspace, least)
    with atomic_dir(out) as folder:
        for name, frames, categories in parts:
            write = write_for_tool if request.for_tool else write_frames
            summary["parts"][name] = write(
                folder, name, request.format, frames, categories, image_url=request.image_url
            )
        write_json(folder / SUMMARY, summary)
    return summary


def write_for_tool(
    folder: Path,
    name: str,
    tool: str,
    frames: Iterable[Frame],
    categories: Sequence[Category],
    *,
    image_url: str = LOCAL_FILES,
) -> dict[str, Any]:
    """`write_frames` in one of the formats `TOOLS`, to be corrected: also `SENT_FILE`, with the masks, and for
    CVAT the labels of a task.

    Returns:
        Counts, as `write_frames`.
    """
    sent = _Sent(frames, categories)
    counts = write_frames(folder, name, tool, sent, categories, image_url=image_url, attributes=True)
    write_parquet(sent.table(), folder / SENT_FILE)
    if tool == "cvat":
        write_labels(folder / LABELS_FILE, categories)
    return counts


def _check(request: ExportRequest, out: Path) -> None:
    if request.what not in WHATS:
        raise TaskError(f"--what: found {request.what!r}, expected one of {', '.join(WHATS)}")
    if request.format not in EXPORTS:
        raise TaskError(f"--format: found {request.format!r}, expected one of {', '.join(EXPORTS)}")
    if request.format == "coco-results" and request.what in ("dataset", "file"):
        raise TaskError(
            f"--format coco-results: found --what {request.what}, whose masks have no scores; use coco"
        )
    if (request.what == "training") != (request.student is not None):
        raise TaskError("--what training and the settings of the student go together")
    if request.what == "training" and request.format not in FORMATS:
        raise TaskError(
            f"--format: found {request.format!r}, expected {' or '.join(FORMATS)} with --what training, a folder for "
            "other trainers"
        )
    if (request.what == "file") != (request.annotations is not None):
        raise TaskError("--what file and --annotations FILE go together: give both or neither")
    if request.for_tool and (request.what != "pseudo" or request.format not in TOOLS):
        raise TaskError(
            f"--to: found --what {request.what}, format {request.format!r}; expected pseudo, and {', '.join(TOOLS)}"
        )
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
    frames = frames_of_pseudo(weak, read_pseudo(workspace), request.masks, least)
    return [("pseudo", frames, weak.categories)]


def _for_tool(
    request: ExportRequest, workspace: Path, least: float
) -> list[tuple[str, Iterator[Frame], Sequence[Category]]]:
    """Masks with the decisions made so far, on all images that have clicks."""
    assert request.decisions is not None
    weak = Split.open(workspace / "dataset" / "weak")
    pseudo = read_pseudo(workspace)
    check_current(pseudo, weak, workspace / "pseudo")
    decisions = read_decisions(request.decisions).decisions
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    objects = present_objects(pseudo, points, weak, decisions, request.masks, least)
    images = pseudo["image_id"].unique().to_pylist()
    return [("pseudo", frames_of_present(weak, objects, images), weak.categories)]


class _Sent:
    """Frames, whose masks are noted while they are read."""

    def __init__(self, frames: Iterable[Frame], categories: Sequence[Category]) -> None:
        self._frames, self._names = frames, {category.id: category.name for category in categories}
        self._rows: list[tuple[object, ...]] = []

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            self._rows += [
                (one.point_id, frame.file_name, self._names[one.category_id], frame.height, frame.width, one.counts,
                 one.score)
                for one in frame.labels
            ]  # fmt: skip
            yield frame

    def table(self) -> pa.Table:
        """Table SENT."""
        rows = [dict(zip(SENT.names, row, strict=True)) for row in self._rows]
        return pa.Table.from_pylist(rows, schema=SENT)


def read_pseudo(workspace: Path) -> pa.Table:
    """Table PSEUDO.

    Raises:
        DataError: there are no pseudo labels, or of another format.
    """
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
