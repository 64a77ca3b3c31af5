"""The gate: for which sizes of rough masks refinement is used, decided on held-out strong images.

gate.json in the refiner's folder records the measurement and the decisions. Sizes are areas of rough masks in pixels of
the resized image (`input`), so that images of different sizes compare.

A refiner with a positive mean gain may still make small masks worse, or large ones. A size with too few objects follows
the decision over all sizes. Objects of one image aren't independent, so the standard error is taken over images:
refinement is refused where its mean gain is below 0 by more than a number of standard errors. The refiner's weights are
chosen on the same objects, so these figures are slightly optimistic; those of `evaluate`, on masks kept aside, aren't.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from tasks.common.config import Section
from tasks.common.errors import TaskError
from tasks.common.stage_main import read_json, write_json
from tasks.labelling.predicted_iou import LEAST_CLICKS, LEAST_IMAGES, ROW_FEATURES, Rule, ridge

FILE = "gate.json"
FORMAT = 3
REFUSAL = "gate:"
"""The start of the reason in the row of a point whose mask the gate keeps rough."""


class Measured(NamedTuple):
    """One row per click on a held-out object; n rows."""

    images: NDArray[np.int64]
    """[n] id of the object's image"""
    objects: NDArray[np.int64]
    """[n] id of the clicked instance"""
    clicks: NDArray[np.str_]
    """[n] `random` (an inner pixel) or `centre` (of mass)"""
    areas: NDArray[np.float64]
    """[n] of the rough mask, in pixels of the resized image; 0 without a mask"""
    rough_iou: NDArray[np.float64]
    """[n] with the true mask, 0..1"""
    refined_iou: NDArray[np.float64]
    """[n] the same for the refined mask, or for the rough one where the refined mask is empty"""
    features: NDArray[np.float64]
    """[n, 2, len(ROW_FEATURES)]: what the row has if the rough mask is used, and if it is refined"""

    def of(self, rows: NDArray[np.bool_]) -> Measured:
        """A subset of the rows."""
        return Measured(**{name: column[rows] for name, column in self._asdict().items()})


class Comparison(Section):
    """Mean IoU in percent over clicks; null without clicks."""

    images: int
    objects: int
    clicks: int
    rough_iou: float | None
    refined_iou: float | None
    gain_error: float | None
    """Standard error of refined_iou - rough_iou, in percent, over images; null for less than two."""

    @classmethod
    def nothing(cls) -> Comparison:
        """The figures where nothing was measured."""
        return cls(images=0, objects=0, clicks=0, rough_iou=None, refined_iou=None, gain_error=None)

    @classmethod
    def over(cls, measured: Measured) -> Comparison:
        """The figures of these rows."""
        gain = gain_over_images(measured)
        return cls(
            images=len(np.unique(measured.images)),
            objects=len(np.unique(measured.objects)),
            clicks=len(measured.objects),
            **_means(measured),
            gain_error=None if gain.error is None else round(100 * gain.error, 3),
        )


class Bin(Comparison):
    """Rough masks of area_from <= area < area_to (null: no limit), and whether their refined masks are used.

    `decided_by` is `all` if the bin has too few objects or images.
    """

    area_from: float
    area_to: float | None
    use: bool
    decided_by: Literal["bin", "all"]


