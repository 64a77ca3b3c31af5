"""Trains on parts of the project's data, each in a folder of its own: workspace/runs/budget/PART.

Such a folder is a small DVC project with the stages from the teacher to the evaluation, and with the project's cache. A
stage that any part has computed is never computed again, a killed training goes on where it was, and neither the
user's workspace nor git is touched. `dvc exp run --temp` does most of this, but it needs a commit, its copies lack data
that git and DVC don't track, and a killed training starts anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from data.decisions.store import read_decisions
from data.storage import atomic_write
from flows.dvc.environment import environment
from flows.dvc.repo import DvcRepo
from flows.processes.children import stream
from flows.processes.run_lock import holder
from flows.project.create import FILES, dvc_yaml
from tasks.budget.costs import costs
from tasks.budget.parts import Data, Part, short_params
from tasks.budget.record import Measurement
from tasks.budget.scores import measure
from tasks.common import installed_tool
from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError
from tasks.common.project_files import cache_folder
from tasks.common.stage_main import WORKSPACE, run_folder
from tasks.planning.facts import data_facts
from tasks.promotion.baseline import REGISTRY
from tasks.promotion.checkpoint_start import record_checkpoints
from tasks.tools.recipes import values_of

STAGES = (
    "code",
    "train_teacher",
    "train_refiner",
    "train_rounds",
    "pseudo_label",
    "train_student",
    "evaluate",
)
LAST = STAGES[-1]
USED = ("ingest", "import_points")
"""Stages of the project whose results are taken apart."""
SHORT = 4
"""The student's steps are divided by this, unless others are given."""
LEAST_STEPS = 200
PARAMS = "params.yaml"
CHATTER = (
    "> ",
    "Updating lock file",
    "Generating lock file",
    "Use `dvc push`",
    "Data and pipelines are up to date",
)
"""Lines of DVC that aren't shown."""


class Plan(NamedTuple):
    """The trainings of a measurement.

    Attributes:
        root: the project.
        data: its labels.
        parts: by part, its folder, the smallest first.
        params: of the trainings, with the first seed.
        left: parts that aren't finished.
    """

    root: Path
    data: Data
    parts: dict[Part, Path]
    params: Params
    left: list[Part]


def prepare(root: Path, steps: int | None, seeds: int) -> Plan:
    """Writes the folders of all parts; whatever is finished in them stays.

    Args:
        root: the project's folder, which is the current one.
        steps: of the student; None: a quarter of the project's, 200 or more.
        seeds: trainings with different seeds on each part.

    Raises:
        TaskError: ingest or import_points isn't up to date, or there are too few images with masks.
    """
    params = load_params(root / PARAMS)
    repo = DvcRepo(root)
    if not repo.all_done(list(USED)):
        if (who := holder(root)) is not None:
            raise TaskError(f"a run makes the tables of images and clicks: {who}; wait until it has ended")
        raise TaskError(
            "the tables of images and clicks aren't up to date with the data; run `points2model run --target "
            "import_points` first"
        )
    values = values_of((root / PARAMS).read_text(encoding="utf-8"), root / PARAMS)
    if steps is None:
        steps = min(params.student.steps, max(LEAST_STEPS, params.student.steps // SHORT))
    data = Data.open(root / WORKSPACE)
    folder = run_folder(root / WORKSPACE, "budget")
    found = [params.seed + n for n in range(seeds)]
    parts = {part: folder / part.name for part in data.parts(found)}
    for part, own in parts.items():
        _write(root, own, part, data, short_params(values, steps, part.seed, root.resolve()))
    first = load_params(next(iter(parts.values())) / PARAMS)
    left = [part for part, own in parts.items() if not _is_done(own)]
    return Plan(root, data, parts, first, left)


def _write(root: Path, folder: Path, part: Part, data: Data, values: dict[str, Any]) -> None:
    """A part's project: its data, params, stages and registry."""
    data.write(part, folder / WORKSPACE)
    pipeline = yaml.safe_load(dvc_yaml())["stages"]
    texts = {
        PARAMS: yaml.safe_dump(values, sort_keys=False),
        "dvc.yaml": yaml.safe_dump({"stages": {name: pipeline[name] for name in STAGES}}, sort_keys=False),
        ".dvc/config": FILES[".dvc/config"].replace("[core]\n", "[core]\n    no_scm = true\n")
        + f"[cache]\n    dir = {cache_folder(root).resolve()}\n",
        **{name: text for name, text in FILES.items() if name.startswith(REGISTRY)},
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with atomic_write(path) as temporary:
                Path(temporary).write_text(text, encoding="utf-8")
    installed_tool.write(folder)
    record_checkpoints(folder, load_params(folder / PARAMS))


def _is_done(folder: Path) -> bool:
    if not (folder / "dvc.lock").is_file():
        return False
    with chdir(folder):  # elsewhere DVC puts the folder before the names of stages
        return DvcRepo(Path()).all_done(list(STAGES))


class Price(NamedTuple):
    """What the trainings that are left take: parts, and seconds on this machine by stage."""

    parts: int
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def price(plan: Plan) -> Price:
    """A forecast of the time, from a few timed steps. Teacher and refiner are trained once for parts of equal masks."""
    if not plan.left:
        return Price(0, {})
    from tasks.planning.probe import forecast

    data = plan.data
    splits = {"strong": data.strong, "weak": data.weak, "val": data.val}
    facts = data_facts(splits, data.points, colours=False)
    whole = forecast(plan.params, splits, facts)
    seconds = dict.fromkeys(whole._fields, 0.0)
    trained = set(plan.parts) - set(plan.left)
    teachers = {(part.masks, part.seed) for part in trained}
    clicked = len(data.click_images()) / max(1, facts.weak)
    for part in plan.left:
        own = whole._asdict()
        own["pseudo_label"] *= part.clicks * clicked
        if (part.masks, part.seed) in teachers:
            own["train_teacher"] = own["train_refiner"] = 0.0
        teachers.add((part.masks, part.seed))
        for name, value in own.items():
            seconds[name] += value
    return Price(len(plan.left), seconds)


def train(plan: Plan, show: Callable[[str, str], None]) -> None:
    """Trains on the parts that are left.

    Args:
        show: called with a part's name and a line.

    Raises:
        TaskError: a stage of a part fails; what is finished stays.
    """
    for part in plan.left:
        lines: list[str] = []

        def on_line(line: str, name: str = part.name, lines: list[str] = lines) -> None:
            lines.append(line)
            if line.strip() and not line.startswith(CHATTER):
                show(name, line)

        folder = plan.parts[part]
        command = [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", "repro", LAST]
        code = stream(command, cwd=folder, env=environment(folder), on_line=on_line)
        if code != 0:
            end = "\n".join(line for line in lines[-15:] if line.strip())
            raise TaskError(
                f"{folder}: a stage failed; the next `points2model budget` goes on from there:\n{end}"
            )


def measured(
    plan: Plan, mask_seconds: float | None = None, click_seconds: float | None = None
) -> Measurement:
    """The measurement from finished trainings.

    Args:
        mask_seconds, click_seconds: of a person's work for a label; None: from the review, else from the literature.
    """
    decisions = read_decisions(plan.root / load_params(plan.root / PARAMS).review.decisions).decisions
    folders = {part: folder / WORKSPACE for part, folder in plan.parts.items()}
    repo = DvcRepo(plan.root)
    whole = plan.root / WORKSPACE if repo.all_done(list(repo.graph(LAST))) else None
    return measure(plan.data, folders, plan.params, costs(decisions, mask_seconds, click_seconds), whole)
