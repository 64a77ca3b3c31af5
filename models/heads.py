"""SOLOv2's heads (Wang et al., NeurIPS 2020, section 3): categories and kernels of cells, mask features.

Legend: N images, C classes, L levels, S grid side, E kernel channels, H x W pixels of the padded input.
"""

from math import gcd, log

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def coordinate_channels(like: Tensor) -> Tensor:
    """x, then y, from -1 at the first column (row) to 1 at the last: [N, 2, h, w] for `like` [N, c, h, w].

    CoordConv (Liu et al., NeurIPS 2018): it lets a convolution know where it is.
    """
    n, _, h, w = like.shape
    x = torch.linspace(-1, 1, w, dtype=like.dtype, device=like.device)
    y = torch.linspace(-1, 1, h, dtype=like.dtype, device=like.device)
    return torch.stack([x.expand(h, w), y[:, None].expand(h, w)]).expand(n, 2, h, w)


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

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        depth: int,
        num_classes: int,
        kernel_channels: int,
        grids: tuple[int, ...],
        coord_conv: bool,
        norm_groups: int,
        prior_prob: float,
    ) -> None:
        super().__init__()
        self.grids, self.coord_conv = grids, coord_conv
        self.category_tower = tower(in_channels, channels, depth, norm_groups)
        self.kernel_tower = tower(in_channels + 2 * coord_conv, channels, depth, norm_groups)
        self.category_predictor = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.kernel_predictor = nn.Conv2d(channels, kernel_channels, 3, padding=1)
        initialise(self)
        # Every cell starts by answering "nothing here" with probability 1 - prior_prob (focal loss paper).
        nn.init.constant_(self.category_predictor.get_parameter("bias"), -log((1 - prior_prob) / prior_prob))

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Features L x [N, c, h, w] to category logits L x [N, C, S, S] and kernels L x [N, E, S, S]."""
        logits, kernels = [], []
        for x, grid in zip(features, self.grids, strict=True):
            plain = F.interpolate(x, size=(grid, grid), mode="bilinear", align_corners=False)
            if self.coord_conv:
                # Resized like the features, because cells of a wide map are wide too.
                coordinates = F.interpolate(
                    coordinate_channels(x), size=(grid, grid), mode="bilinear", align_corners=False
                )
                placed = torch.cat([plain, coordinates], dim=1)
            else:
                placed = plain
            logits.append(self.category_predictor(self.category_tower(plain)))
            kernels.append(self.kernel_predictor(self.kernel_tower(placed)))
        return logits, kernels


class MaskBranch(nn.Module):
    """One map of mask features for the whole image, from P2..P5 (section 3.2, "mask feature branch").

    Level P(2 + i) passes i convolutions, each followed by bilinear up-sampling by 2; the sum is at stride 4.
    With `stride` 2 one more up-sampling and convolution follow: small objects want a finer map.
    """

    LEVELS = (2, 3, 4, 5)

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        *,
        coord_conv: bool,
        norm_groups: int,
        stride: int,
    ) -> None:
        super().__init__()
        self.coord_conv = coord_conv
        self.levels = nn.ModuleList()
        for i, level in enumerate(self.LEVELS):
            first = in_channels + 2 * (coord_conv and level == self.LEVELS[-1])
            blocks = [
                nn.Sequential(*conv_block(first if j == 0 else channels, channels, 3, norm_groups))
                for j in range(max(i, 1))
            ]
            self.levels.append(nn.ModuleList(blocks))
        self.finer = nn.Sequential(*conv_block(channels, channels, 3, norm_groups)) if stride == 2 else None
        self.predictor = nn.Sequential(*conv_block(channels, out_channels, 1, norm_groups))
        initialise(self)

    def forward(self, pyramid: dict[int, Tensor]) -> Tensor:
        """P2..P5 to mask features [N, E, H / stride, W / stride]."""
        maps = []
        for level, blocks in zip(self.LEVELS, self.levels, strict=True):
            x = pyramid[level]
            if self.coord_conv and level == self.LEVELS[-1]:
                x = torch.cat([x, coordinate_channels(x)], dim=1)
            for block in blocks:  # type: ignore[attr-defined]  # iterating a ModuleList of ModuleLists
                x = block(x)
                if level > self.LEVELS[0]:
                    x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            maps.append(x)
        total = sum(maps[1:], maps[0])
        if self.finer is not None:
            total = self.finer(F.interpolate(total, scale_factor=2.0, mode="bilinear", align_corners=False))
        return self.predictor(total)
