"""SOLOv2's heads (Wang et al., NeurIPS 2020, section 3): categories and kernels of cells, mask features.

Legend: N images, C classes, L levels, S grid side, E kernel channels, H x W pixels of the padded input. A grid has S
rows and S columns, or as many as its Frame's reference says.
"""

from dataclasses import dataclass
from math import gcd, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import SOLOv2Config


@dataclass(frozen=True)
class Frame:
    """The place of a batch in the plane of the coordinate channels."""

    input_size: tuple[int, int]
    """H, W"""
    reference: int | None
    """Pixels from -1 to 1; None: the map's ends are -1 and 1, whatever its size."""
    origins: Tensor
    """float32 [N, 2]: x, y of each input's top-left corner, for crops of a larger image; only with a reference."""


def coordinate_channels(like: Tensor, frame: Frame) -> Tensor:
    """x, then y, of the places of `like` [N, c, h, w], which covers the input: [N, 2, h, w].

    Without a reference they go from -1 at the first column (row) to 1 at the last. With one, the centre of a place
    at pixel p of the image is 2 p / reference - 1: crop and whole image agree, and so do maps of all strides.

    CoordConv (Liu et al., NeurIPS 2018): a convolution can depend on the position.
    """
    n, _, h, w = like.shape
    if frame.reference is None:
        x, y = (_between_ends(length, like).expand(n, length) for length in (w, h))
    else:
        height, width = frame.input_size
        origins = frame.origins.to(like.device)
        across = (torch.arange(w, device=like.device) + 0.5) * (width / w)
        down = (torch.arange(h, device=like.device) + 0.5) * (height / h)
        x = ((origins[:, :1] + across) * (2 / frame.reference) - 1).to(like.dtype)
        y = ((origins[:, 1:] + down) * (2 / frame.reference) - 1).to(like.dtype)
    return torch.stack([x[:, None].expand(n, h, w), y[:, :, None].expand(n, h, w)], 1)


def _between_ends(length: int, like: Tensor) -> Tensor:
    """`length` numbers from -1 to 1 at equal distances."""
    if not (torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()):
        return torch.linspace(-1, 1, length, dtype=like.dtype, device=like.device)
    # Of linspace torch.export makes a program for this length alone, and ONNX's has no number for a length of 1.
    steps = torch.arange(length, dtype=like.dtype, device=like.device)
    return steps * (2 / steps[-1:].clamp(min=1)) - 1


def conv_block(in_channels: int, out_channels: int, kernel: int, groups: int) -> list[nn.Module]:
    """Convolution without bias, group norm of gcd(groups, out_channels) groups, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.GroupNorm(gcd(groups, out_channels), out_channels), nn.ReLU(inplace=True)]


def tower(in_channels: int, channels: int, depth: int, groups: int) -> nn.Sequential:
    """`depth` 3x3 convolution blocks."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += conv_block(in_channels if i == 0 else channels, channels, 3, groups)
    return nn.Sequential(*layers)


def initialise(head: nn.Module) -> None:
    """Convolutions from normal(0, 0.01), biases 0 (section 4 of the SOLO paper)."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class InstanceHead(nn.Module):
    """Category logits and mask kernels of every cell of every level's grid; the levels share the weights."""

    def __init__(self, config: SOLOv2Config, num_classes: int) -> None:
        super().__init__()
        self.coord_conv = config.coord_conv
        channels, sizes = config.fpn_channels, (config.head_channels, config.head_convs, config.norm_groups)
        self.category_tower = tower(channels, *sizes)
        self.kernel_tower = tower(channels + 2 * config.coord_conv, *sizes)
        self.category_predictor = nn.Conv2d(config.head_channels, num_classes, 3, padding=1)
        self.kernel_predictor = nn.Conv2d(config.head_channels, config.kernel_channels, 3, padding=1)
        initialise(self)
        # An untrained cell predicts each class with probability prior_prob (focal loss paper).
        nn.init.constant_(
            self.category_predictor.get_parameter("bias"), -log((1 - config.prior_prob) / config.prior_prob)
        )

    def forward(
        self, features: list[Tensor], grids: list[tuple[int, int]], frame: Frame
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Features L x [N, c, h, w] to category logits L x [N, C, S, S] and kernels L x [N, E, S, S].

        `grids` are the rows and columns of each level.
        """
        logits, kernels = [], []
        for x, grid in zip(features, grids, strict=True):
            plain = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
            if not self.coord_conv:
                placed = plain
            elif frame.reference is not None:
                placed = torch.cat([plain, coordinate_channels(plain, frame)], dim=1)
            else:
                # Resized as the features are, because cells of a wide map are wide too.
                coordinates = F.interpolate(
                    coordinate_channels(x, frame), size=grid, mode="bilinear", align_corners=False
                )
                placed = torch.cat([plain, coordinates], dim=1)
            logits.append(self.category_predictor(self.category_tower(plain)))
            kernels.append(self.kernel_predictor(self.kernel_tower(placed)))
        return logits, kernels


class MaskBranch(nn.Module):
    """One map of mask features for the whole image, from P2..P5 (section 3.2, "mask feature branch").

    Level P(2 + i) passes i convolutions, each followed by bilinear up-sampling by 2; the sum is at stride 4.
    With `mask_stride` 2 one more up-sampling and convolution follow, for small objects.
    """

    LEVELS = (2, 3, 4, 5)

    def __init__(self, config: SOLOv2Config) -> None:
        super().__init__()
        self.coord_conv = config.coord_conv
        channels, groups = config.mask_channels, config.norm_groups
        self.levels = nn.ModuleList()
        for i, level in enumerate(self.LEVELS):
            first = config.fpn_channels + 2 * (config.coord_conv and level == self.LEVELS[-1])
            blocks = [
                nn.Sequential(*conv_block(first if j == 0 else channels, channels, 3, groups))
                for j in range(max(i, 1))
            ]
            self.levels.append(nn.ModuleList(blocks))
        finer = nn.Sequential(*conv_block(channels, channels, 3, groups)) if config.mask_stride == 2 else None
        self.finer = finer
        self.predictor = nn.Sequential(*conv_block(channels, config.kernel_channels, 1, groups))
        initialise(self)

    def forward(self, pyramid: dict[int, Tensor], frame: Frame) -> Tensor:
        """P2..P5 to mask features [N, E, H / mask_stride, W / mask_stride]."""
        maps = []
        for level, blocks in zip(self.LEVELS, self.levels, strict=True):
            x = pyramid[level]
            if self.coord_conv and level == self.LEVELS[-1]:
                x = torch.cat([x, coordinate_channels(x, frame)], dim=1)
            for block in blocks:  # type: ignore[attr-defined]  # iterating a ModuleList of ModuleLists
                x = block(x)
                if level > self.LEVELS[0]:
                    x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            maps.append(x)
        total = sum(maps[1:], maps[0])
        if self.finer is not None:
            total = self.finer(F.interpolate(total, scale_factor=2.0, mode="bilinear", align_corners=False))
        return self.predictor(total)
