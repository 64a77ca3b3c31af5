"""Sections `teacher`, `refiner` and `student`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from models.config import SIZE_DIVISOR, RefineNetConfig
from tasks.common.config.network import NetworkConfig
from tasks.common.config.section import (
    Batch,
    Few,
    FileName,
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

ROUNDING = {"accumulate", "checkpoint_every", "channels_last", "fused", "compile"}
"""Keys of a training's section that affect its result by rounding only."""


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
                f"scale_min: found {self.scale_min:g}; expected at most scale_max ({self.scale_max:g})"
            )
        return self


LearningRate = Annotated[Number, Field(gt=0, le=10)]
SCHEDULED = ("warmup_steps", "decay_at", "milestones")


def _rises(steps: Sequence[int]) -> None:
    if list(steps) != sorted(set(steps)):
        raise ValueError(f"milestones: found {list(steps)}; expected step numbers that rise")


def _step_number(value: Any, steps: int, least: int) -> Any:
    """The step at a share of `steps`, below the last one unless the share is 1; other values are returned unchanged."""
    if not isinstance(value, float) or not math.isfinite(value) or (value > 1 and value.is_integer()):
        return value
    if not 0 <= value <= 1:
        raise ValueError(f"found {value:g}; expected a step number, or a share of steps from 0.0 to 1.0")
    return steps if value == 1 else min(max(least, round(value * steps)), max(least, steps - 1))


class TrainConfig(Section):
    """Optimiser and schedule of teacher, refiner and student; the schedule is counted in steps.

    `batch_size`: images of a step, over all processes. Each process passes its part through the network in
    `accumulate` pieces, which changes only rounding (and the statistics of batch norm that trains).
    `ema`: how much of the weights' running average a step keeps. The checkpoint holds the average; with null it holds
    the weights of the last step.
    `warmup_steps`, `decay_at`, `milestones`: step numbers, or shares of `steps` written with a point: 0.5.
    `channels_last`, `fused` (the optimiser) and `compile` (the network) are for speed; they change rounding.
    """

    steps: PositiveInt
    batch_size: Batch
    accumulate: Batch
    optimizer: Literal["adamw", "adam", "sgd"]
    lr: LearningRate
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
        steps = info.data.get("steps", 1000)  # wrong `steps` are one fault, not one of each share too
        if not isinstance(value, list):
            return _step_number(value, steps, least=0)
        numbers = [_step_number(one, steps, least=1) for one in value]
        if any(isinstance(one, float) and math.isfinite(one) for one in value):
            return list(dict.fromkeys(numbers))  # with few steps two shares may be the same step
        return numbers

    @model_validator(mode="after")
    def _steps_in_order(self) -> Self:
        if self.schedule == "step" and not self.decay_at:
            raise ValueError("decay_at: found []; expected one or more step numbers with schedule: step")
        if any(not 0 < step < self.steps for step in self.decay_at):
            expected = f"step numbers above 0 and below steps ({self.steps})"
            raise ValueError(f"decay_at: found {list(self.decay_at)}; expected {expected}")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate: found {self.accumulate}; expected at most batch_size ({self.batch_size})"
            )
        if self.checkpoint_every % self.log_every:
            # A row of the log is a mean over a whole window, so a state is kept only where a window ends.
            expected = f"a multiple of log_every ({self.log_every})"
            raise ValueError(f"checkpoint_every: found {self.checkpoint_every}; expected {expected}")
        return self


class DetectorTrainConfig(TrainConfig):
    """Training of a SOLOv2. Grids and size ranges (input pixels) may differ between teacher and student.

    `inner_points`: random pixels of each object, drawn at every step; their cells learn the object too [0].
    `mask_pairs`: the most (cell, object) pairs of a step that the mask loss takes, drawn evenly; null: all [null].
    `backbone_lr`: factor of `lr` for the backbone, below 1 if its weights are good already [1].
    `start`: where the weights start: random ones (`scratch`), or those of the folder `checkpoint`, of any SOLOv2 with
    the network of section `model`; its class layer is used for classes of equal name (docs/weights.md) [scratch].
    """

    inner_points: Annotated[NonNegativeInt, Field(le=10**4)]
    mask_pairs: PositiveInt | None
    grids: tuple[Few, ...]
    ranges: tuple[tuple[NonNegative, Positive], ...]
    augment: AugmentConfig
    backbone_lr: LearningRate
    start: str
    checkpoint: FileName | None

    @model_validator(mode="after")
    def _checkpoint_with_its_start(self) -> Self:
        if (self.start == "checkpoint") != (self.checkpoint is not None):
            found = self.checkpoint or "null"
            expected = (
                "the folder of a checkpoint" if self.checkpoint is None else "null, or start: checkpoint"
            )
            raise ValueError(f"checkpoint: found {found} with start: {self.start}; expected {expected}")
        return self

    @property
    def weighs_categories(self) -> bool:
        """Whether an object's weight scales its part of the category loss, not of the mask loss alone."""
        return True


