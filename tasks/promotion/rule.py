"""The verdict on a student that was compared with the promoted model, with AP of both and reasons.

AP is mask AP in percent on the val images, as in stage evaluate; differences are in AP points.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from tasks.common.config import PromotionConfig
from tasks.common.errors import TaskError
from tasks.promotion.baseline import Baseline, ModelHash, Record, Trainings, read_record

FOLDER = "comparison"
FILE = "comparison.json"

Verdict = Literal["first", "behind_teacher", "same", "better", "within_tolerance", "worse", "unknown"]
PROMOTABLE: tuple[Verdict, ...] = ("first", "better", "within_tolerance")
WORDS: dict[Verdict, str] = {
    "first": "the first model",
    "behind_teacher": "worse than its own teacher",
    "same": "the promoted model itself",
    "better": "better",
    "within_tolerance": "no better, but within the tolerance",
    "worse": "worse than tolerated",
    "unknown": "not comparable",
}
"""Each verdict on the new student in words."""


class Change(Record):
    """AP of the promoted model and of the student, each the mean over its trainings if there are several; None where
    undefined."""

    baseline: float | None
    candidate: float | None
    difference: float | None
    """candidate minus baseline"""
    low: float | None
    high: float | None
    """the ends of the interval of the difference over draws of the images"""
    broken: bool
    """whether AP falls by more than the tolerance"""


class ClassChange(Change):
    """The same for a class; `objects` is the number of its true objects."""

    category_id: int
    name: str
    objects: int


class Comparison(Record):
    """workspace/comparison/comparison.json."""

    verdict: Verdict
    reasons: list[str]
    baseline: Baseline
    """the model that the student was compared with"""
    model: ModelHash
    """of the student"""
    overall: Change
    """over the classes that both have; of a first model over its own"""
    classes: list[ClassChange]
    only_baseline: list[str]
    """names of classes that the new model doesn't have"""
    only_candidate: list[str]
    """names of classes that the old model doesn't have"""
    images: int
    draws: int
    confidence: float
    ap_tolerance: float
    class_tolerance: float
    trainings: Trainings | None = Field(default=None, exclude_if=lambda found: found is None)
    """of the student, if there are several; over the same classes as `overall`"""


def read_comparison(workspace: Path) -> Comparison:
    """comparison.json of stage `compare`.

    Raises:
        TaskError: it is missing or damaged.
    """
    path = workspace / FOLDER / FILE
    if not path.is_file():
        raise TaskError(f"{path}: no such file; `points2model run` makes it")
    try:
        return read_record(path, Comparison)
    except TaskError:
        raise TaskError(
            f"{path}: damaged, or of another version; rebuild it with `dvc repro -f compare`"
        ) from None


def difference(before: float | None, after: float | None) -> float | None:
    """`after` minus `before`, rounded to 3 decimals; None unless both are defined."""
    return None if before is None or after is None else round(after - before, 3)


def change(
    before: float | None,
    after: float | None,
    tolerance: float,
    low: float | None = None,
    high: float | None = None,
) -> Change:
    """The change of AP: a fall of exactly `tolerance` AP points is tolerated, a larger one isn't."""
    moved = difference(before, after)
    broken = moved is not None and moved < -tolerance
    return Change(baseline=before, candidate=after, difference=moved, low=low, high=high, broken=broken)


def moved(change: Change, to: Change) -> Change:
    """`to` with the interval of `change`, which moves as far as the difference does."""
    if change.low is None or change.high is None or change.difference is None or to.difference is None:
        return to
    by = to.difference - change.difference
    return to.model_copy(update={"low": round(change.low + by, 3), "high": round(change.high + by, 3)})


def behind_teacher(teacher: float | None, student: float | None, config: PromotionConfig) -> str | None:
    """Why a first student isn't promoted: its teacher, which never saw a click, is better; None if it isn't.

    Later students are compared with the promoted model instead.
    """
    fall = difference(teacher, student)
    if teacher is None or student is None or fall is None or fall >= -config.ap_tolerance:
        return None
    return (
        f"Its AP is {student:.2f}, and that of its teacher, which learnt from the drawn masks alone, {teacher:.2f}: it "
        f"falls by more than the {config.ap_tolerance:g} that promotion.ap_tolerance allows."
    )


def judge(
    overall: Change, classes: Sequence[ClassChange], version: str, config: PromotionConfig
) -> tuple[Verdict, list[str]]:
    """Verdict on a student against the model of `version`, which isn't the same model, and the reasons."""
    if overall.difference is None:
        why = "no class is known to both" if not classes else "no class that both know has an object there"
        return "unknown", [f"The val images can't tell it from {version}: {why}."]
    reasons = [_reason("AP", overall, config.ap_tolerance, "ap_tolerance", _interval(overall, config))]
    if overall.low is not None and overall.high is not None and overall.low <= 0 <= overall.high:
        reasons.append("The interval holds 0: on these images the difference may be chance.")
    broken = [one for one in classes if one.broken]
    for one in sorted(broken, key=lambda one: one.difference or 0.0):
        reasons.append(
            _reason(
                f"AP of {one.name}", one, config.class_tolerance, "class_tolerance", _interval(one, config)
            )
        )
    if overall.broken or broken:
        return "worse", reasons
    known = [one for one in classes if one.difference is not None]
    least = min(known, key=lambda one: one.difference or 0.0)
    if least.difference is not None and least.difference < 0:
        reasons.append(
            f"No class loses more than the {config.class_tolerance:g} tolerated; the most is "
            f"{_signed(least.difference)} ({least.name})."
        )
    else:
        reasons.append("No class loses anything.")
    return ("better" if overall.difference > 0 else "within_tolerance"), reasons


def _reason(what: str, change: Change, tolerance: float, key: str, interval: str) -> str:
    assert change.difference is not None
    if change.difference == 0:
        return f"{what} stays at {change.candidate:.2f}{interval}."
    verb = "rises" if change.difference > 0 else "falls"
    hidden = f"{change.baseline:.2f}" == f"{change.candidate:.2f}"  # "rises from 20.00 to 20.00"
    hidden |= change.broken and round(-change.difference, 2) <= tolerance  # "(−0.50): more than the 0.5"
    places = 3 if hidden else 2
    moved = f"{_signed(change.difference, places)}{interval}"
    fact = f"{what} {verb} from {change.baseline:.{places}f} to {change.candidate:.{places}f} ({moved})"
    if change.broken:
        return f"{fact}: more than the {tolerance:g} that promotion.{key} allows."
    if change.difference < 0:
        return f"{fact}: within the {tolerance:g} that promotion.{key} allows."
    return f"{fact}."


def _interval(change: Change, config: PromotionConfig) -> str:
    if change.low is None or change.high is None:
        return ""
    return f"; {100 * config.confidence:g}% of draws of the images: {_signed(change.low)} to {_signed(change.high)}"


def _signed(value: float, places: int = 2) -> str:
    """With a sign (a true minus) and `places` decimals."""
    return f"{value:+.{places}f}".replace("-", "−")
