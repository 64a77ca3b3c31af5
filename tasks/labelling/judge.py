"""The judge: which proposer's mask is used at a click, fitted on held-out strong images.

Each proposer has a gate of its own, for its masks have errors of their own. Then a ridge regression for each predicts
the IoU that its final mask (refined where its gate says so) has with the true one, from what is known without it:
scores, size, agreement with the other proposers' masks, other clicks inside. The mask of the greatest predicted IoU is
used. The rule is measured on images that it was not fitted on (each held-out image in turn is left out).

Few held-out images tell little: on two of nuclei the teacher's masks were 1.3 IoU better than the student's, on the
weak ones 2.2 worse. So one proposer draws all masks by default, the last student if there is one; another takes its
place, and the rules that of both, only if it is better beyond chance, by a t-test over images. judge.json has all
figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from tasks.common.config import Section
from tasks.common.errors import TaskError
from tasks.common.stage_main import read_json, write_json
from tasks.labelling.gate import Gate, mean_over_images
from tasks.labelling.predicted_iou import LEAST_CLICKS, LEAST_IMAGES, Floats, Rule, ridge

FILE = "judge.json"
DRAWN_BY = "drawn by "
"""In the reason of a point's row where there are several proposers: whose mask it has."""
FEATURES = (
    "score",
    "maskness",
    "class_score",
    "log_area",
    "log_area_squared",
    "agreement",
    "misses_click",
    "log_clicks",
)
"""
`score`, `maskness`, `class_score`: of the proposer, 0..1; 0 where it has none.
`log_area`: natural logarithm of the mask's area over the median true mask's of its class; 0 without a mask.
`log_area_squared`: its square, so that masks of unusual size may be judged worse on both sides.
`agreement`: mean IoU with the other proposers' masks at this click.
`misses_click`: 1 where the mask doesn't hold its click.
`log_clicks`: log(1 + other clicks of the class inside the mask).
"""
T_95 = (math.inf, 6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81)
"""By so many standard errors a mean gain over 1, 2, ... images must be above 0 to be more than chance: the 95% quantile
of Student's t for one less; more images count as 11."""


class Judged(NamedTuple):
    """Masks of P proposers at n clicks on held-out objects."""

    images: NDArray[np.int64]
    """[n] id of the object's image"""
    features: Floats
    """[n, P, len(FEATURES)]"""
    iou: Floats
    """[n, P] of the final mask with the true one, 0..1; 0 without a mask"""
    has_mask: NDArray[np.bool_]
    """[n, P]"""


