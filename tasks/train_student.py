"""Trains the student, a SOLOv2, on strong images with their masks and weak images with their pseudo masks."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa

from data.tables import POINTS, PSEUDO, Split, read_parquet
from tasks import processes
from tasks.config import Params
from tasks.detector import train_detector
from tasks.errors import TaskError
from tasks.step import run_folder, stage_main
from tasks.student_labels import with_pseudo_masks

log = logging.getLogger(__name__)


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/student: model.safetensors, model.json, log.jsonl, manifest.json.

    With `student.masks: none` the student sees the strong images alone: the control that shows what the pseudo
    masks add to as many steps of training.
    """
    strong = Split.open(workspace / "dataset" / "strong")
    splits = [strong]
    if params.student.masks != "none":
        weak = Split.open(workspace / "dataset" / "weak")
        pseudo = read_pseudo(workspace / "pseudo")
        points = read_parquet(workspace / "points" / "points.parquet", POINTS)
        folder = run_folder(workspace, "train_student") / "weak"
        processes.join()
        with processes.first_alone() as first:
            if first:
                with_pseudo_masks(weak, strong, points, pseudo, params.student, folder)
        labelled = Split.open(folder)
        ignored = sum(labelled.instances["iscrowd"].to_pylist())
        log.info(
            "train_student: %d of %d points give a mask, on %d of %d weak images; around %d more on these images "
            "nothing is learnt",
            len(labelled.instances) - ignored, len(pseudo), len(labelled), len(weak), ignored,
        )  # fmt: skip
        if len(labelled):
            splits.append(labelled)
    train_detector(
        "train_student", params, params.student, splits, workspace, workspace / "student",
        first_share=params.student.strong_share,
        initial=workspace / "teacher" if params.student.start == "teacher" else None,
    )  # fmt: skip


def read_pseudo(folder: Path) -> pa.Table:
    """All parts of the pseudo labels, in order.

    Raises:
        TaskError: there are none.
    """
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise TaskError(f"{folder}: no part-*.parquet; they are made by `dvc repro pseudo_label`")
    return pa.concat_tables([read_parquet(part, PSEUDO) for part in parts])


if __name__ == "__main__":
    stage_main("train_student", run, parallel=True)
