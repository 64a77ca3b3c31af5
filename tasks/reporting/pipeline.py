"""The report's picture of the pipeline: what each stage made, and how long it took."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from tasks.common.progress import format_seconds
from tasks.reporting.charts import safe
from tasks.reporting.figures import count
from tasks.reporting.graph import Stage

BOX, GAP, ROW = (124, 88), 24, 118
MARGIN = 6


class Step(NamedTuple):
    """A stage, lines of facts on its results, and run.json of its last run here (None: from the cache)."""

    stage: Stage
    facts: list[str]
    run: dict[str, Any] | None

    @property
    def seconds(self) -> float:
        """0 without a run here."""
        return 0.0 if self.run is None else float(self.run["seconds"])


def steps_of(graph: Sequence[Stage], workspace: Path, counts: Mapping[str, Mapping[str, Any]]) -> list[Step]:
    """The stages of a graph with what the manifests count (`counts` by folder of the workspace)."""
    facts = _facts(counts)
    return [Step(stage, facts.get(stage.name, []), run_record(workspace, stage.name)) for stage in graph]


def run_record(workspace: Path, stage: str) -> dict[str, Any] | None:
    """workspace/runs/STAGE/run.json; None if the stage hasn't run on this machine."""
    path = workspace / "runs" / stage / "run.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return record


def _facts(counts: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    def of(folder: str, key: str) -> int:
        return int(counts.get(folder, {}).get(key, 0))

    def images_and_steps(folder: str) -> list[str]:
        return [count(of(folder, "images"), "image"), count(of(folder, "steps"), "step")]

    images = sum(of(f"dataset/{name}", "images") for name in ("strong", "weak", "val"))
    masks = sum(of(f"dataset/{name}", "instances") for name in ("strong", "val"))
    rejected, files = of("points", "rejected"), of("points", "files_rejected")
    rejects = f"{rejected:,} + {count(files, 'file')}" if files else f"{rejected:,}"
    made = of("pseudo", "ok") + of("pseudo", "rough")
    return {
        "make_demo": [count(images, "image")],
        "ingest": [count(images, "image"), count(masks, "mask")],
        "import_points": [count(of("points", "points"), "point"), f"{rejects} rejected"],
        "train_teacher": images_and_steps("teacher"),
        "train_refiner": images_and_steps("refiner"),
        "pseudo_label": [count(made, "mask"), f"from {count(of('pseudo', 'points'), 'point')}"],
        "train_student": images_and_steps("student"),
        "train_rounds": [count(of("rounds", "rounds"), "earlier round")],
        "train_repeats": [count(of("repeats", "trainings"), "more training")],
        "evaluate": [count(of("evaluation", "val_images"), "image"), "2 models"],
        "compare": [count(of("comparison", "classes"), "class"), count(of("comparison", "draws"), "draw")],
    }


def picture(steps: Sequence[Step]) -> Markup:
    """The pipeline as an SVG: boxes with facts and times, arrows where results flow, bars for shares of time."""
    stages = {step.stage.name: step.stage for step in steps}
    longest = max([step.seconds for step in steps] + [1e-9])
    width = (
        2 * MARGIN + (max((stage.column for stage in stages.values()), default=0) + 1) * (BOX[0] + GAP) - GAP
    )
    height = 2 * MARGIN + ROW * max((stage.row for stage in stages.values()), default=0) + BOX[1]
    parts = [_arrow(stages[name], stage) for stage in stages.values() for name in stage.after]
    parts += [_box(step, longest) for step in steps]
    return safe(
        f'<svg class="pipeline" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="The stages of the pipeline with their counts and times"><defs>'
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0L8 4L0 8Z"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )


def _corner(stage: Stage) -> tuple[int, int]:
    return MARGIN + stage.column * (BOX[0] + GAP), MARGIN + stage.row * ROW


def _arrow(source: Stage, target: Stage) -> str:
    (x0, y0), (x1, y1) = _corner(source), _corner(target)
    right, middle = x0 + BOX[0], BOX[1] // 2
    if y0 == y1:
        path = f"M{right} {y0 + middle}H{x1 - 2}"
    elif y0 < y1:  # down to a lower row: out at the right, in at the left
        path = f"M{right} {y0 + middle}H{right + GAP // 2}V{y1 + middle}H{x1 - 2}"
    else:  # up again: along the lower row, in from below
        path = f"M{right} {y0 + middle}H{x1 + BOX[0] // 2}V{y1 + BOX[1] + 2}"
    return f'<path class="arrow" marker-end="url(#tip)" d="{path}"/>'


def _box(step: Step, longest: float) -> str:
    x, y = _corner(step.stage)
    time = "from the cache" if step.run is None else format_seconds(step.seconds)
    share = step.seconds / longest * (BOX[0] - 20)
    lines = "".join(
        f'<text class="fact" x="{x + 10}" y="{y + 40 + 15 * i}">{escape(fact)}</text>'
        for i, fact in enumerate(step.facts[:2])
    )
    return (
        f"<g><title>{escape(step.stage.description)}</title>"
        f'<rect class="box" x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="8"/>'
        f'<text class="name" x="{x + 10}" y="{y + 21}">{escape(step.stage.name)}</text>{lines}'
        f'<text class="time" x="{x + 10}" y="{y + 73}">{time}</text>'
        f'<rect class="share" x="{x + 10}" y="{y + 79}" width="{share:.1f}" height="3" rx="1.5"/></g>'
    )
