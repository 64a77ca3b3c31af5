"""The promoted model, which commands use by default, and where the current student stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tasks.common.errors import TaskError
from tasks.common.stage_main import WORKSPACE
from tasks.promotion.baseline import REGISTRY
from tasks.promotion.registry import Entry, Registry
from tasks.promotion.rule import FILE, FOLDER, WORDS, read_comparison


class PromotedModel(NamedTuple):
    """The promoted version's folder, and its entry in the registry."""

    folder: Path
    entry: Entry

    def description(self) -> str:
        """Which model it is, in words."""
        found = self.entry.comparison
        ap = found.overall.candidate if found.trainings is None else found.trainings.first()
        figure = "" if ap is None else f", AP {ap:.1f} on its val images"
        return f"model: {self.entry.version}, the promoted one{figure} ({self.entry.when[:10]})"


def promoted_model(root: Path) -> PromotedModel:
    """The promoted model of the project at `root`, fetched from DVC's cache or remote where it isn't checked out.

    Raises:
        TaskError: nothing is promoted, the registry is damaged, or the model can't be fetched.
    """
    from flows.registry.versions import fetch

    entry = _promoted(root)
    folder = fetch(root, entry.version, entry.model)
    return PromotedModel(folder.relative_to(root) if folder.is_relative_to(root) else folder, entry)


def promoted_predictions(workspace: Path) -> tuple[str, str]:
    """Whose predictions on the val images are the promoted model's, `student` or `baseline`, and an explanation.

    Raises:
        TaskError: nothing is promoted, or its predictions aren't in the workspace.
    """
    entry = _promoted(workspace.parent)
    comparison = read_comparison(workspace)
    if comparison.model == entry.model:
        return "student", f"predictions of {entry.version}, the promoted model, which is the current student"
    if comparison.baseline.version == entry.version:
        return (
            "baseline",
            f"predictions of {entry.version}, the promoted model; the current student isn't promoted",
        )
    raise TaskError(
        f"the promoted model {entry.version} is neither the current student nor what it was compared with, so its "
        "predictions on the val images aren't here: use --model student, or use `points2model predict`"
    )


def standing_of(root: Path) -> dict[str, Any] | None:
    """Where the current student stands: promoted (the promoted version), version and decision (of the student; None
    before one), verdict, reasons. None where nothing was compared.

    Raises:
        TaskError: the registry or the comparison is damaged.
    """
    if not (root / WORKSPACE / FOLDER / FILE).is_file():
        return None
    comparison = read_comparison(root / WORKSPACE)
    registry = Registry(root / REGISTRY)
    entry = registry.entry_of(comparison.model)
    return {
        "promoted": registry.promoted().version,
        "version": entry.version if entry is not None else None,
        "decision": entry.decision if entry is not None else None,
        "verdict": comparison.verdict,
        "reasons": comparison.reasons,
    }


def standing(root: Path) -> str:
    """Where the current student stands, in a line."""
    found = standing_of(root)
    if found is None:
        return "promotion: the student wasn't compared"
    promoted, version = found["promoted"], found["version"]
    why = f"{WORDS[found['verdict']]}. {' '.join(found['reasons'])}"
    if version is None:
        return f"promotion: not decided; {promoted or 'nothing'} is promoted. This student is {why}"
    if version == promoted:
        return f"promotion: this student is {version}, which is promoted. It was {why}"
    if found["decision"] == "promoted":
        return f"promotion: this student is {version}, which was promoted before; {promoted} is now"
    return f"promotion: this student, {version}, is refused; {promoted or 'nothing'} is promoted. It is {why}"


def _promoted(root: Path) -> Entry:
    registry = Registry(root / REGISTRY)
    version = registry.promoted().version
    if version is None:
        raise TaskError(
            f"{root / REGISTRY}: nothing is promoted here, expected a model to use by default; choose one with --model "
            "(the current student: workspace/student), or promote it with `points2model promote` (a refused one with "
            "--force)"
        )
    return registry.entry(version)
