"""A run's results in words and tables for Prefect's UI; reads the workspace and writes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.common.errors import TaskError
from tasks.promotion.rule import WORDS, Comparison, read_comparison
from tasks.reporting.figures import figure, model_cells, pseudo_cells
from tasks.scoring.metrics import AP

WORKSPACE = Path("workspace")
OUTS = {
    "evaluate": "workspace/evaluation",
    "compare": "workspace/comparison",
    "report": "workspace/report.html",
}
DONE = ("Cached", "Completed")


@dataclass(frozen=True)
class RunFacts:
    """A run and its results.

    Attributes:
        root: the project's folder.
        name: of the run.
        stages: the result of each, in order: StageRun as dicts.
        notes: other events, a sentence each: the intake, the promotion.
    """

    root: Path
    name: str
    stages: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = field(default_factory=tuple)

    def done(self, stage: str) -> bool:
        """Whether the stage's outputs are of this run's data and params; else they may be older."""
        return any(one["name"] == stage and one["state"] in DONE for one in self.stages)

    def failed(self) -> list[str]:
        """The stages that failed."""
        return [one["name"] for one in self.stages if one["state"] == "Failed"]

    @property
    def workspace(self) -> Path:
        """The folder of the pipeline's results."""
        return self.root / WORKSPACE

    def out(self, stage: str) -> str | None:
        """The hash of the output of `stage` in dvc.lock; None where this run hasn't brought it up to date."""
        for one in self.stages:
            if one["name"] == stage and one["state"] in DONE:
                return one["outs"].get(OUTS[stage])
        return None

    def read(self, stage: str, path: str) -> Any:
        """A JSON file of the workspace that `stage` writes; None if it isn't up to date, or has none."""
        file = self.workspace / path
        return json.loads(file.read_text(encoding="utf-8")) if self.done(stage) and file.is_file() else None

    def comparison(self) -> Comparison | None:
        """The comparison with the promoted model, if this run has one."""
        if not self.done("compare"):
            return None
        try:
            return read_comparison(self.workspace)
        except TaskError:  # a pipeline with a stage of that name but another file
            return None


def summary(run: RunFacts, link: str | None) -> str:
    """The run as Markdown; `link` is the report's address."""
    failed = run.failed()
    parts = [f"# {_plain(run.name)}", f"**Failed: {', '.join(failed)}**" if failed else "**Completed**"]
    facts = [*(_plain(note) for note in run.notes), *_points(run)]
    comparison = run.comparison()
    if comparison is not None:
        facts.append(f"Verdict on the student: **{WORDS[comparison.verdict]}**")
    if run.out("report") is not None:
        at = f"[The report]({link}), in the file" if link else "The report is in the file"
        facts.append(f"{at} `{run.root / OUTS['report']}`")
    parts += ["\n".join(f"- {fact}" for fact in facts)] if facts else []
    parts += [_scores(metrics)] if (metrics := run.read("evaluate", "evaluation/metrics.json")) else []
    parts.append(_stages(run))
    parts += [
        f"## Why {one['name']} failed\n\n{_fenced(one['message'])}"
        for one in run.stages
        if one["state"] == "Failed"
    ]
    return "\n\n".join(parts) + "\n"


def headline(run: RunFacts) -> str:
    """The run in a line, for lists of runs and the summary's history."""
    failed = run.failed()
    ran = sum(one["state"] == "Completed" for one in run.stages)
    parts = [f"failed: {', '.join(failed)}" if failed else f"{ran} of {len(run.stages)} stages ran"]
    metrics = run.read("evaluate", "evaluation/metrics.json")
    if metrics is not None and {"teacher", "student"} <= metrics.keys():
        parts.append(
            f"student AP {figure(metrics['student'][AP.key])} (teacher {figure(metrics['teacher'][AP.key])})"
        )
    comparison = run.comparison()
    if comparison is not None:
        parts.append(WORDS[comparison.verdict])
    return "; ".join(parts)


