"""The networks' settings, as frozen, strict models; all fields are required. Reading them doesn't import torch."""

from math import gcd
from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from models.backbones.config import PYRAMID_LEVELS, BackboneConfig, Groups, Settings

SIZE_DIVISOR = 32
"""Height and width of a batch must be multiples of this (the coarsest backbone stage's stride)."""

# Upper bounds are far above useful values, and low enough to keep memory and time bounded.
MAX_LEVELS = 16
Channels = Annotated[int, Field(ge=1, le=2**14)]
Depth = Annotated[int, Field(ge=1, le=64)]
MAX_SIDE = 2**15
"""Pixels of a side of a network's input."""
Count = Annotated[int, Field(ge=1, le=10**5)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
# YAML has lists for tuples; the entries stay strict.
Mean = Annotated[float, Field(ge=-1e4, le=1e4)]
Means = Annotated[tuple[Mean, Mean, Mean], Strict(False)]
Deviation = Annotated[float, Field(ge=1e-3, le=1e4)]
Deviations = Annotated[tuple[Deviation, Deviation, Deviation], Strict(False)]
Grids = Annotated[
    tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(max_length=MAX_LEVELS), Strict(False)
]
LevelPairs = Annotated[
    tuple[Annotated[tuple[int, int], Strict(False)], ...], Field(max_length=MAX_LEVELS), Strict(False)
]
Ranges = Annotated[
    tuple[Annotated[tuple[float, float], Strict(False)], ...], Field(max_length=MAX_LEVELS), Strict(False)
]
Exclusive = Literal["none", "same_class", "all"]


class SOLOv2Config(Settings):
    """Sizes of the network and constants of its loss; the paper's in brackets."""

    backbone: BackboneConfig
    fpn_channels: Channels
    """[256]"""
    head_channels: Channels
    """Of the two towers [512]."""
    head_convs: Depth
    """Convolutions in each tower [4]."""
    kernel_channels: Channels
    """E, also the depth of the mask features [256]."""
    mask_channels: Channels
    """Inside the mask branch [128]."""
    mask_stride: Annotated[int, Field(ge=2, le=4, multiple_of=2)]
    """Pixels of input to one of the mask map [4]; 2 draws small objects better."""
    norm_groups: Groups
    """A group norm of c channels in the heads has gcd(norm_groups, c) groups [32]."""
    grids: Grids
    """S of each level, finest first [40, 36, 24, 16, 12]."""
    grid_reference: Annotated[int, Field(ge=SIZE_DIVISOR, le=MAX_SIDE)] | None
    """R: `grids` are those of an input of R x R pixels; one of H x W has S H / R rows and S W / R columns, and
    coordinates are relative to R too. So cells of R / S pixels and coordinates are the same for all sizes of images,
    crops and batches. Cells must be of 32, 16, 32/3, 8, ... pixels. [null: S x S cells and coordinates from -1 to 1
    over the padded input]"""
    level_sources: LevelPairs
    """For each level (pyramid level, pyramid level to whose size it is resized) [(2, 3), (3, 3), (4, 4), (5, 5),
    (6, 5)]: P2 is halved and P6 doubled, so the strides are 8, 8, 16, 32, 32."""
    ranges: Ranges
    """For each level the sizes sqrt(w h), in pixels of the input, lower <= size < upper, of the objects it learns
    [(1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)], without a gap. A smaller or larger object counts as one
    of the nearest size in a range."""
    coord_conv: bool
    """[true]"""
    pixel_mean: Means
    """Subtracted from 0..255 pixels, in the network's channel order."""
    pixel_std: Deviations
    bgr: bool
    """The network's channel order is BGR (Caffe's weights); the input is RGB always."""
    centre_shrink: Annotated[float, Field(ge=0, le=1)]
    """Cells in the object's box, shrunk by this factor around its mass centre, learn it [0.2]."""
    prior_prob: Fraction
    """Class probability of an untrained cell [0.01]."""
    dice_weight: Weight
    """[3]"""
    focal_weight: Weight
    """[1]"""
    focal_alpha: Fraction
    """[0.25]"""
    focal_gamma: Weight
    """[2]"""

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if not len(self.grids) == len(self.level_sources) == len(self.ranges) > 0:
            raise ValueError(
                f"grids: found {len(self.grids)} with {len(self.level_sources)} level_sources and {len(self.ranges)} "
                "ranges; expected one entry per level in each"
            )
        for source in self.level_sources:
            if not all(level in PYRAMID_LEVELS for level in source):
                raise ValueError(f"level_sources: found {list(source)}, expected levels of {PYRAMID_LEVELS}")
        reached = min(lower for lower, _ in self.ranges)
        for lower, upper in sorted(self.ranges):
            if not 0 <= lower < upper:
                raise ValueError(f"ranges: found {(lower, upper)}, expected 0 <= lower < upper")
            if lower > reached:
                raise ValueError(
                    f"ranges: found none for sizes from {reached:g} to {lower:g}; expected no gap"
                )
            reached = max(reached, upper)
        return self

    @model_validator(mode="after")
    def _cells_fill_any_input(self) -> Self:
        if self.grid_reference is None:
            return self
        unit = self.grid_reference // gcd(self.grid_reference, SIZE_DIVISOR)
        wrong = [side for side in self.grids if side % unit]
        if wrong:
            near = [max(unit, round(side / unit) * unit) for side in wrong]
            raise ValueError(
                f"grids: found {wrong}, expected multiples of {unit} with grid_reference {self.grid_reference}, so "
                f"that cells fill every {SIZE_DIVISOR} pixels; the nearest are {near}"
            )
        if max(self.grids) > self.grid_reference:
            raise ValueError(
                f"grids: found {max(self.grids)} cells on {self.grid_reference} pixels (grid_reference), expected "
                "cells of a pixel or more"
            )
        return self

    def grid_shapes(self, input_size: tuple[int, int]) -> list[tuple[int, int]]:
        """Rows and columns of each level's grid for a padded input (H, W), both multiples of `SIZE_DIVISOR`."""
        if self.grid_reference is None:
            return [(side, side) for side in self.grids]
        height, width = input_size
        return [
            (side * height // self.grid_reference, side * width // self.grid_reference) for side in self.grids
        ]

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of input to one of each level's features."""
        return tuple(2**size_of for _, size_of in self.level_sources)


class RefineNetConfig(Settings):
    """Sizes of the network and its input; the paper's in brackets."""

    backbone: BackboneConfig
    """[resnet101 of width 1]"""
    pixel_mean: Means
    """Subtracted from RGB in 0..255; what the backbone's weights were trained with [123.675, 116.28, 103.53]."""
    pixel_std: Deviations
    """[58.395, 57.12, 57.375]"""
    norm: Literal["batch_norm", "group_norm"]
    """Of the parts after the backbone, which start from random weights. Group norm has the backbone's norm_groups
    [batch_norm]."""
    aspp_channels: Channels
    """[512]"""
    aspp_rates: Annotated[
        tuple[Annotated[int, Field(ge=1, le=256)], ...], Field(max_length=MAX_LEVELS), Strict(False)
    ]
    """Dilations of the 3x3 branches; there are a 1x1 and a pooling branch too [3, 6, 9]."""
    decoder_channels: Annotated[tuple[Channels, Channels, Channels, Channels], Strict(False)]
    """After joining the maps at strides 16, 8, 4 and 2 [256, 128, 64, 64]."""
    crop_size: Annotated[int, Field(ge=32, le=1024, multiple_of=32)]
    """S [256]"""
    heatmap_sigma: Annotated[float, Field(ge=0.01, le=1024)]
    """Standard deviation of the Gaussian at the click, in pixels of the crop [6]."""
    heatmap_channels: Channels
    """1: no class input; C: one channel per class; C + 1: the same, with an unused first channel [C + 1]."""
    infer_precision: Literal["fp32", "bf16"]
    """Precision of inference, whatever that of the training [fp32]. bf16 is about twice as fast if the hardware
    supports it; masks differ in a few pixels at their edges (bench/RESULTS.md)."""


class InferenceConfig(Settings):
    """Selection of detections; the paper's values in brackets."""

    score_threshold: Share
    """Least class probability of a cell [0.1]."""
    min_area: Annotated[float, Field(ge=0, le=1e9)]
    """Least mask area, as a multiple of the level's stride, in pixels of a stride-4 map [1]; 0 keeps all."""
    nms_pre: Count
    """Candidates that enter matrix NMS, the best ones [500]."""
    nms_kernel: Literal["gaussian", "linear"]
    """[gaussian]"""
    nms_sigma: Annotated[float, Field(gt=0, le=1e6)]
    """[2]"""
    nms_threshold: Share
    """Least score after its decay [0.05]."""
    max_detections: Count
    """[100]"""
    mask_threshold: Share
    """Pixel probability above which it belongs to the object [0.5]."""


class TileConfig(Settings):
    """Overlapping tiles of the input, each a forward pass: of the crops' size in training."""

    side: Annotated[int, Field(ge=SIZE_DIVISOR, le=MAX_SIDE, multiple_of=SIZE_DIVISOR)]
    """Pixels of the input."""
    overlap: Annotated[int, Field(ge=0, le=MAX_SIDE)]
    """Pixels that neighbours share at least: a tile should contain the objects of its core whole."""

    @model_validator(mode="after")
    def _overlap_below_side(self) -> Self:
        # Tiles begin at multiples of 32, so rounding may take that much from the overlap.
        if self.overlap > self.side - SIZE_DIVISOR:
            raise ValueError(
                f"overlap: found {self.overlap}; expected at most side ({self.side}) - {SIZE_DIVISOR}"
            )
        return self


class PromptConfig(Settings):
    """Masks at clicks; PointWSSIS's values (section 3.2) in brackets."""

    mask_threshold: Share
    """Pixel probability above which it belongs to the object [0.5]."""
    kernel: Literal["best", "blend"]
    """`best`: one cell's kernel; `blend`: the mean of all candidates' kernels, weighted by fit to the click [best]."""
    neighbourhood: Annotated[int, Field(ge=0, le=1024)]
    """Cells up to this many from the click's, at every level, are candidates too [0]."""
    class_power: Weight
    """Power of the cell's probability of the click's class in the fit [1]."""
    click_power: Weight
    """Power of the probability of the cell's mask at the click in the fit [0]."""
    small_area: Weight
    """Masks of up to so many places of the mask map get the threshold at which their area equals the sum of their
    probabilities; at `mask_threshold` objects of a place's size vanish (models/inference/thresholds.py) [0: none]."""
    faint: Share
    """Lower probabilities are left out of that sum."""
    exclusive: Exclusive
    """Masks that may not overlap: none, those of a class, or all; a pixel is assigned to the most probable [none]."""
    mirror: Literal["none", "horizontal", "both"]
    """A mask is the mean of those on the image and on its mirror image, or `both`: on all four, at twice or four times
    the time. When the refiner is trained, masks are those of the image alone [none]."""

    @classmethod
    def paper(cls, mask_threshold: float) -> Self:
        """The paper's rule: the click's own cells, by class and maskness."""
        return cls(
            mask_threshold=mask_threshold,
            kernel="best",
            neighbourhood=0,
            class_power=1.0,
            click_power=0.0,
            small_area=0.0,
            faint=mask_threshold,
            exclusive="none",
            mirror="none",
        )
