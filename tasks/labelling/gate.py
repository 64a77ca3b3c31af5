"""Whether refined masks are used: decided on held-out strong images, a decision a size of the rough mask.

gate.json beside the refiner's weights says what was measured there and what follows from it. Sizes are areas of rough
masks in pixels of the image as the teacher sees it (resized by `input`), so that images of unlike sizes compare.

A refiner that helps on average may still spoil small masks, or large ones. Where a size has too few objects to tell,
the decision over all sizes stands. Objects of one image fare alike, so what tells is how many images agree: refinement
is given up where its mean gain lies so far below 0 that the draw of images is no likely reason. The refiner's weights
are chosen on the same objects, so its figures here flatter it a little; those of `evaluate`, on masks kept aside,
don't.
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

FILE = "gate.json"
FORMAT = 2
REFUSAL = "gate:"
"""How the reason begins in the row of a point whose mask the gate keeps rough."""


class Measured(NamedTuple):
    """One row a click on a held-out object; n rows."""

    images: NDArray[np.int64]
    """[n] the id of the object's image"""
    objects: NDArray[np.int64]
    """[n] whose click it is: the instance's id"""
    clicks: NDArray[np.str_]
    """[n] where it lies: `random` (an inner pixel) or `centre` (of mass)"""
    areas: NDArray[np.float64]
    """[n] of the rough mask, in pixels of the resized image; 0 where the teacher draws none"""
    rough_iou: NDArray[np.float64]
    """[n] with the true mask, 0..1"""
    refined_iou: NDArray[np.float64]
    """[n] the same of the refined mask, or of the rough one where refinement came out empty"""

    def of(self, rows: NDArray[np.bool_]) -> Measured:
        """These rows alone."""
        return Measured(**{name: column[rows] for name, column in self._asdict().items()})


class Comparison(Section):
    """Mean IoU in percent over clicks; null over none."""

    images: int
    objects: int
    clicks: int
    rough_iou: float | None
    refined_iou: float | None
    gain_error: float | None
    """Standard error of refined_iou - rough_iou, in percent, over the draw of images; null for less than two."""

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

    `decided_by` is `all` where the bin has too few objects of its own.
    """

    area_from: float
    area_to: float | None
    use: bool
    decided_by: Literal["bin", "all"]


class Gate(Section):
    """What gate.json holds. Without held-out images nothing is measured, there are no bins, and `use` is true."""

    format: Literal[2]
    enlarge: Annotated[float, Field(ge=1, le=1000)]
    """How much larger than the rough mask's box the crops were, and will be."""
    rounds: Annotated[int, Field(ge=0, le=1000)]
    """Times that each mask was refined, and will be."""
    held_out_images: int
    all: Comparison
    by_click: dict[str, Comparison]
    bins: tuple[Bin, ...]
    use: bool
    """The decision over all sizes."""
    errors: float
    """Standard errors that a mean gain must lie below 0 for refinement to be given up."""
    step: int
    """Of the refiner's training: whose weights were taken."""
    refined_iou_by_step: dict[int, float | None]
    """Of all the weights that could have been taken."""

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
        return self

    def refusals(self, areas: Sequence[float]) -> list[str | None]:
        """For rough masks of these areas (pixels of the resized image): why not to refine them, or None."""
        ends = [one.area_to for one in self.bins[:-1]]
        found = np.searchsorted(np.asarray(ends, dtype=np.float64), np.asarray(areas), side="right")
        return [_refusal(self, self.bins[at] if self.bins else None) for at in found.tolist()]


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
    """Chooses the weights of greatest mean refined IoU (of equals the last) and decides for each size.

    Sizes are bins of about as many clicks each, by the rough masks' areas. Refinement is used in a bin where its mean
    gain over the bin's clicks, plus `errors` standard errors of it, is above 0; where fewer than `min_objects` objects
    or `min_images` images were clicked, where that holds over all. Over all it is used if there are fewer images.

    Args:
        by_step: for each candidate step of the refiner, the last among them, the same clicks measured.
        held_out_images: on how many images; 0 measures nothing and chooses the last step.
        bins: of sizes, at most.
        min_objects, min_images: with so many a bin decides for itself.
        errors: how far below 0 the gain must lie to tell; 0 goes by its mean.
        enlarge, rounds: how it was refined; use is to do the same.
    """
    scores = {step: _means(measured)["refined_iou"] for step, measured in sorted(by_step.items())}
    step = max(scores, key=lambda step: (scores[step] or 0.0, step))
    measured = by_step[step]
    overall = Comparison.over(measured)
    drawn = measured.of(measured.areas > 0)
    use = _helps(drawn, errors) if len(np.unique(drawn.images)) >= min_images else True
    return Gate(
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
    )


def unmeasured(step: int, *, enlarge: float, rounds: int) -> Gate:
    """The gate of a refiner from elsewhere, for which nothing was held out: it is used on every mask."""
    return Gate(
        format=FORMAT, enlarge=enlarge, rounds=rounds, held_out_images=0, all=Comparison.nothing(), by_click={},
        bins=(), use=True, errors=0.0, step=step, refined_iou_by_step={},
    )  # fmt: skip


def write_gate(folder: Path, gate: Gate) -> None:
    """Writes `folder`/gate.json."""
    write_json(folder / FILE, gate.model_dump(mode="json"))


def read_gate(folder: Path) -> Gate:
    """Reads `folder`/gate.json.

    Raises:
        TaskError: it isn't there, or is of another version.
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
            f"{folder / FILE}: edited, or of another version:\n{listed}\nMake it anew with `dvc repro -f train_refiner`"
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
    """A mean gain of IoU, 0..1, and its standard error over the draw of images (None for less than two)."""

    mean: float
    error: float | None


def gain_over_images(measured: Measured) -> Gain:
    """Mean of refined - rough IoU over clicks. Its error takes images for the independent draws, not clicks: the
    residuals of an image are summed before they are squared (cluster-robust variance; Liang and Zeger, 1986)."""
    gains = measured.refined_iou - measured.rough_iou
    if not len(gains):
        return Gain(0.0, None)
    mean = float(gains.mean())
    _, image = np.unique(measured.images, return_inverse=True)
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
    # Many masks of one area can make quantiles equal, and a bin between them empty.
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
    own = found.decided_by == "bin"
    told, of = (found, "masks of this size") if own else (gate.all, "masks")
    return f"{REFUSAL} refinement hurts {of} on held-out images (IoU {told.rough_iou:.1f} -> {told.refined_iou:.1f})"
