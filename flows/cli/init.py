"""The commands `points2model init` and `plan`: a project of your own data, and its params.yaml."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import Console, JsonOption, command_console, log_progress, print_json
from tasks.common.errors import TaskError

if TYPE_CHECKING:
    from flows.project.plan import Plan
    from tasks.planning.rules import Choices, Planned

INIT_EXAMPLE = (
    "Example: points2model init pedestrians --images photos --masks masks/ --points clicks.json   |   "
    "points2model init cells --images s3://lab/cells --masks train.json --val val.json --points clicks/ --budget 30m"
)
PLAN_EXAMPLE = "Example: points2model plan   |   points2model plan --show   |   points2model plan --budget 2h"
SHOWN = (
    "ingest.val", "ingest.mask_class", "threads", "input.short_side", "model.backbone.weights", "teacher.steps",
    "teacher.holdout", "student.steps", "teacher.augment.invert",
)  # fmt: skip
"""The values that init prints."""
TRAININGS = ("teacher", "refiner", "student")

Budget = Annotated[
    str | None,
    typer.Option(help="Time for a whole run, such as 30m or 2h: the numbers of steps fit into it."),
]
Rotated = Annotated[
    bool | None,
    typer.Option(
        "--any-orientation/--upright",
        help="Whether objects lie in any orientation (microscope, from above). Default: by the images.",
    ),
]


def init(
    project: Annotated[Path, typer.Argument(help="The folder to make.")],
    images: Annotated[str, typer.Option(help="The folder of all images, or s3://BUCKET/PREFIX.")],
    masks: Annotated[
        list[str], typer.Option(help="A file or folder of masks (docs/masks.md); repeat it for several.")
    ],
    points: Annotated[
        list[str] | None,
        typer.Option(
            help="A file of clicks, or a folder of files (docs/points.md); repeat it for several files."
        ),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(
            help="Masks to measure on: a file or folder, or a share of the images with masks. Default: the part `val` "
            "of a folder of masks that has one, else 0.2."
        ),
    ] = None,
    kept_aside: Annotated[
        str | None,
        typer.Option(
            help="Masks of some images with clicks, a file or folder: pseudo masks are measured with them, and nothing "
            "is trained on them."
        ),
    ] = None,
    mask_class: Annotated[
        str | None, typer.Option(help="The class of masks that have none, such as label maps [object].")
    ] = None,
    budget: Budget = None,
    any_orientation: Rotated = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="No prompts; take the defaults.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a project of your own data: a folder with params.yaml, planned from images, masks, clicks and machine.

    The data stay where they are. Every planned value has its reason in a comment; change any of them. If the data have
    faults, all are listed, and no folder is left.
    """
    from flows.project.sources import check_paths, ingest_values, mask_files, points_values

    measured = _val(val)
    others = {"--val": measured, "--kept-aside": kept_aside}
    further = {flag: name for flag, name in others.items() if isinstance(name, str)}
    check_paths(project, images, masks, points or [], further)
    seconds = _seconds(budget)

    from flows.project.create import new_project, stage_all
    from flows.project.plan import TITLE, make_plan
    from tasks.planning.rules import Choices, Planned

    console = command_console(as_json)
    log_progress()
    prompts = not yes and not as_json and sys.stdin.isatty()
    with new_project(project, mask_files(project, [*masks, *further.values()])):
        data = ingest_values(project, images, masks, measured, mask_class, kept_aside)
        data += [*points_values(project, points or []), Planned(TITLE, project.resolve().name, "")]
        choices = Choices(any_orientation=_orientation(any_orientation, prompts))
        with chdir(project):
            plan = make_plan(data, choices, seconds)
        stage_all(project)
    if as_json:
        _print_json(plan)
        return
    show(plan, console, whole=False)
    first = "" if points else f"put files of clicks into {project / 'points'}, "
    step = "" if budget else "; shorter: `points2model plan --budget 20m` there"
    console.text(f"next: {first}`cd {project}`, then `points2model run`{step}")


