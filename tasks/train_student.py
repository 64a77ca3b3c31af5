"""Trains the student on strong images with their masks and weak images with their pseudo masks.

It is a SOLOv2, or a network of transformers (`student.network`).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from data.tables import POINTS, PSEUDO, Split, read_parquet
from tasks.common import processes
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.common.stage_main import run_folder, stage_main
from tasks.intake.decisions import read_reviewed
from tasks.promotion.baseline import checked_model, read_start, registry_of
from tasks.promotion.checkpoint_start import checked_checkpoint
from tasks.train_rounds import STUDENT
from tasks.training.detector import solov2_learner, train_detector
from tasks.training.queries import query_learner
from tasks.training.student_labels import with_pseudo_masks

log = logging.getLogger(__name__)


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/student: model.safetensors, model.json, log.jsonl, manifest.json.

    With `student.masks: none` it trains on the strong images only, as a baseline without pseudo masks.
    """
    train(params, workspace, workspace / "student", run_folder(workspace, "train_student"))


class Round(NamedTuple):
    """One of the earlier rounds (tasks/train_rounds.py)."""

    stage: str
    masks: Path
    """the folder of pseudo labels"""
    before: Path | None
    """the student of the round before, which this one goes on from; None in the first round"""
    held_out: frozenset[int]
    """ids of strong images that it isn't trained on"""


def train(
    params: Params, workspace: Path, out: Path, runs: Path, once: bool = False, earlier: Round | None = None
) -> None:
    """Trains a student with `params.seed` and writes it to `out`; what an interrupted run resumes from is in `runs`.

    Args:
        once: it isn't trained again if the same training wrote `out` before.
        earlier: the round that it is trained in; None: the last one.

    Raises:
        TaskError: there are no pseudo labels, or the model of `student.start` can't be used.
    """
    strong = Split.open(workspace / "dataset" / "strong")
    splits = [strong]
    if params.student.masks != "none":
        weak = Split.open(workspace / "dataset" / "weak")
        pseudo = read_pseudo(workspace / "pseudo" if earlier is None else earlier.masks)
        points = read_parquet(workspace / "points" / "points.parquet", POINTS)
        decisions = read_reviewed(workspace / "points")
        folder = runs / "weak"
        processes.join()
        with processes.first_alone() as first:
            if first:
                with_pseudo_masks(weak, strong, points, pseudo, params.student, folder, decisions)
        labelled = Split.open(folder)
        ignored = sum(labelled.instances["iscrowd"].to_pylist())
        log.info(
            "train_student: %d of %d points have a usable mask, on %d of %d weak images; the surroundings of %d more "
            "points on these images are ignored",
            len(labelled.instances) - ignored, len(pseudo), len(labelled), len(weak), ignored,
        )  # fmt: skip
        if len(decisions):
            sources = labelled.instances["source"].to_pylist()
            log.info(
                "train_student: %d of these masks were accepted or drawn by reviewers",
                sources.count("review"),
            )
        if len(labelled):
            splits.append(labelled)
    before = earlier.before if earlier is not None else workspace / STUDENT if params.rounds > 1 else None
    train_detector(
        "train_student" if earlier is None else earlier.stage, params, params.student, splits, workspace, out,
        held_out=None if earlier is None else earlier.held_out,
        first_share=params.student.strong_share,
        first_end=params.student.strong_end,
        initial=before or _initial(params, workspace, earlier is not None),
        runs=runs,
        once=once,
        make=solov2_learner if params.student.network is None else query_learner,
    )  # fmt: skip


def _initial(params: Params, workspace: Path, earlier: bool) -> Path | None:
    """The checkpoint of `student.start`; None for random weights.

    In an `earlier` round it isn't the promoted model, which was trained on the held-out images too: on these, where the
    judge measures them, the student's masks would look better than they are.
    """
    if params.student.start == "teacher":
        return workspace / "teacher"
    if params.student.start == "scratch":
        return None
    registry = registry_of(workspace)
    if params.student.checkpoint is not None:
        return checked_checkpoint(registry, "student", params.student.checkpoint)
    start = read_start(registry)
    if start.version is None or start.model is None:
        log.info(
            "train_student: student.start is promoted, but no model is promoted yet: it starts from scratch"
        )
        return None
    if earlier:
        log.info(
            "train_student: starts from the teacher, not from the promoted model %s, which was trained on the held-out "
            "images",
            start.version,
        )  # fmt: skip
        return workspace / "teacher"
    folder = checked_model(registry, start.version, start.model)
    log.info("train_student: starts from the promoted model %s", start.version)
    return folder


def read_pseudo(folder: Path) -> pa.Table:
    """All parts of the pseudo labels, in order.

    Raises:
        TaskError: there is none.
    """
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise TaskError(f"{folder}: no part-*.parquet; they are made by `dvc repro pseudo_label`")
    return pa.concat_tables([read_parquet(part, PSEUDO) for part in parts])


if __name__ == "__main__":
    stage_main("train_student", run, parallel=True)