class Judge(Section):
    """The content of judge.json. IoU in percent, of final masks, mean over held-out clicks."""

    proposers: Annotated[tuple[str, ...], Field(min_length=1)]
    typical_areas: tuple[float, ...]
    """of each contiguous class, the median true mask's area in pixels of the resized image"""
    images: int
    clicks: int
    iou: dict[str, float]
    """of each alone; of a proposer with several masks a click also that with its own choice; nothing where nothing was
    measured"""
    judged_iou: float | None
    """of the masks that the rules choose, each image judged by rules fitted on the others"""
    best_iou: float | None
    """of the best of all masks at each click: no choice can be better"""
    alone: str | None
    """the one that is used alone: one of `proposers`, or `sam` (sam-1, sam-2 or sam-3, by its own score); None: the
    rules choose"""
    rules: dict[str, Rule]
    """none where nothing was measured"""
    gates: dict[str, Gate]
    """of each proposer's masks"""

    @model_validator(mode="after")
    def _has_a_rule_for_each(self) -> Self:
        for name, found in (("rules", set(self.rules)), ("gates", set(self.gates))):
            optional = name == "rules" and self.alone is not None
            if found != set(self.proposers) and (found or not optional):
                raise ValueError(f"{name}: found {sorted(found)}, expected {sorted(self.proposers)}")
        for name, rule in self.rules.items():
            if rule.features != len(FEATURES):
                raise ValueError(f"rules.{name}: found {rule.features} weights, expected {len(FEATURES)}")
        if self.alone is not None and not _columns(self.proposers, self.alone):
            raise ValueError(f"alone: found {self.alone!r}, expected one of {list(self.proposers)}")
        return self

    @property
    def final_iou(self) -> float | None:
        """Of the masks in use; None where nothing was measured."""
        return self.judged_iou if self.alone is None else self.iou.get(self.alone)

    def choose(self, features: Floats, has_mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Whose mask is used at each of n clicks: indices [n] of `proposers`. One without a mask loses to one with a
        mask.

        Args:
            features: [n, P, len(FEATURES)].
            has_mask: [n, P].
        """
        if self.alone is not None:
            return _alone(self.proposers, self.alone, features, has_mask)
        return _greatest(_predicted([self.rules[name] for name in self.proposers], features), has_mask)


def fit_judge(
    proposers: Sequence[str],
    measured: Judged,
    default: str,
    gates: Mapping[str, Gate],
    typical_areas: Sequence[float] = (),
) -> Judge:
    """The judge from masks at held-out clicks.

    Args:
        proposers: names, in the order of the columns of `measured`; of equal predictions the first wins.
        default: the proposer that is used alone where no other choice is shown to be better.
        gates: of each proposer's masks; `measured` is of masks that they leave.
    """
    images, clicks = len(np.unique(measured.images)), len(measured.images)
    if images < LEAST_IMAGES or clicks < LEAST_CLICKS:
        return without_rules(proposers, default, gates, typical_areas, images, clicks)
    each = {name: measured.iou[:, p] for p, name in enumerate(proposers)}
    for name in dict.fromkeys(one.rpartition("-")[0] for one in proposers if "-" in one):
        own = _alone(proposers, name, measured.features, measured.has_mask)
        mine = np.isin(own, _columns(proposers, name))  # else it has no mask
        each[name] = np.where(mine, measured.iou[np.arange(clicks), own], 0.0)
    single = {name: float(iou.mean()) for name, iou in each.items()}
    alone = max(single, key=lambda name: single[name])  # of equals the first
    if not _is_gain(measured.images, each[alone] - each[default]):
        alone = default
    chosen = np.empty(clicks, np.int64)
    for image in np.unique(measured.images):
        inside = measured.images == image
        rules = _fit(measured, ~inside)
        predicted = _predicted(rules, measured.features[inside])
        chosen[inside] = _greatest(predicted, measured.has_mask[inside])
    judged = measured.iou[np.arange(clicks), chosen]
    return Judge(
        proposers=tuple(proposers),
        typical_areas=tuple(typical_areas),
        images=images,
        clicks=clicks,
        iou={name: _percent(value) for name, value in single.items()},
        judged_iou=_percent(float(judged.mean())),
        best_iou=_percent(float(measured.iou.max(1).mean())),
        alone=None if _is_gain(measured.images, judged - each[alone]) else alone,
        rules=dict(zip(proposers, _fit(measured, np.ones(clicks, np.bool_)), strict=True)),
        gates=dict(gates),
    )


def _is_gain(images: NDArray[np.int64], gains: Floats) -> bool:
    """Whether gains [n] at clicks on images [n] are above 0 beyond chance."""
    gain, count = mean_over_images(images, gains), len(np.unique(images))
    return gain.mean > T_95[min(count, len(T_95)) - 1] * (gain.error or 0.0)


def without_rules(
    proposers: Sequence[str],
    alone: str,
    gates: Mapping[str, Gate],
    typical_areas: Sequence[float],
    images: int = 0,
    clicks: int = 0,
) -> Judge:
    """The judge where nothing, or too little, was measured."""
    return Judge(
        proposers=tuple(proposers), typical_areas=tuple(typical_areas), images=images, clicks=clicks, iou={},
        judged_iou=None, best_iou=None, alone=alone, rules={}, gates=dict(gates),
    )  # fmt: skip


def in_words(judge: Judge) -> str:
    """What was measured and decided."""
    if judge.judged_iou is None:
        return (
            f"{judge.alone} draws all masks: {_counted(judge.clicks, 'click')} on "
            f"{_counted(judge.images, 'held-out image')} are too few to choose by"
        )
    names = [*judge.proposers, *sorted(judge.iou.keys() - {*judge.proposers})]
    each = ", ".join(f"{name} {judge.iou[name]:.1f}" for name in names)
    where = f"{_counted(judge.clicks, 'click')} on {_counted(judge.images, 'held-out image')}"
    figures = (
        f"IoU of final masks in percent, at {where}: {each}; "
        f"by the judge's choice {judge.judged_iou:.1f}, of the best at each click {judge.best_iou:.1f}"
    )
    used = "the choice is used" if judge.alone is None else f"{judge.alone} draws all masks"
    return f"{figures}; {used}"


def _counted(n: int, thing: str) -> str:
    """`1 click`, `3 clicks`."""
    return f"{n} {thing}{'' if n == 1 else 's'}"


def _columns(proposers: Sequence[str], name: str) -> list[int]:
    """Indices of a proposer's masks."""
    return [p for p, one in enumerate(proposers) if one == name or one.rpartition("-")[0] == name]


def _alone(
    proposers: Sequence[str], name: str, features: Floats, has_mask: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """As `choose`: the masks of one proposer, of several masks a click the one of its highest score."""
    columns = _columns(proposers, name)
    scores = np.full(has_mask.shape, -1.0)
    scores[:, columns] = features[:, columns, FEATURES.index("score")]
    return np.asarray(np.where(has_mask, scores, -np.inf).argmax(1), np.int64)


def _predicted(rules: Sequence[Rule], features: Floats) -> Floats:
    """IoU [n, P]."""
    return np.stack([rule.predict(features[:, p]) for p, rule in enumerate(rules)], axis=1)


def _greatest(predicted: Floats, has_mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """As `choose`: the masks of the greatest prediction."""
    return np.asarray(np.where(has_mask, predicted, -np.inf).argmax(1), np.int64)


def _fit(measured: Judged, rows: NDArray[np.bool_]) -> list[Rule]:
    """A rule for each proposer."""
    return [ridge(measured.features[rows, p], measured.iou[rows, p]) for p in range(measured.iou.shape[1])]


def _percent(value: float) -> float:
    return round(100 * value, 3)


def write_judge(folder: Path, judge: Judge) -> None:
    """Writes `folder`/judge.json."""
    write_json(folder / FILE, judge.model_dump(mode="json"))


def read_judge(folder: Path) -> Judge:
    """
    Raises:
        TaskError: judge.json is missing or damaged.
    """
    path = folder / FILE
    try:
        return Judge.model_validate(read_json(path, "pseudo_label"), strict=False)
    except ValidationError as error:
        first = error.errors()[0]
        fault = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise TaskError(f"{path}: {fault}; make it again with `dvc repro -f pseudo_label`") from None
