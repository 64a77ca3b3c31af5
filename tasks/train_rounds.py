"""Labels the weak images and trains students in rounds before the last one (`rounds`), each with the masks of the last.

workspace/rounds:
  student/       the last of these students, which proposes masks in the last round; not there with `rounds: 1`
  rounds.json    for each round the IoU of its masks on held-out images, and whether a student was trained
  manifest.json

In each round the last student is one of the proposers (tasks/labelling/judge.py), and the next student goes on from it.
These students aren't trained on the held-out strong images, or their masks there would show nothing. If the judge uses
none of a student's masks, or the masks of a third round or later are no better there than those of the round before, no
further round is made.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from data.storage import atomic_dir, discard_partials
from tasks.common import processes
from tasks.common.config import Params
from tasks.common.stage_main import run_folder, stage_main, write_json, write_manifest

log = logging.getLogger(__name__)

STAGE = "train_rounds"
FOLDER = "rounds"
STUDENT = Path(FOLDER, "student")
"""In the workspace."""


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/rounds, all of it or nothing.

    A run that was killed continues in the labelling or training that it was in. Rounds that have ended are kept in
    workspace/runs until the last one has.

    Raises:
        TaskError: see `tasks.pseudo_label.label` and `tasks.train_student.train`.
    """
    figures: list[dict[str, Any]] = []
    student: Path | None = None
    if params.rounds > 1:  # importing torch takes seconds, and there is most often nothing to do
        student = _rounds(params, workspace, figures)
    if not processes.is_first():
        return
    discard_partials(workspace, FOLDER)
    with atomic_dir(workspace / FOLDER) as out:
        if student is not None:
            shutil.copytree(student, out / "student")
        write_json(out / "rounds.json", figures)
        measured = {"held_out_iou": [one["held_out_iou"] for one in figures]} if figures else {}
        write_manifest(out, STAGE, {"rounds": len(figures)}, **measured)
    shutil.rmtree(run_folder(workspace, STAGE) / "all", ignore_errors=True)


def _rounds(params: Params, workspace: Path, figures: list[dict[str, Any]]) -> Path:
    """The last student; appends each round's figures."""
    from data.tables import Split
    from tasks.pseudo_label import label
    from tasks.train_student import Round, train
    from tasks.training.holdout import read_held_out

    held_out = read_held_out(workspace / "teacher", Split.open(workspace / "dataset" / "strong"))
    student: Path | None = None
    for number in range(1, params.rounds):
        runs = run_folder(workspace, STAGE) / "all" / f"round-{number}"
        runs.mkdir(parents=True, exist_ok=True)
        log.info("train_rounds: round %d of %d", number, params.rounds)
        before = None if student is None else student.relative_to(workspace)
        label(params, workspace, runs / "pseudo", runs, before, STAGE)
        iou, by_student = _held_out(workspace, runs / "pseudo")
        better = number == 1 or (
            by_student and (number == 2 or iou is None or iou > figures[-1]["held_out_iou"])
        )
        figures.append({"round": number, "held_out_iou": iou, "trained": better})
        if not better:
            log.info(
                "train_rounds: on held-out images the masks of round %d have an IoU of %s, those before %s%s: no "
                "further round",
                number, iou, figures[-2]["held_out_iou"], "" if by_student else ", and none is the student's",
            )  # fmt: skip
            break
        earlier = Round(STAGE, runs / "pseudo", student, held_out)
        train(params, workspace, runs / "student", runs, once=True, earlier=earlier)
        student = runs / "student"
    assert student is not None  # the first round always trains one
    return student


def _held_out(workspace: Path, pseudo: Path) -> tuple[float | None, bool]:
    """IoU of final masks in percent, None where nothing was measured; and whether masks of the student are used."""
    from tasks.labelling.gate import read_gate
    from tasks.labelling.judge import FILE, read_judge

    if (pseudo / FILE).is_file():
        judge = read_judge(pseudo)
        return judge.final_iou, judge.alone in (None, "student")
    return read_gate(workspace / "refiner").iou, False


if __name__ == "__main__":
    stage_main("train_rounds", run, parallel=True, on_ray=True)