def plan(
    budget: Budget = None,
    any_orientation: Rotated = None,
    show_only: Annotated[bool, typer.Option("--show", help="Show the plan, and write nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Plan params.yaml anew from the data as they are now; values that you set stay.

    The plan is recipes/plan.yaml. A value of params.yaml that isn't the former plan's is yours.
    """
    from flows.project.create import upgrade
    from flows.project.plan import make_plan

    log_progress()
    upgraded = None if show_only else upgrade(Path())
    made = make_plan([], _choices(any_orientation), _seconds(budget), dry=show_only)
    if as_json:
        _print_json(made)
        return
    show(made, command_console(), whole=True)
    if upgraded is not None:
        command_console().note(upgraded)


def _choices(any_orientation: bool | None) -> Choices:
    """Without an option, the orientation of the last plan."""
    from flows.project.plan import planned_orientation
    from tasks.planning.rules import Choices

    return Choices(any_orientation=planned_orientation() if any_orientation is None else any_orientation)


def _val(val: str | None) -> str | float | None:
    """A path, or a share."""
    from data.storage import is_s3

    if val is None or is_s3(val) or Path(val).exists():
        return val
    try:
        share = float(val)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise TaskError(f"--val: found {val!r}, expected a file, a folder, or a share such as 0.2")
    return share


def _orientation(given: bool | None, prompts: bool) -> bool | None:
    if given is not None or not prompts:
        return given
    found = typer.prompt(
        "Do objects lie in any orientation, as under a microscope or from above? yes, no, auto", "auto"
    )
    return {"y": True, "n": False}.get(found.strip().lower()[:1])


def _seconds(budget: str | None) -> float | None:
    if budget is None:
        return None
    found = re.fullmatch(r"\s*([0-9.]+)\s*(s|m|min|h|d)\s*", budget)
    if found is None:
        raise TaskError(f"--budget: found {budget!r}, expected a time such as 30m, 2h or 1d")
    return float(found[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}[found[2]]


def _print_json(plan: Plan) -> None:
    from flows.project.plan import summary

    print_json(summary(plan))


def show(plan: Plan, console: Console, whole: bool) -> None:
    """Prints facts, planned values with reasons (all, or the most important ones), the person's values, the time."""
    from rich.markup import escape

    from tasks.common.progress import format_seconds
    from tasks.tools.recipes import on_one_line

    facts = plan.facts
    console.text(
        f"{facts.strong:,} images with masks, {facts.val:,} to measure on, {facts.weak:,} without; "
        f"{sum(facts.masks.values()):,} masks and {sum(facts.clicks.values()):,} clicks of "
        f"{len(facts.classes)} class{'es'[: 2 * (len(facts.classes) != 1)]}"
        + (f"; {facts.kept_aside:,} masks kept aside" if facts.kept_aside else "")
    )
    rows = _grouped([one for one in plan.planned if whole or one.key in SHOWN])
    for keys, value, reason in rows:
        console.print(f"  {escape(keys)}: {escape(on_one_line(value))}  [dim]# {escape(reason)}[/]")
    if not whole:
        console.text(f"  all {len(plan.planned)} values, each with its reason: params.yaml")
    for kept in plan.kept:
        console.note(
            f"{kept.key}: {on_one_line(kept.value)} is yours and stays; planned: {on_one_line(kept.planned)}"
        )
    for finding in plan.diagnosis.warnings:
        console.note(str(finding))
    for line in plan.notes:
        console.note(line)
    parts = ", ".join(f"{name} {format_seconds(value)}" for name, value in plan.seconds.items())
    console.text(f"a run takes about {format_seconds(sum(plan.seconds.values()))} on this machine: {parts}")


def _grouped(planned: Sequence[Planned]) -> list[tuple[str, object, str]]:
    """(keys, value, reason): what is equal in teacher, refiner and student is one row."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    values: dict[tuple[str, str, str], Planned] = {}
    for one in planned:
        section, _, key = one.key.partition(".")
        if one.reason:
            place = (key, repr(one.value), one.reason) if section in TRAININGS else (one.key, "", "")
            rows.setdefault(place, []).append(section)
            values[place] = one
    return [
        (
            f"{', '.join(sections)}: {place[0]}" if place[1] else place[0],
            values[place].value,
            values[place].reason,
        )
        for place, sections in rows.items()
    ]
