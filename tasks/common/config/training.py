"""Sections `teacher`, `refiner` and `student`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from models.config import SIZE_DIVISOR, RefineNetConfig
from tasks.common.config.section import (
    Batch,
    Few,
    NonNegative,
    NonNegativeInt,
    Number,
    Positive,
    PositiveInt,
    Scale,
    Section,
    Share,
    Steps,
    Strength,
    WholeNumber,
)


class AugmentConfig(Section):
    """Training augmentation, drawn anew for every sample from its own seed; see data/samples/transforms.py."""

    flip: Share
    vertical_flip: Share
    rotate90: Share
    scale_min: Scale
    scale_max: Scale
    crop: bool
    crop_side: Annotated[WholeNumber, Field(ge=SIZE_DIVISOR, le=2**15, multiple_of=SIZE_DIVISOR)] | None
    brightness: Strength
    contrast: Strength
    saturation: Strength
    hue: Annotated[Number, Field(ge=0, le=0.5)]
    grayscale: Share
    invert: Share
    tint: Share
    blur: Share
    blur_sigma: Strength
    erase: Share
    erase_side: Share

    @model_validator(mode="after")
    def _scales_in_order(self) -> Self:
        if self.scale_min > self.scale_max:
            raise ValueError(
                f"scale_min ({self.scale_min:g}) must not be above scale_max ({self.scale_max:g})"
            )
        return self


SCHEDULED = ("warmup_steps", "decay_at", "milestones")


def _step_number(value: Any, steps: int, least: int) -> Any:
    """The step that a share of `steps` is, below the last one unless it is 1; what is no share stays as it is."""
    if not isinstance(value, float) or not math.isfinite(value) or (value > 1 and value.is_integer()):
        return value
    if not 0 <= value <= 1:
        raise ValueError(f"found {value:g}; a step number, or a share of steps from 0.0 to 1.0")
    return steps if value == 1 else min(max(least, round(value * steps)), max(least, steps - 1))


class TrainConfig(Section):
    """What teacher, refiner and student share: one optimiser, one schedule, counted in steps.

    `batch_size` is the whole step's, over all processes; it goes through the network in `accumulate` pieces a process,
    which changes nothing but rounding (and the statistics of batch norm that trains).
    `ema`: the share of the weights' running average that a step keeps; the checkpoint then holds the average.
    null: it holds the weights themselves.
    `warmup_steps`, `decay_at` and `milestones` are step numbers, or shares of `steps` as numbers with a point: 0.5.
    `channels_last`, `fused` (the optimiser) and `compile` (the network) are for speed; they round otherwise."""

    steps: PositiveInt
    batch_size: Batch
    accumulate: Batch
    optimizer: Literal["adamw", "adam", "sgd"]
    lr: Positive
    weight_decay: NonNegative
    warmup_steps: NonNegativeInt
    schedule: Literal["cosine", "step"]
    decay_at: Steps
    clip_norm: Positive | None
    ema: Annotated[Number, Field(gt=0, lt=1)] | None
    precision: Literal["fp32", "bf16", "fp16"]
    channels_last: bool
    fused: bool
    compile: bool
    checkpoint_every: PositiveInt
    log_every: PositiveInt

    @field_validator(*SCHEDULED, mode="before", check_fields=False)
    @classmethod
    def _shares_of_steps(cls, value: Any, info: ValidationInfo) -> Any:
        steps = info.data.get("steps", 1000)  # wrong steps are reported by themselves, not shares of them too
        if not isinstance(value, list):
            return _step_number(value, steps, least=0)
        numbers = [_step_number(one, steps, least=1) for one in value]
        if any(isinstance(one, float) and math.isfinite(one) for one in value):
            return list(dict.fromkeys(numbers))  # of few steps two shares may be the same one
        return numbers

    @model_validator(mode="after")
    def _steps_in_order(self) -> Self:
        if self.schedule == "step" and not self.decay_at:
            raise ValueError("schedule: step needs at least one step number in decay_at")
        if any(not 0 < step < self.steps for step in self.decay_at):
            raise ValueError(f"decay_at {list(self.decay_at)} must lie between 0 and steps ({self.steps})")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate ({self.accumulate}) must be at most batch_size ({self.batch_size})")
        if self.checkpoint_every % self.log_every:
            # The log's rows are means over whole windows, so a state is kept only where a window ends.
            raise ValueError(
                f"checkpoint_every ({self.checkpoint_every}) must be a multiple of log_every ({self.log_every})"
            )
        return self


class DetectorTrainConfig(TrainConfig):
    """Training of a SOLOv2: the grids and size ranges (input pixels) may differ between teacher and student.

    `inner_points`: random pixels of each object, drawn at every step, whose cells learn it too [0 in the paper].
    `mask_pairs`: the mask loss takes at most this many (cell, object) pairs a step, drawn evenly; null: all [null].
    """

    inner_points: Annotated[NonNegativeInt, Field(le=10**4)]
    mask_pairs: PositiveInt | None
    grids: tuple[Few, ...]
    ranges: tuple[tuple[NonNegative, Positive], ...]
    augment: AugmentConfig

    @property
    def weighs_categories(self) -> bool:
        """Whether an object's weight scales its part of the category loss too."""
        return True


