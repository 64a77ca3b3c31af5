"""The student's further trainings, with other seeds (promotion.repeats): where they are, and what their AP shows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from tasks.common.config import Params
from tasks.promotion.baseline import Trainings

REPEATS = "repeats"
"""Their folder in the workspace."""


def further_seeds(params: Params) -> list[int]:
    """Their seeds; none with `promotion.repeats: 1`."""
    return list(range(params.seed + 1, params.seed + params.promotion.repeats))


def repeat_name(seed: int) -> str:
    """The folder of the one with this seed."""
    return f"seed-{seed}"


def summary_text(found: Trainings) -> str:
    """Mean, standard deviation (of a sample) and AP of each training, in a sentence."""
    known = [ap for ap in found.AP if ap is not None]
    name = f"AP over {len(found.seeds)} trainings (seeds {found.seeds[0]} to {found.seeds[-1]})"
    if len(known) < len(found.AP):
        return f"{name} is undefined."
    listed = ", ".join(f"{ap:.2f}" for ap in known)
    return f"{name}: {found.mean():.2f} ± {statistics.stdev(known):.2f} (sd); {listed}."


def fitting(found: Trainings | None, ap: float | None, by_class: Mapping[int, float | None]) -> bool:
    """Whether a model's trainings were measured like its AP here, over all classes and by category_id.

    With equal images, classes, settings and hardware the model itself has the same AP.
    """
    if found is None or found.first() != ap:
        return False
    return dict(by_class) == {category_id: found.first(category_id) for category_id in found.classes}


def other_side_text(version: str, found: Trainings | None, fits: bool) -> str:
    """What the mean over the student's trainings is compared with: a model's own mean if its trainings fit."""
    if found is None:
        return f"The mean is compared with the AP of {version}, which was trained once."
    if fits:
        return f"The mean is compared with that of the {len(found.seeds)} trainings of {version}."
    return (
        f"The mean is compared with the AP of {version} alone: its {len(found.seeds)} trainings were measured on other "
        "images or classes, with other settings, or on other hardware."
    )
