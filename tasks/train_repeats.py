"""Trains the student again with other seeds (promotion.repeats), to measure how far AP depends on chance in training.

workspace/repeats:
  seed-K/        as workspace/student, for each further seed K; none with promotion.repeats: 1
  manifest.json
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from data.storage import atomic_dir, discard_partials
from tasks.common import processes
from tasks.common.config import Params
from tasks.common.stage_main import run_folder, stage_main, write_manifest
from tasks.promotion.trainings import REPEATS, further_seeds, repeat_name

log = logging.getLogger(__name__)


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/repeats, all of it or nothing.

    A run that was killed continues in the training that it was in, as train_student does. Trainings that have ended are
    kept in workspace/runs until the last one has.

    Raises:
        TaskError: see `tasks.train_student.train`.
    """
    seeds = further_seeds(params)
    folders = {seed: run_folder(workspace, "train_repeats") / repeat_name(seed) for seed in seeds}
    if seeds:
        from tasks.train_student import train  # torch takes seconds, and there is most often nothing to train

        for n, (seed, folder) in enumerate(folders.items(), start=1):
            log.info("train_repeats: a student with seed %d, %d of %d", seed, n, len(seeds))
            train(params.model_copy(update={"seed": seed}), workspace, folder / "student", folder, once=True)
    if not processes.is_first():
        return
    discard_partials(workspace, REPEATS)
    with atomic_dir(workspace / REPEATS) as out:
        for seed, folder in folders.items():
            shutil.copytree(folder / "student", out / repeat_name(seed))
        write_manifest(out, "train_repeats", {"trainings": len(seeds)}, seeds=seeds)
    for folder in run_folder(workspace, "train_repeats").glob("seed-*/"):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    stage_main("train_repeats", run, parallel=True)