def _points(run: RunFacts) -> list[str]:
    manifest = run.read("import_points", "points/manifest.json")
    if manifest is None or "counts" not in manifest:
        return []
    counts = manifest["counts"]
    why = ", ".join(
        f"{count:,} {_plain(str(reason).replace('_', ' '))}"
        for reason, count in manifest.get("rejected_because", {}).items()
    )
    text = f"Points: {counts['points']:,} on {counts['images']:,} images, {counts['rejected']:,} rejected"
    files = counts.get("files_rejected", 0)
    return [text + (f" ({why})" if why else "") + (f", {files:,} whole files rejected" if files else "")]


def _scores(metrics: Mapping[str, Mapping[str, float | None]]) -> str:
    if not {"teacher", "student", "pseudo"} <= metrics.keys():
        return ""
    rows = [(metric.label, *cells) for metric, *cells in model_cells(metrics)]
    table = _table(("mask AP, %", "teacher", "student", "difference"), rows, "lrrr")
    rows = [(f"{metric.label}, {metric.unit}", *cells) for metric, *cells in pseudo_cells(metrics)]
    masks = _table(("pseudo masks", "rough", "refined", "difference"), rows, "lrrr")
    pseudo = metrics["pseudo"]
    made = f"{pseudo['masks']:,} of {pseudo['points']:,} points became masks."
    return f"{table}\n\n{masks}\n\n{made}"


def _stages(run: RunFacts) -> str:
    rows = [
        (
            one["name"],
            one["state"],
            f"{one['seconds']:.1f}" if one["state"] != "Not run" else "",
            one["message"] if one["state"] == "Completed" else "",
        )
        for one in run.stages
    ]
    return _table(("stage", "state", "seconds", ""), rows, "llrl")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> str:
    rule = ["---:" if side == "r" else "---" for side in sides]
    lines = [head, rule, *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ap_table(run: RunFacts) -> list[dict[str, str]] | None:
    """AP in all and by class: teacher, promoted model, student, and the student's difference to the promoted one.

    The difference has its interval over draws of the val images. None where this run has no student scored.
    """
    details = run.read("evaluate", "evaluation/details.json")
    metrics = run.read("evaluate", "evaluation/metrics.json")
    if details is None or metrics is None:
        return None
    comparison = run.comparison()
    classes = zip(details["teacher"]["per_class"], details["student"]["per_class"], strict=True)
    changes = {one.category_id: one for one in comparison.classes} if comparison is not None else {}
    whole = _changes(comparison.overall if comparison is not None else None, comparison)
    rows = [_row("all", "", metrics["teacher"][AP.key], metrics["student"][AP.key]) | whole]
    for teacher, student in classes:
        row = _row(student["name"], f"{student['instances']:,}", teacher[AP.key], student[AP.key])
        rows.append(row | _changes(changes.get(student["category_id"]), comparison))
    return rows


def _row(name: str, objects: str, teacher: float | None, student: float | None) -> dict[str, str]:
    return {"class": name, "objects": objects, "teacher": figure(teacher), "student": figure(student)}


def _changes(change: Any, comparison: Comparison | None) -> dict[str, str]:
    version = comparison.baseline.version if comparison is not None else None
    if comparison is None or version is None:
        return {}
    column, interval = f"promoted ({version})", f"{100 * comparison.confidence:g}% interval"
    if change is None:
        return {column: "–", "difference": "–", interval: "–", "tolerated": ""}
    return {
        column: figure(change.baseline),
        "difference": _signed(change.difference),
        interval: "–" if change.low is None else f"{_signed(change.low)} to {_signed(change.high)}",
        "tolerated": "no" if change.broken else "yes",
    }


def ap_caption(run: RunFacts) -> str:
    """The table's caption."""
    comparison = run.comparison()
    text = "Mask AP on the validation images, in percent."
    if comparison is None:
        return text
    if comparison.baseline.version is None:
        return f"{text} No model is promoted yet."
    return f"{text} The student is **{WORDS[comparison.verdict]}**. {_plain(' '.join(comparison.reasons))}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}".replace("-", "−")


def _plain(text: str) -> str:
    """Text with Markdown and HTML escaped: names of files and classes are data."""
    escaped = re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("\\<", "&lt;").replace("\\>", "&gt;")


def _fenced(text: str) -> str:
    """A code block with any text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"