class Gate(Section):
    """The content of gate.json. Without held-out images nothing is measured, there are no bins, and `use` is true."""

    format: Literal[3]
    enlarge: Annotated[float, Field(ge=1, le=1000)]
    """Size of a crop relative to the rough mask's box, in the measurement and in use."""
    rounds: Annotated[int, Field(ge=0, le=1000)]
    """How often each mask is refined, in the measurement and in use."""
    held_out_images: int
    all: Comparison
    by_click: dict[str, Comparison]
    bins: tuple[Bin, ...]
    use: bool
    """The decision over all sizes."""
    errors: float
    """By how many standard errors a mean gain must be below 0 for refinement to be refused."""
    step: int
    """The training step of the refiner's weights."""
    refined_iou_by_step: dict[int, float | None]
    """Of all candidate weights."""
    score: Rule | None
    """Predicts the IoU of a mask in use from its row; null where too little was measured."""

    @model_validator(mode="after")
    def _bins_follow_each_other(self) -> Self:
        for one, other in pairwise(self.bins):
            if one.area_to is None or not one.area_from < one.area_to == other.area_from:
                raise ValueError(
                    f"bins: found {one.area_to} before {other.area_from}, expected sizes that rise"
                )
        for one in self.bins:
            measured = one if one.decided_by == "bin" else self.all
            if not one.use and None in (measured.rough_iou, measured.refined_iou):
                raise ValueError(
                    f"bins: found none measured from {one.area_from}, expected the IoU that decided"
                )
        if self.score is not None and self.score.features != len(ROW_FEATURES):
            expected = f"{len(ROW_FEATURES)}: {', '.join(ROW_FEATURES)}"
            raise ValueError(f"score: found {self.score.features} weights, expected {expected}")
        return self

    def refusals(self, areas: Sequence[float]) -> list[str | None]:
        """For rough masks of these areas (pixels of the resized image), why they aren't refined; None if they are."""
        return [_refusal(self, self.bins[at] if self.bins else None) for at in self._bin_of(areas).tolist()]

    def final_iou(self, measured: Measured) -> NDArray[np.float64]:
        """The IoU [n], 0..1, of the masks in use: the refined ones where they are used, else the rough ones."""
        return np.where(self._uses(measured.areas), measured.refined_iou, measured.rough_iou)

    def _uses(self, areas: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether masks of these areas [n] are refined."""
        return np.array([one.use for one in self.bins] or [True])[self._bin_of(areas)]

    @property
    def iou(self) -> float | None:
        """Mean IoU of the masks in use in percent, over all clicks; None where nothing was measured."""
        if not self.all.clicks:
            return None
        used = [(one.refined_iou if one.use else one.rough_iou) or 0.0 for one in self.bins]
        total = sum(iou * one.clicks for iou, one in zip(used, self.bins, strict=True))
        return round(total / self.all.clicks, 3)  # 0 for clicks without a mask, which are in no bin

    def _bin_of(self, areas: Sequence[float] | NDArray[np.float64]) -> NDArray[np.int64]:
        ends = [one.area_to for one in self.bins[:-1]]
        return np.searchsorted(np.asarray(ends, dtype=np.float64), np.asarray(areas), side="right")


def build_gate(
    by_step: Mapping[int, Measured],
    held_out_images: int,
    *,
    bins: int,
    min_objects: int,
    min_images: int,
    errors: float,
    enlarge: float,
    rounds: int,
) -> Gate:
    """Chooses the weights of the highest mean refined IoU (of equals the last) and decides for each size.

    Sizes are bins of about equally many clicks, by the rough masks' areas. Refinement is used in a bin if its mean gain
    over the bin's clicks, plus `errors` standard errors, is above 0. A bin of fewer than `min_objects` objects or
    `min_images` images follows the decision over all clicks, which is to refine if there are fewer than `min_images`.

    Args:
        by_step: the same clicks measured for each candidate step of the refiner, its last step included.
        held_out_images: their number; 0 measures nothing and chooses the last step.
        bins: most bins.
        errors: 0 decides by the mean gain alone.
        enlarge, rounds: the settings of the measurement, for use with the same ones.
    """
    scores = {step: _means(measured)["refined_iou"] for step, measured in sorted(by_step.items())}
    step = max(scores, key=lambda step: (scores[step] or 0.0, step))
    measured = by_step[step]
    overall = Comparison.over(measured)
    drawn = measured.of(measured.areas > 0)
    use = _helps(drawn, errors) if len(np.unique(drawn.images)) >= min_images else True
    gate = Gate(
        format=FORMAT,
        enlarge=enlarge,
        rounds=rounds,
        held_out_images=held_out_images,
        all=overall,
        by_click={
            str(click): Comparison.over(measured.of(measured.clicks == click))
            for click in np.unique(measured.clicks)
        },
        bins=tuple(_bins(drawn, bins, min_objects, min_images, errors, use)),
        use=use,
        errors=errors,
        step=step,
        refined_iou_by_step=scores,
        score=None,
    )
    return gate.model_copy(update={"score": _score_rule(gate, drawn)})


def _score_rule(gate: Gate, drawn: Measured) -> Rule | None:
    """Predicts the IoU of the masks that the gate leaves; None if too few of them were measured."""
    if len(np.unique(drawn.images)) < LEAST_IMAGES or len(drawn.objects) < LEAST_CLICKS:
        return None
    rows = drawn.features[np.arange(len(drawn.areas)), gate._uses(drawn.areas).astype(np.int64)]
    return ridge(rows, gate.final_iou(drawn))


def unmeasured(step: int, *, enlarge: float, rounds: int) -> Gate:
    """The gate of an imported refiner, for which nothing was measured: every mask is refined."""
    return Gate(
        format=FORMAT, enlarge=enlarge, rounds=rounds, held_out_images=0, all=Comparison.nothing(), by_click={},
        bins=(), use=True, errors=0.0, step=step, refined_iou_by_step={}, score=None,
    )  # fmt: skip


def write_gate(folder: Path, gate: Gate) -> None:
    """Writes `folder`/gate.json."""
    write_json(folder / FILE, gate.model_dump(mode="json"))


def read_gate(folder: Path) -> Gate:
    """Reads `folder`/gate.json.

    Raises:
        TaskError: the file is missing, or of another version.
    """
    content = read_json(folder / FILE, "train_refiner")
    try:
        return Gate.model_validate(content)
    except ValidationError as error:
        listed = "\n".join(
            f"  - {'.'.join(map(str, one['loc'])) or FILE}: {one['msg']}, found {one['input']!r:.100}"
            for one in error.errors()
        )
        raise TaskError(
            f"{folder / FILE}: edited, or of another version:\n{listed}\n"
            "Create it again with `dvc repro -f train_refiner`"
        ) from None


def _means(measured: Measured) -> dict[str, Any]:
    """Mean IoU in percent, to three decimals as in metrics.json."""
    if not len(measured.objects):
        return {"rough_iou": None, "refined_iou": None}
    return {
        "rough_iou": round(100 * float(measured.rough_iou.mean()), 3),
        "refined_iou": round(100 * float(measured.refined_iou.mean()), 3),
    }


class Gain(NamedTuple):
    """A mean gain of IoU, 0..1, and its standard error over images (None for less than two)."""

    mean: float
    error: float | None


def gain_over_images(measured: Measured) -> Gain:
    """Mean of refined - rough IoU over clicks, with its cluster-robust standard error (Liang and Zeger, 1986).

    Images are the clusters: the residuals of an image are summed before they are squared.
    """
    return mean_over_images(measured.images, measured.refined_iou - measured.rough_iou)


def mean_over_images(images: NDArray[np.int64], gains: NDArray[np.float64]) -> Gain:
    """Mean of gains [n] at clicks on `images` [n], with its standard error as `gain_over_images` has it."""
    if not len(gains):
        return Gain(0.0, None)
    mean = float(gains.mean())
    _, image = np.unique(images, return_inverse=True)
    sums = np.bincount(image, weights=gains - mean)
    if len(sums) < 2:
        return Gain(mean, None)
    return Gain(mean, float(np.sqrt(np.square(sums).sum() * len(sums) / (len(sums) - 1)) / len(gains)))


def _helps(measured: Measured, errors: float) -> bool:
    gain = gain_over_images(measured)
    return gain.mean + errors * (gain.error or 0.0) > 0


def _bins(
    drawn: Measured, count: int, min_objects: int, min_images: int, errors: float, use: bool
) -> list[Bin]:
    if not len(drawn.areas):
        return []
    quantiles = np.quantile(drawn.areas, np.arange(1, count) / count, method="higher")
    # With many masks of one area, quantiles may be equal, and the bin between them empty.
    edges = [0.0, *np.unique(quantiles[quantiles > drawn.areas.min()]).tolist(), math.inf]
    made = []
    for low, high in pairwise(edges):
        inside = drawn.of((drawn.areas >= low) & (drawn.areas < high))
        figures = Comparison.over(inside)
        enough = figures.objects >= min_objects and figures.images >= min_images
        made.append(
            Bin(
                **figures.model_dump(),
                area_from=low,
                area_to=None if math.isinf(high) else high,
                use=_helps(inside, errors) if enough else use,
                decided_by="bin" if enough else "all",
            )
        )
    return made


def _refusal(gate: Gate, found: Bin | None) -> str | None:
    if found is None or found.use:
        return None
    by_bin = found.decided_by == "bin"
    figures, masks = (found, "masks of this size") if by_bin else (gate.all, "masks")
    iou = f"IoU {figures.rough_iou:.1f} -> {figures.refined_iou:.1f}"
    return f"{REFUSAL} refinement hurts {masks} on held-out images ({iou})"
