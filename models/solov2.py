"""SOLOv2: dynamic and fast instance segmentation (Wang et al., NeurIPS 2020, arXiv 2003.10152).

Every cell of an S x S grid answers what object has its centre there (category logits) and how to find its
pixels (a kernel): the mask is the kernel applied, as a 1x1 convolution, to one shared map of mask features.

Legend: N images, C classes, L levels, S grid side, E kernel channels, H x W pixels of the padded input.
"""

from typing import Annotated, Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator
from torch import Tensor, nn

from models.backbone import BackboneConfig, ResNetFPN
from models.heads import InstanceHead, MaskBranch

Channels = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
# A YAML file has lists where Python has tuples; their entries stay strict.
Triple = Annotated[tuple[float, float, float], Strict(False)]
Grids = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Strict(False)]
LevelPairs = Annotated[tuple[Annotated[tuple[int, int], Strict(False)], ...], Strict(False)]
Ranges = Annotated[tuple[Annotated[tuple[float, float], Strict(False)], ...], Strict(False)]
SIZE_DIVISOR = 32
"""Height and width of a batch must be multiples of this (the coarsest ResNet stage's stride)."""


class SOLOv2Config(BaseModel):
    """Every size and every constant of the loss; the paper's in brackets. All fields are required."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    backbone: BackboneConfig
    fpn_channels: Channels
    """[256]"""
    head_channels: Channels
    """Of the two towers [512]."""
    head_convs: Annotated[int, Field(ge=1)]
    """Convolutions in each tower [4]."""
    kernel_channels: Channels
    """E, also the depth of the mask features [256]."""
    mask_channels: Channels
    """Inside the mask branch [128]."""
    mask_stride: Annotated[int, Field(ge=2, le=4, multiple_of=2)]
    """Pixels of input to one of the mask map [4]; 2 draws small objects better."""
    norm_groups: Annotated[int, Field(ge=1)]
    """A group norm of c channels in the heads has gcd(norm_groups, c) groups [32]."""
    grids: Grids
    """S of each level, finest first [40, 36, 24, 16, 12]."""
    level_sources: LevelPairs
    """For each level (pyramid level, pyramid level at whose size it is read) [(2, 3), (3, 3), (4, 4), (5, 5),
    (6, 5)]: P2 is halved and P6 doubled, so the strides are 8, 8, 16, 32, 32."""
    ranges: Ranges
    """For each level the sizes sqrt(w h), in pixels of the input, lower <= size < upper, of the objects it
    learns [(1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)]. No size between the ends may be left out;
    smaller and larger objects go where the nearest size goes."""
    coord_conv: bool
    """[true]"""
    pixel_mean: Triple
    """Subtracted from 0..255 pixels, in the network's channel order."""
    pixel_std: Triple
    bgr: bool
    """The network sees blue first (Caffe's weights), though it's always given RGB."""
    centre_shrink: Annotated[float, Field(ge=0, le=1)]
    """The part of an object's box, around its mass centre, whose cells learn it [0.2]."""
    prior_prob: Fraction
    """An untrained cell's class probability [0.01]."""
    dice_weight: Annotated[float, Field(ge=0)]
    """[3]"""
    focal_weight: Annotated[float, Field(ge=0)]
    """[1]"""
    focal_alpha: Fraction
    """[0.25]"""
    focal_gamma: Annotated[float, Field(ge=0)]
    """[2]"""

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if not len(self.grids) == len(self.level_sources) == len(self.ranges) > 0:
            raise ValueError(
                "grids, level_sources and ranges need one entry a level: "
                f"found {len(self.grids)}, {len(self.level_sources)} and {len(self.ranges)}"
            )
        for source in self.level_sources:
            if not all(level in ResNetFPN.LEVELS for level in source):
                raise ValueError(
                    f"level_sources: found {list(source)}, expected levels of {ResNetFPN.LEVELS}"
                )
        reached = min(lower for lower, _ in self.ranges)
        for lower, upper in sorted(self.ranges):
            if not 0 <= lower < upper:
                raise ValueError(f"ranges: found {(lower, upper)}, expected 0 <= lower < upper")
            if lower > reached:
                raise ValueError(f"ranges: no level takes sizes from {reached:g} to {lower:g}; close the gap")
            reached = max(reached, upper)
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of input to one of each level's features."""
        return tuple(2**size_of for _, size_of in self.level_sources)


class RawOutputs(NamedTuple):
    """What the network says of a batch, before any decision."""

    category_logits: list[Tensor]
    """L x [N, C, S, S]"""
    kernels: list[Tensor]
    """L x [N, E, S, S]"""
    mask_features: Tensor
    """[N, E, H / mask_stride, W / mask_stride]"""
    strides: tuple[int, ...]
    """Of the L levels, in input pixels."""


class SOLOv2(nn.Module):
    """The network of `config` for classes 0..num_classes - 1, its backbone's weights loaded."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: SOLOv2Config, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.categories: list[dict[str, Any]] = []
        """Class i is categories[i], {"id", "name"}; filled in when a checkpoint is read."""
        self.backbone = ResNetFPN(config.backbone, config.fpn_channels)
        self.instance_head = InstanceHead(
            config.fpn_channels,
            config.head_channels,
            depth=config.head_convs,
            num_classes=num_classes,
            kernel_channels=config.kernel_channels,
            grids=config.grids,
            coord_conv=config.coord_conv,
            norm_groups=config.norm_groups,
            prior_prob=config.prior_prob,
        )
        self.mask_branch = MaskBranch(
            config.fpn_channels,
            config.mask_channels,
            config.kernel_channels,
            coord_conv=config.coord_conv,
            norm_groups=config.norm_groups,
            stride=config.mask_stride,
        )
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)

    def normalise(self, images: Tensor, content_sizes: list[tuple[int, int]] | None) -> Tensor:
        """RGB 0..255 [N, 3, H, W] to the network's channel order, zero mean and unit deviation.

        With `content_sizes`, the (h, w) of each image in the batch, padding becomes 0, the mean colour.
        """
        x = images.float()
        if self.config.bgr:
            x = x.flip(1)
        x = (x - self.pixel_mean) / self.pixel_std
        if content_sizes is not None:
            for i, (h, w) in enumerate(content_sizes):
                x[i, :, h:] = 0
                x[i, :, :, w:] = 0
        return x

    def forward(self, images: Tensor, content_sizes: list[tuple[int, int]] | None = None) -> RawOutputs:
        """Images [N, 3, H, W], uint8 or float, RGB 0..255, padded at the bottom and right, to raw outputs.

        Raises ValueError for another shape, or H or W not a multiple of 32.
        """
        if (
            images.ndim != 4
            or images.shape[1] != 3
            or images.shape[2] % SIZE_DIVISOR
            or images.shape[3] % SIZE_DIVISOR
        ):
            raise ValueError(
                f"images: found shape {list(images.shape)}, expected [N, 3, H, W] with H and W multiples of "
                f"{SIZE_DIVISOR}; pad at the bottom and right"
            )
        pyramid = self.backbone(self.normalise(images, content_sizes))
        logits, kernels = self.instance_head(
            [self._read(pyramid, *pair) for pair in self.config.level_sources]
        )
        return RawOutputs(logits, kernels, self.mask_branch(pyramid), self.config.strides)

    @staticmethod
    def _read(pyramid: dict[int, Tensor], level: int, size_of: int) -> Tensor:
        if level == size_of:
            return pyramid[level]
        size = pyramid[size_of].shape[-2:]
        return F.interpolate(pyramid[level], size=size, mode="bilinear", align_corners=False)
