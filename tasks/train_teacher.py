"""Trains the teacher, a SOLOv2, on the strong images (those with masks), except for some that are held out."""

from __future__ import annotations

import logging
from pathlib import Path

from data.tables import Split
from tasks.common import processes
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.common.stage_main import stage_main
from tasks.promotion.baseline import registry_of
from tasks.promotion.checkpoint_start import checked_checkpoint
from tasks.training.detector import train_detector
from tasks.training.holdout import classes_by_image, draw_held_out

log = logging.getLogger(__name__)


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/teacher: model.safetensors, model.json, milestones/STEP/, held_out.json, log.jsonl,
    manifest.json. For the held-out images see tasks/training/holdout.py.

    Raises:
        TaskError: no strong image has a mask, or the checkpoint of `teacher.start` doesn't fit.
    """
    strong = Split.open(workspace / "dataset" / "strong")
    if not len(strong.instances):
        raise TaskError(
            f"{strong.root}: found no mask, expected at least one image with masks to learn from; "
            "name a COCO file with masks in ingest.strong"
        )
    held_out = draw_held_out(classes_by_image(strong), params.teacher.holdout, params.seed)
    if processes.is_first():
        _log_exceptions(params, strong, held_out)
    checkpoint, initial = params.teacher.checkpoint, None
    if checkpoint is not None:
        initial = checked_checkpoint(registry_of(workspace), "teacher", checkpoint)
    train_detector(
        "train_teacher", params, params.teacher, [strong], workspace, workspace / "teacher",
        milestones=params.teacher.milestones, held_out=held_out, initial=initial,
    )  # fmt: skip


def _log_exceptions(params: Params, strong: Split, held_out: frozenset[int]) -> None:
    held = set(strong.instances["category_id"].unique().to_pylist())
    for category in strong.categories:
        if category.id not in held:
            log.warning(
                "train_teacher: class %r has no mask among the strong images; it can't be learnt",
                category.name,
            )
    if params.teacher.holdout and not held_out:
        log.warning(
            "train_teacher: every strong image is the last one with some class, so none is held out: refinement can't "
            "be measured and is always used"
        )
    elif held_out:
        log.info(
            "train_teacher: %d of %d strong images are held out, to measure refinement",
            len(held_out), len(strong),
        )  # fmt: skip


if __name__ == "__main__":
    stage_main("train_teacher", run, parallel=True)
