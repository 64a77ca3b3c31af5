"""SOLOv2: dynamic and fast instance segmentation (Wang et al., NeurIPS 2020, arXiv 2003.10152).

Every cell of an S x S grid predicts the class of the object whose centre it holds (category logits) and a kernel: the
mask is the kernel applied, as a 1x1 convolution, to one shared map of mask features.

Legend: N images, C classes, L levels, S grid side, E kernel channels, H x W pixels of the padded input. With
`grid_reference` R, read S x S as S H / R rows and S W / R columns.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.fpn import BackboneFPN
from models.config import SOLOv2Config
from models.inputs import check_images, normalised
from models.solov2.heads import Frame, InstanceHead, MaskBranch


class RawOutputs(NamedTuple):
    """The network's outputs for a batch."""

    category_logits: list[Tensor]
    """L x [N, C, S, S]"""
    kernels: list[Tensor]
    """L x [N, E, S, S]"""
    mask_features: Tensor
    """[N, E, H / mask_stride, W / mask_stride]"""
    strides: tuple[int, ...]
    """Of the L levels, in input pixels."""

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.category_logits, *self.kernels, self.mask_features]


class SOLOv2(nn.Module):
    """The network of `config` for classes 0..num_classes - 1, its backbone's weights loaded."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: SOLOv2Config, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.categories: list[dict[str, Any]] = []
        """Class i is categories[i], {"id", "name"}; filled in when a checkpoint is read."""
        self.backbone = BackboneFPN(config.backbone, config.fpn_channels)
        self.instance_head = InstanceHead(config, num_classes)
        self.mask_branch = MaskBranch(config)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)

    def normalise(self, images: Tensor, content_sizes: list[tuple[int, int]] | None) -> Tensor:
        """RGB 0..255 [N, 3, H, W] to the network's channel order, zero mean and unit deviation.

        With `content_sizes`, the (h, w) of each image in the batch, padding is set to 0, the mean colour.
        """
        return normalised(images, self.pixel_mean, self.pixel_std, self.config.bgr, content_sizes)

    def forward(
        self,
        images: Tensor,
        content_sizes: list[tuple[int, int]] | None = None,
        origins: Sequence[tuple[float, float]] | Tensor | None = None,
    ) -> RawOutputs:
        """Images [N, 3, H, W], uint8 or float, RGB 0..255, padded at the bottom and right, to raw outputs.

        `origins` are the x, y of crops in their images; they have an effect with `grid_reference` only, which allows
        to train on crops and to predict on whole images.

        Raises ValueError for another shape, or H or W not a multiple of 32.
        """
        check_images(images)
        pyramid = self.backbone(self.normalise(images, content_sizes))
        input_size = (images.shape[2], images.shape[3])
        corners = images.new_zeros(len(images), 2, dtype=torch.float32)
        if origins is not None and self.config.grid_reference is not None:
            corners = torch.as_tensor(origins, dtype=torch.float32, device=images.device).view(-1, 2)
        frame = Frame(input_size, self.config.grid_reference, corners)
        logits, kernels = self.instance_head(
            [self._read(pyramid, *pair) for pair in self.config.level_sources],
            self.config.grid_shapes(input_size),
            frame,
        )
        return RawOutputs(logits, kernels, self.mask_branch(pyramid, frame), self.config.strides)

    @staticmethod
    def _read(pyramid: dict[int, Tensor], level: int, size_of: int) -> Tensor:
        if level == size_of:
            return pyramid[level]
        size = pyramid[size_of].shape[-2:]
        return F.interpolate(pyramid[level], size=size, mode="bilinear", align_corners=False)
