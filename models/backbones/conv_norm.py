"""Normalisation layers, folded into the convolution before them where they are fixed.

A batch norm without batch statistics is a scale and an offset per channel. Scaling the convolution's weights instead of
its output is equivalent, and the map, which is much larger than the weights, is written once instead of three times; in
training its unscaled form isn't kept either. Under autocast the map stays in the low precision, where torchvision's
FrozenBatchNorm2d would return float32.

Legend: N images, H x W places of the map.
"""

from collections.abc import Callable
from functools import partial
from math import gcd
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.ops.misc import FrozenBatchNorm2d

from models.backbones.config import NormKind


def norm_layer(kind: NormKind, groups: int, epsilon: float = 1e-5) -> Callable[[int], nn.Module]:
    """From a channel count to a normalisation layer of this kind; `epsilon` is batch norm's."""
    if kind == "frozen_bn":
        return partial(FrozenBatchNorm2d, eps=epsilon)
    if kind == "batch_norm":
        return partial(nn.BatchNorm2d, eps=epsilon)
    return lambda channels: nn.GroupNorm(gcd(groups, channels), channels)


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)) of maps [N, C, H, W], up to rounding; so are its gradients.

    `norm` is folded if it is a frozen batch norm, or a batch norm in eval mode. `conv` pads with zeros. Under
    autocast on the CPU a grouped convolution is computed in float32, since its backward pass in bf16 takes several
    times as long.
    """
    if conv.groups > 1 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return conv_norm(conv, norm, x.float())
    if not is_fixed(norm):
        return norm(conv(x))
    fixed: Any = norm  # both kinds have these tensors, nn.Module hasn't
    scale = fixed.weight * (fixed.running_var + fixed.eps).rsqrt()
    offset = fixed.bias - fixed.running_mean * scale
    if conv.bias is not None:
        offset = offset + conv.bias * scale
    weight = conv.weight * scale.view(-1, 1, 1, 1)
    return F.conv2d(x, weight, offset, conv.stride, conv.padding, conv.dilation, conv.groups)


def is_fixed(norm: nn.Module) -> bool:
    """Whether `norm` is a fixed scale and offset: a frozen batch norm, or one in eval mode."""
    if isinstance(norm, FrozenBatchNorm2d):
        return True
    return isinstance(norm, nn.BatchNorm2d) and not norm.training and norm.affine and norm.track_running_stats


class ConvNorm(nn.Sequential):
    """A Sequential of convolution, normalisation and other modules; the first two are computed by `conv_norm`."""

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, *rest = self
        y = conv_norm(conv, norm, x)  # type: ignore[arg-type]  # a Sequential's modules have no types
        for module in rest:
            y = module(y)
        return y


class BasicBlock(resnet.BasicBlock):
    """ResNet's block of two 3x3 convolutions (He et al., CVPR 2016, section 4.1)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(conv_norm(self.conv1, self.bn1, x))
        y = conv_norm(self.conv2, self.bn2, y)
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Bottleneck(resnet.Bottleneck):
    """ResNet's block of 1x1, 3x3 and 1x1 convolutions (section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(conv_norm(self.conv1, self.bn1, x))
        y = self.relu(conv_norm(self.conv2, self.bn2, y))
        y = conv_norm(self.conv3, self.bn3, y)
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)