class TeacherConfig(DetectorTrainConfig):
    """`milestones`: the steps whose weights make the refiner's training masks [about 1/2 and 5/6].
    `holdout`: the share of strong images that teacher and refiner don't train on; refinement is measured on them."""

    start: Literal["scratch", "checkpoint"]
    holdout: Annotated[Number, Field(ge=0, lt=1)]
    milestones: Steps

    @model_validator(mode="after")
    def _milestones_within(self) -> Self:
        if not self.milestones or any(step > self.steps for step in self.milestones):
            expected = f"one or more step numbers, at most steps ({self.steps})"
            raise ValueError(f"milestones: found {list(self.milestones)}; expected {expected}")
        _rises(self.milestones)
        return self


class RefinerConfig(TrainConfig):
    """MaskRefineNet and its training: `batch_size` images per step, at most `crops` of their objects.

    `enlarge_min`, `enlarge_max`: in training a crop is the rough mask's box, enlarged by a random factor between them.
    `enlarge`: the factor at inference.
    `rounds`: how often a mask is refined at inference, each time from the mask of the round before; in training each
    crop's mask was refined 0 to rounds - 1 times before.
    `milestones`: steps whose weights are compared with the last ones on held-out images; the best are kept.
    `gate_bins`: on held-out images it is decided for each of so many mask sizes whether refined masks are used: not
    where their mean gain is `gate_errors` standard errors below 0. With less than `gate_min_objects` objects or
    `gate_min_images` images in a bin there is one decision for all sizes.
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
            expected = f"step numbers below steps ({self.steps}), whose weights are always compared"
            raise ValueError(f"milestones: found {list(self.milestones)}; expected {expected}")
        _rises(self.milestones)
        return self


class StudentConfig(DetectorTrainConfig):
    """What the student learns from pseudo labels, and where its weights start.

    `masks`: which pseudo masks to learn from.
    `weight_by_score`: which losses of a pseudo label its score scales: `none`; the `mask` loss (the click is proof of
    the class); or `both`.
    `classes_from`: which cells learn a pseudo label's class: those of its `mask`, as with a true mask; or the cell of
    its `click`, and then other cells that the mask touches are ignored for that class.
    `unusable`: at a point without a mask, or with one below `min_score`, on an image that has others: `ignore` it, or
    learn `background`.
    `strong_share`: the share of strong images, whose masks are true, in each batch; null: every image is drawn equally
    often [null].
    `strong_end`: the share of the steps, at the end, that see strong images alone [0].
    `start`: also from the `teacher`'s weights, or from those of the model that was `promoted` when this round began
    (docs/registry.md) [scratch].
    `network`: another network than SOLOv2 (docs/students.md), to which grids, ranges, `inner_points` and `mask_pairs`
    are nothing; null, or left out: SOLOv2 [null].
    """

    masks: Literal["refined", "rough", "none"]
    min_score: Share
    weight_by_score: Literal["none", "mask", "both"]
    classes_from: Literal["mask", "click"]
    unusable: Literal["ignore", "background"]
    strong_share: Annotated[Number, Field(gt=0, lt=1)] | None
    strong_end: Annotated[Number, Field(ge=0, lt=1)]
    start: Literal["scratch", "teacher", "promoted", "checkpoint"]
    # Left out where it is null, so that the files of a SOLOv2 are what they were without this key.
    network: NetworkConfig | None = Field(default=None, exclude_if=lambda found: found is None)

    @model_validator(mode="after")
    def _as_the_network_can(self) -> Self:
        if self.network is None:
            return self
        name = self.network.name
        if self.start == "teacher":
            raise ValueError(
                f"start: found teacher with network {name}; expected another one: a teacher is a SOLOv2"
            )
        if self.classes_from == "click":
            expected = "mask: it has no cell of a click, a query learns the class of its whole mask"
            raise ValueError(f"classes_from: found click with network {name}; expected {expected}")
        if self.compile:
            raise ValueError(
                f"compile: found true with network {name}; expected false: only a SOLOv2 was tried"
            )
        return self

    @property
    def weighs_categories(self) -> bool:
        return self.weight_by_score != "mask"
