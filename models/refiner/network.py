"""MaskRefineNet (PointWSSIS, arXiv 2303.15062, section 3.3): from image, point and rough mask to a better mask.

A U-Net with atrous spatial pyramid pooling (DeepLabv3, arXiv 1706.05587) on a crop around an instance.

Legend: M crops, S crop side, P heatmap channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.build import build_backbone
from models.backbones.conv_norm import ConvNorm, norm_layer
from models.config import RefineNetConfig

DICE_EPSILON = 1e-5
"""Added to numerator and denominator of the Dice loss: a class absent from truth and prediction costs nothing."""


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int, config: RefineNetConfig, dilation: int = 1
) -> ConvNorm:
    """Convolution without bias that keeps the size, the config's normalisation, ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
    norm = norm_layer(config.norm, config.backbone.norm_groups)(out_channels)
    return ConvNorm(conv, norm, nn.ReLU(inplace=True))


class ASPP(nn.Module):
    """Parallel 1x1, dilated 3x3 and image-pooling branches, joined by a 1x1 convolution."""

    def __init__(self, in_channels: int, config: RefineNetConfig) -> None:
        super().__init__()
        channels, rates = config.aspp_channels, config.aspp_rates
        self.pooled = conv_norm_relu(in_channels, channels, 1, config)
        self.branches = nn.ModuleList([conv_norm_relu(in_channels, channels, 1, config)])
        self.branches.extend(conv_norm_relu(in_channels, channels, 3, config, rate) for rate in rates)
        self.project = conv_norm_relu((len(rates) + 2) * channels, channels, 1, config)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.pooled(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return self.project(torch.cat([whole, *(branch(x) for branch in self.branches)], dim=1))


def spare_channels(config: RefineNetConfig, classes: int) -> int:
    """Heatmap channels before the first class's: one in the reference's layout, none in ours.

    Raises ValueError for a number of channels that fits neither layout.
    """
    if config.heatmap_channels not in (1, classes, classes + 1):
        raise ValueError(
            f"heatmap_channels: found {config.heatmap_channels} with {classes} classes, expected 1 (no class "
            f"input), {classes} (a channel per class) or {classes + 1} (the reference's, whose first is unused)"
        )
    return 0 if config.heatmap_channels == 1 else config.heatmap_channels - classes


class MaskRefineNet(nn.Module):
    """The network of `config`. ImageNet weights are loaded when its backbone names them."""

    def __init__(self, config: RefineNetConfig) -> None:
        super().__init__()
        self.config = config
        self.categories: list[dict[str, Any]] = []
        """Class i is categories[i], {"id", "name"}; filled in when a checkpoint is read."""
        self.in_channels = 3 + config.heatmap_channels + 1
        self.encoder = build_backbone(config.backbone, self.in_channels)
        *skips, deepest = self.encoder.channels
        self.aspp = ASPP(deepest, config)
        self.decoder = nn.ModuleList()
        channels = config.aspp_channels
        for skip, out_channels in zip(reversed(skips), config.decoder_channels, strict=True):
            join = conv_norm_relu(channels + skip, channels, 1, config)
            refine = conv_norm_relu(channels, out_channels, 3, config)
            self.decoder.append(nn.Sequential(join, refine))
            channels = out_channels
        for part in (self.aspp, self.decoder):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.head = nn.Conv2d(channels, 2, 1)

    @property
    def spare_channels(self) -> int:
        """See the function `spare_channels`."""
        return spare_channels(self.config, len(self.categories)) if self.categories else 0

    def forward(self, x: Tensor) -> Tensor:
        """Crops [M, 3 + P + 1, S, S], as `crops.crop_inputs` makes them, to logits [M, 2, S, S].

        Channel 0 is background, 1 the object. Raises ValueError for another shape.
        """
        side = self.config.crop_size
        if x.ndim != 4 or x.shape[1:] != (self.in_channels, side, side):
            raise ValueError(
                f"crops: found shape {list(x.shape)}, expected [M, {self.in_channels}, {side}, {side}]"
            )
        *skips, deepest = self.encoder(x)
        y = self.aspp(deepest)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            y = F.interpolate(y, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            y = block(torch.cat([y, skip], dim=1))
        return F.interpolate(self.head(y), size=(side, side), mode="bilinear", align_corners=False)


def soft_dice(probabilities: Tensor, targets: Tensor) -> Tensor:
    """[M, 2]: 1 - 2 sum(p g) / (sum p + sum g) per crop and class; both arguments are [M, 2, S, S]."""
    overlap = (probabilities * targets).sum((2, 3))
    total = probabilities.sum((2, 3)) + targets.sum((2, 3))
    return 1 - (2 * overlap + DICE_EPSILON) / (total + DICE_EPSILON)


def refine_loss(
    logits: Tensor, targets: Tensor, dice_weight: float, cross_entropy_weight: float, total: int | None = None
) -> dict[str, Tensor]:
    """`loss` and its weighted parts `loss_dice` and `loss_cross_entropy`, scalars.

    The Dice term is the mean over crops, of background and object (PointWSSIS, section 3.3). Alone it collapses on
    small objects; the cross-entropy, the mean over pixels, prevents that.

    Args:
        logits: [M, 2, S, S].
        targets: bool [M, S, S].
        total: number of crops of the whole batch, of which these (maybe none) are a part. The losses of its parts sum
            to the loss of the whole batch.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        if not len(logits):  # the mean of nothing isn't 0
            dice = cross_entropy = logits.sum()
        else:
            share = 1.0 if total is None else len(logits) / total
            truth = torch.stack([~targets, targets], 1).float()
            dice = share * dice_weight * soft_dice(logits.softmax(1), truth).mean()
            cross_entropy = share * cross_entropy_weight * F.cross_entropy(logits, targets.long())
        return {"loss": dice + cross_entropy, "loss_dice": dice, "loss_cross_entropy": cross_entropy}
