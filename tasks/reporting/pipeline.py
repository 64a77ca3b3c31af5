"""The report's picture of the line: what each step got done, and in how long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from tasks.common.progress import format_seconds
from tasks.reporting.charts import safe
from tasks.reporting.figures import count

BOX, GAP, ROW = (124, 88), 24, 118
MARGIN = 6


class Step(NamedTuple):
    """One box: the stage, what people call it, where it stands, the steps whose results it reads."""

    stage: str
    title: str
    column: int
    row: int
    after: tuple[str, ...]


STEPS = (
    Step("make_demo", "Draw demo set", 0, 0, ()),
    Step("ingest", "Read data set", 1, 0, ("make_demo",)),
    Step("import_points", "Import points", 1, 1, ("make_demo",)),
    Step("train_teacher", "Train teacher", 2, 0, ("ingest",)),
    Step("train_refiner", "Train refiner", 3, 0, ("train_teacher",)),
    Step("pseudo_label", "Make masks", 4, 0, ("train_refiner", "import_points")),
    Step("train_student", "Train student", 5, 0, ("pseudo_label",)),
    Step("evaluate", "Evaluate", 6, 0, ("train_student",)),
    Step("compare", "Compare", 7, 0, ("evaluate",)),
)


class Done(NamedTuple):
    """What a step did: lines of facts, and seconds where it ran on this machine (None: from the cache)."""

    step: Step
    facts: list[str]
    seconds: float | None


def done_steps(workspace: Path, image_root: str, counts: dict[str, dict[str, Any]]) -> list[Done]:
    """The steps of this workspace's line, with what the manifests count (`counts` by folder)."""
    # Someone's own images don't come from the demo's step.
    own_data = not Path(image_root).is_relative_to(workspace / "demo")
    facts = _facts(counts)
    return [
        Done(step, facts.get(step.stage, []), seconds_of(workspace, step.stage))
        for step in STEPS
        if not (own_data and step.stage == "make_demo")
    ]


def run_record(workspace: Path, stage: str) -> dict[str, Any] | None:
    """workspace/runs/STAGE/run.json; None where the step hasn't run on this machine."""
    path = workspace / "runs" / stage / "run.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return record


def seconds_of(workspace: Path, stage: str) -> float | None:
    """How long the step took when it last ran on this machine."""
    record = run_record(workspace, stage)
    return None if record is None else float(record["seconds"])


def _facts(counts: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    def of(folder: str, key: str) -> int:
        return int(counts.get(folder, {}).get(key, 0))

    images = sum(of(f"dataset/{name}", "images") for name in ("strong", "weak", "val"))
    masks = sum(of(f"dataset/{name}", "instances") for name in ("strong", "val"))
    rejected, files = of("points", "rejected"), of("points", "files_rejected")
    told = f"{rejected:,} + {count(files, 'file')}" if files else f"{rejected:,}"
    made = of("pseudo", "ok") + of("pseudo", "rough")
    return {
        "make_demo": [count(images, "image")],
        "ingest": [count(images, "image"), count(masks, "mask")],
        "import_points": [count(of("points", "points"), "point"), f"{told} rejected"],
        "train_teacher": [count(of("teacher", "images"), "image"), count(of("teacher", "steps"), "step")],
        "train_refiner": [count(of("refiner", "images"), "image"), count(of("refiner", "steps"), "step")],
        "pseudo_label": [count(made, "mask"), f"from {count(of('pseudo', 'points'), 'point')}"],
        "train_student": [count(of("student", "images"), "image"), count(of("student", "steps"), "step")],
        "evaluate": [count(of("evaluation", "val_images"), "image"), "2 models"],
        "compare": [count(of("comparison", "classes"), "class"), f"{of('comparison', 'draws'):,} draws"],
    }


def picture(steps: list[Done]) -> Markup:
    """The line as an SVG: boxes with facts and times, arrows where results flow, bars for shares of time."""
    present = {one.step.stage: one.step for one in steps}
    first = min(one.step.column for one in steps)
    longest = max([one.seconds or 0 for one in steps] + [1e-9])
    width = 2 * MARGIN + (max(one.step.column for one in steps) - first + 1) * (BOX[0] + GAP) - GAP
    height = 2 * MARGIN + ROW * max(one.step.row for one in steps) + BOX[1]
    parts = []
    for step in present.values():
        for name in step.after:
            if name in present:
                parts.append(_arrow(present[name], step, first))
    parts += [_box(one, first, longest) for one in steps]
    return safe(
        f'<svg class="line-picture" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="The steps of the line with their counts and times"><defs>'
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0L8 4L0 8Z"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )


def _corner(step: Step, first: int) -> tuple[float, float]:
    return MARGIN + (step.column - first) * (BOX[0] + GAP), MARGIN + step.row * ROW


def _arrow(source: Step, target: Step, first: int) -> str:
    (x0, y0), (x1, y1) = _corner(source, first), _corner(target, first)
    right, middle = x0 + BOX[0], BOX[1] / 2
    if y0 == y1:
        path = f"M{right} {y0 + middle}H{x1 - 2}"
    elif y0 < y1:  # down to a lower row: out at the right, in at the left
        bend = right + GAP / 2
        path = f"M{right} {y0 + middle}H{bend}V{y1 + middle}H{x1 - 2}"
    else:  # up again: along the lower row, in from below
        path = f"M{right} {y0 + middle}H{x1 + BOX[0] / 2}V{y1 + BOX[1] + 2}"
    return f'<path class="arrow" marker-end="url(#tip)" d="{path}"/>'


def _box(one: Done, first: int, longest: float) -> str:
    x, y = _corner(one.step, first)
    time = "from the cache" if one.seconds is None else format_seconds(one.seconds)
    share = (one.seconds or 0) / longest * (BOX[0] - 20)
    lines = "".join(
        f'<text class="fact" x="{x + 10}" y="{y + 40 + 15 * i}">{escape(fact)}</text>'
        for i, fact in enumerate(one.facts[:2])
    )
    return (
        f"<g><title>{escape(one.step.stage)}</title>"
        f'<rect class="box" x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="8"/>'
        f'<text class="name" x="{x + 10}" y="{y + 21}">{escape(one.step.title)}</text>{lines}'
        f'<text class="time" x="{x + 10}" y="{y + 73}">{time}</text>'
        f'<rect class="share" x="{x + 10}" y="{y + 79}" width="{share:.1f}" height="3" rx="1.5"/></g>'
    )
