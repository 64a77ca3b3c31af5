"""Why an image was chosen, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.reporting.figures import count
from tasks.suggestion.choice import ALIKE, Choice, Floats, Pool

TELLING = 0.25
"""Least share of its value by which a part is a reason."""
NAMED = 2
"""Classes that are named at most."""


def reasons(
    pool: Pool, chosen: Sequence[Choice], names: Sequence[str], clicked: Sequence[bool]
) -> list[list[str]]:
    """For each choice its reasons, the most telling first.

    Args:
        names: of the classes, C.
        clicked: [N], whether a candidate's objects are known from clicks.
    """
    found = []
    masks = pool.masks.astype(np.float64).copy()
    for n, one in enumerate(chosen):
        objects, missed = pool.objects[one.row], pool.doubts[one.row]
        parts = (
            (one.gains[0], _diversity(one, labelled=len(pool.labelled) > 0, first=n == 0)),
            (one.gains[1], _classes(objects, masks, names)),
            (one.gains[2], _doubt(objects, missed, names, clicked[one.row])),
        )
        total = sum(one.gains)
        telling = [(gain, text) for gain, text in parts if text and gain > 0 and gain >= TELLING * total]
        found.append(
            [text for _, text in sorted(telling, key=lambda part: -part[0])] or ["nothing better is left"]
        )
        masks += objects
    return found


def _diversity(one: Choice, labelled: bool, first: bool) -> str:
    others = " and ".join(["images with masks"] * labelled + ["images chosen before it"] * (not first))
    like = f", and {count(one.stands_for - 1, 'more image')} like it" if one.stands_for > 1 else ""
    if others and one.likeness < ALIKE:
        return f"unlike all {others}{like}"
    if one.stands_for > 1:
        return f"{count(one.stands_for, 'image')} are more like it than like any {others or 'other'}"
    return f"differs from all {others}" if others else "stands for itself"


def _classes(objects: Floats, masks: Floats, names: Sequence[str]) -> str:
    gains = np.log1p(masks + objects) - np.log1p(masks)
    order = np.argsort(-gains, kind="stable").tolist()[:NAMED]
    order = [c for c in order if objects[c] >= 0.5 and gains[c] >= TELLING * gains.max()]
    return ", ".join(f"{objects[c]:.0f} {names[c]} (masks so far: {masks[c]:.0f})" for c in order)


def _doubt(objects: Floats, missed: Floats, names: Sequence[str], clicked: bool) -> str:
    if missed.sum() < 0.5:
        return ""
    order = np.argsort(-missed, kind="stable").tolist()[:NAMED]
    most = " and ".join(names[c] for c in order if missed[c] >= 0.2 * missed.sum())
    what = (
        "of {} clicked objects the model misses about {}"
        if clicked
        else "of about {} objects the model doubts {}"
    )
    return what.format(f"{objects.sum():.0f}", f"{missed.sum():.0f}") + (
        f", mostly {most}" if len(names) > 1 else ""
    )
