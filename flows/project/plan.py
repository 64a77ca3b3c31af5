"""Plans params.yaml of the project in the current folder: reads the data, applies the rules, times some steps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from data.annotations.records import DEFAULT_CLASS
from data.remote.fetch import local_copy
from data.storage import atomic_write, is_s3
from data.tables import Split
from tasks.common.config import Params
from tasks.common.errors import NO_PROJECT, TaskError
from tasks.common.progress import format_seconds
from tasks.common.stage_main import S3_CACHE, WORKSPACE
from tasks.doctor.doctor import FOLDER as DOCTOR
from tasks.doctor.doctor import read_data
from tasks.doctor.finding import Diagnosis
from tasks.doctor.needs import memory_free
from tasks.import_points import read_files
from tasks.planning.facts import Facts, data_facts, machine_facts
from tasks.planning.recipe import NAME, PARAMS, Kept, Written, params_of, recipe_text, write_params
from tasks.planning.rules import Choices, Planned, plan
from tasks.tools.recipes import FOLDER, values_of, whole

if TYPE_CHECKING:
    from tasks.planning.probe import Forecast

log = logging.getLogger(__name__)

RECIPE = FOLDER / f"{NAME}.yaml"
OWN_DATA = ("ingest", "points")
MASK_CLASS = "ingest.mask_class"
TITLE = "report.title"


@dataclass(frozen=True)
class Plan:
    """A plan that was written."""

    planned: list[Planned]
    kept: list[Kept]
    facts: Facts
    seconds: dict[str, float]
    """Forecast by stage"""
    diagnosis: Diagnosis
    notes: list[str]
    """On the machine and the budget"""


LEAST_STEPS = 0.2
"""Of the usual steps: with fewer, nothing useful is learnt."""
RESERVE = 0.9
"""Of a budget that is planned: starts of stages, and a forecast that is too low."""


def make_plan(
    data: Sequence[Planned], choices: Choices, budget: float | None = None, dry: bool = False
) -> Plan:
    """Plans, and writes recipes/plan.yaml and params.yaml.

    Args:
        data: the values of sections `ingest` and `points`; none: those of params.yaml.
        choices: of the person.
        budget: seconds for a whole run; None: the usual numbers of steps.
        dry: write nothing.

    Raises:
        TaskError: the data have faults, all of which are in its text; or a value can't be used.
    """
    before = whole(RECIPE) if RECIPE.is_file() else None
    current = PARAMS.read_text(encoding="utf-8") if PARAMS.is_file() else None
    data = list(data) or _data_of(current)
    log.info("plan: reading images, masks and clicks")
    params = _params(data, None, None)[1]
    splits, points, diagnosis = _read(params)
    name = None if points is None else _class_of_clicks(params, splits)
    if name is not None:
        reason = "the class of the clicks: these masks have none"
        data = [Planned(one.key, name, reason) if one.key == MASK_CLASS else one for one in data]
        splits, points, diagnosis = _read(_params(data, None, None)[1])
    if points is not None and not len(points) and any(one.check == "points" for one in diagnosis.warnings):
        raise TaskError("no click can be used:\n" + "\n".join(f"  - {one}" for one in diagnosis.warnings))
    facts, machine = data_facts(splits, points), machine_facts(memory_free())
    choices = replace(choices, weights=choices.weights or local_weights(machine.gpu is not None))
    params = _params([*data, *plan(facts, machine, choices)], current, before)[1]

    from tasks.planning.probe import BUSY, busy, fastest, forecast

    log.info("plan: timing some steps of each training")
    notes = [BUSY.format(load=load, cores=machine.cores)] if (load := busy(machine)) else []
    if params.ingest.kept_aside is not None and not facts.kept_aside:
        found = "ingest.kept_aside: its files have no mask, so pseudo masks aren't measured"
        notes.append(f"{found}; name masks of images with clicks, or set it to null")
    precision, threads = fastest(params, splits["strong"], machine)
    choices = replace(choices, precision=precision, threads=threads)
    written, params = _params([*data, *plan(facts, machine, choices)], current, before)
    times = forecast(params, splits, facts)
    if budget is not None:
        steps, times, note = _fit_trainings(budget, times, written.kept)
        notes += [note] if note else []
        choices = replace(choices, steps=steps)
    planned = [*data, *plan(facts, machine, choices)]
    written, params = _params(planned, current, before)
    if not dry:
        _write(planned, written)
    return Plan(planned, written.kept, facts, times._asdict(), diagnosis, notes)


def _fit_trainings(
    budget: float, times: Forecast, kept: Sequence[Kept]
) -> tuple[float, Forecast, str | None]:
    """The factor of the steps of trainings, the times with it, and a note as `_fit` has it. A training whose number of
    steps a person has set keeps its time."""
    own = {one.key for one in kept}
    sections = [name for name in ("teacher", "refiner", "student") if f"{name}.steps" not in own]
    trainings = sum(getattr(times, f"train_{name}") for name in sections)
    steps, note = _fit(budget, sum(times) - trainings, trainings)
    return steps, times.scaled(steps, sections), note


def _fit(budget: float, fixed: float, trainings: float) -> tuple[float, str | None]:
    """The factor of all steps with which a run fits into a budget, at least `LEAST_STEPS`; a note if it doesn't fit, or
    if the trainings are shorter than usual.

    Args:
        budget: seconds.
        fixed: seconds of what doesn't depend on the number of steps.
        trainings: seconds of the trainings at the usual numbers of steps; 0: all have numbers of their own.
    """
    if not trainings:
        text = f"--budget: the numbers of steps are yours; a run with them takes {format_seconds(fixed)}"
        return 1.0, text if fixed > budget else None
    steps = (RESERVE * budget - fixed) / trainings
    if steps >= 1:
        return steps, None
    usual = format_seconds(fixed + trainings)
    if steps >= LEAST_STEPS:
        text = f"--budget: {100 * steps:.0f}% of the usual steps fit into it; the model is better with all, in {usual}"
        return steps, text
    least = format_seconds(fixed + LEAST_STEPS * trainings)
    text = (
        f"--budget: {format_seconds(budget)} isn't enough; planned is the least that learns something, {least}; the "
        f"model is better with all usual steps, in {usual}"
    )
    return LEAST_STEPS, text


def _read(params: Params) -> tuple[dict[str, Split], pa.Table | None, Diagnosis]:
    """
    Raises:
        TaskError: the data have faults, all of which are in its text.
    """
    diagnosis = Diagnosis()
    files = params.points.files
    has_points = is_s3(files) or not Path(files).is_dir() or any(Path(files).iterdir())
    found = read_data(params, WORKSPACE / DOCTOR, diagnosis, points=has_points)
    if found is None or diagnosis.errors:
        raise TaskError("the data have faults:\n" + "\n".join(f"  - {one}" for one in diagnosis.errors))
    return *found, diagnosis


def _class_of_clicks(params: Params, splits: Mapping[str, Split]) -> str | None:
    """The name for masks that have no class of their own, if all clicks have one class; None where there is nothing to
    name.

    Raises:
        TaskError: the clicks have several classes.
    """
    if params.ingest.mask_class is not None or [one.name for one in splits["strong"].categories] != [
        DEFAULT_CLASS
    ]:
        return None
    files = str(local_copy(params.points.files, WORKSPACE / S3_CACHE))
    found = read_files(params.points.model_copy(update={"files": files}), files, None)[0]
    names = {str(one.category) for one in found.records if one.category is not None and one.problem is None}
    if len(names) > 1:
        raise TaskError(
            f"{params.ingest.annotations}: masks without classes, and clicks of {len(names)} classes "
            f"({', '.join(sorted(names)[:10])}); put the masks into a sub-folder for each class, or name the one "
            "class of all with --mask-class"
        )
    return None if names <= {DEFAULT_CLASS} else names.pop()


def _params(planned: Sequence[Planned], current: str | None, before: str | None) -> tuple[Written, Params]:
    """params.yaml with these planned values."""
    written = write_params(recipe_text(planned), RECIPE, current, before)
    return written, params_of(written.text)


def _write(planned: Sequence[Planned], written: Written) -> None:
    FOLDER.mkdir(exist_ok=True)
    for path, text in ((RECIPE, recipe_text(planned)), (PARAMS, written.text)):
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _data_of(current: str | None) -> list[Planned]:
    """What params.yaml says of the data: where they are, and their name."""
    if current is None:
        raise TaskError(f"{PARAMS}: no such file; {NO_PROJECT}")
    values = values_of(current, PARAMS)
    title = values.get("report", {}).get("title")
    own = [Planned(TITLE, title, "")] if title is not None else []
    return own + [
        Planned(f"{section}.{key}", value, "")
        for section in OWN_DATA
        for key, value in values.get(section, {}).items()
    ]


def planned_orientation() -> bool | None:
    """Whether the plan that was written trains on any orientation; None: there is no plan."""
    if not RECIPE.is_file():
        return None
    values = values_of(whole(RECIPE), RECIPE)
    return bool(values["teacher"]["augment"]["rotate90"])


def local_weights(gpu: bool) -> str | None:
    """The backbone whose ImageNet weights are on this machine; on a GPU a ResNet-50 first."""
    from models.backbones.config import BackboneConfig
    from tasks.doctor.weights import missing_weights

    for name in ("resnet50", "efficientnet_lite0", "resnet18") if gpu else ("efficientnet_lite0", "resnet18"):
        backbone = BackboneConfig(
            name=name, width=1.0, norm="frozen_bn", norm_groups=8, frozen_stages=2, stride_in_1x1=False,
            weights="imagenet",
        )  # fmt: skip
        if missing_weights(backbone, Path()) is None:
            return name
    return None


def summary(plan: Plan) -> dict[str, Any]:
    """For --json."""
    return {
        "values": {one.key: {"value": one.value, "reason": one.reason} for one in plan.planned},
        "kept": [one._asdict() for one in plan.kept],
        "seconds": {name: round(value, 1) for name, value in plan.seconds.items()},
        "warnings": [str(one) for one in plan.diagnosis.warnings] + plan.notes,
    }