class TeacherConfig(DetectorTrainConfig):
    """`milestones` are the steps whose weights make the refiner's training masks (METHOD.md: about 1/2 and 5/6).
    `holdout`: the share of the strong images that teacher and refiner don't train on, to measure refinement."""

    holdout: Annotated[Number, Field(ge=0, lt=1)]
    milestones: Steps

    @model_validator(mode="after")
    def _milestones_within(self) -> Self:
        if not self.milestones or any(step > self.steps for step in self.milestones):
            raise ValueError(f"milestones must be 1 or more step numbers, at most steps ({self.steps})")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise: found {list(self.milestones)}")
        return self


class RefinerConfig(TrainConfig):
    """MaskRefineNet and its training: `batch_size` images a step, at most `crops` of their objects.

    A crop is the rough mask's box enlarged by a draw between `enlarge_min` and `enlarge_max`; in use by `enlarge`,
    and refined `rounds` times, each time from the last one's mask. The weights of the last step, or of one of
    `milestones` where they do better on held-out images, are taken. There it is decided for each of `gate_bins` sizes
    of masks, or for all where one has less than `gate_min_objects` or `gate_min_images`, whether refined masks are
    used: not where their mean gain lies `gate_errors` standard errors below 0.
    """

    net: RefineNetConfig
    crops: Batch
    dice_weight: NonNegative
    cross_entropy_weight: NonNegative
    enlarge_min: Scale
    enlarge_max: Scale
    augment: AugmentConfig
    enlarge: Annotated[Number, Field(ge=1, le=1000)]
    rounds: Few
    milestones: Steps
    gate_bins: Few
    gate_min_objects: PositiveInt
    gate_min_images: PositiveInt
    gate_errors: NonNegative

    @model_validator(mode="after")
    def _milestones_within(self) -> Self:
        if any(step >= self.steps for step in self.milestones):
            raise ValueError(
                f"milestones {list(self.milestones)} must lie below steps ({self.steps}), which always counts"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise: found {list(self.milestones)}")
        return self


class StudentConfig(DetectorTrainConfig):
    """`masks`: which pseudo masks to learn from; `weight_by_score`: what of a pseudo label's part in the
    losses its score scales: `none`, the `mask`'s alone (that an object of this class is there is sure), or `both`.
    `classes_from`: where a pseudo label's class is learnt: in the cells that its `mask` says, as a true one's, or from
    the `click`, whose cell is sure of it: then no cell that the mask touches is taught that there is none of its class.

    `unusable`: around a point without a mask, or with one below `min_score`, on an image that has others, `ignore`
    teaches nothing, `background` that there is no object.
    `strong_share`: of each batch, from strong images, whose masks are true; null: each image comes as often as any
    other [null]. `start`: from the weights that the seed draws, from the teacher's, or from those of the model that was
    promoted when this round began (docs/registry.md) [scratch]."""

    masks: Literal["refined", "rough", "none"]
    min_score: Share
    weight_by_score: Literal["none", "mask", "both"]
    classes_from: Literal["mask", "click"]
    unusable: Literal["ignore", "background"]
    strong_share: Annotated[Number, Field(gt=0, lt=1)] | None
    start: Literal["scratch", "teacher", "promoted"]

    @property
    def weighs_categories(self) -> bool:
        return self.weight_by_score != "mask"
