"""ResNet (He et al., CVPR 2016) and feature pyramid (Lin et al., CVPR 2017) of torchvision's parts.

torchvision's `ResNet` class fixes the stem at 64 channels, so a network of another width is assembled here
from its blocks; parameter names stay torchvision's, so that its published weights load by name.

Legend: N images, H x W pixels.
"""

from collections import OrderedDict
from collections.abc import Callable
from math import gcd
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

from models.config import PYRAMID_LEVELS, BackboneConfig, NormKind

STAGES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


def norm_layer(kind: NormKind, groups: int) -> Callable[[int], nn.Module]:
    """The constructor, from a channel count, of one kind of normalisation."""
    if kind == "frozen_bn":
        return FrozenBatchNorm2d
    if kind == "batch_norm":
        return nn.BatchNorm2d
    return lambda channels: nn.GroupNorm(gcd(groups, channels), channels)


class ResNet(nn.Module):
    """The convolutional part: images [N, in_channels, H, W] to five maps at strides 2, 4, 8, 16 and 32.

    They come in that order: the stem before its pooling, then the four stages; `channels` lists their depths.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        *,
        in_channels: int,
        stem_channels: int,
        planes: int,
        norm: Callable[[int], nn.Module],
        stride_in_1x1: bool,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, stem_channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = [stem_channels]

        def stage(i: int) -> nn.Sequential:
            """Stage i; its first block changes depth and, but for stage 0, halves the map."""
            inside, stride = planes * 2**i, 1 if i == 0 else 2
            before, after = self.channels[-1], inside * block.expansion
            downsample = None
            if stride != 1 or before != after:
                downsample = nn.Sequential(
                    nn.Conv2d(before, after, 1, stride=stride, bias=False), norm(after)
                )
            first = block(before, inside, stride, downsample, norm_layer=norm)
            if stride_in_1x1 and isinstance(first, Bottleneck):
                first.conv1.stride, first.conv2.stride = (stride, stride), (1, 1)
            self.channels.append(after)
            return nn.Sequential(
                first, *(block(after, inside, norm_layer=norm) for _ in range(depths[i] - 1))
            )

        self.layer1, self.layer2, self.layer3, self.layer4 = stage(0), stage(1), stage(2), stage(3)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.relu(self.bn1(self.conv1(images)))]
        x = self.maxpool(maps[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def freeze(self, stages: int) -> None:
        """Stop the learning of the stem (1), the stem and the first stage (2), and so on."""
        stem = nn.ModuleList([self.conv1, self.bn1])
        for part in (stem, self.layer1, self.layer2, self.layer3, self.layer4)[:stages]:
            part.requires_grad_(False)


def build_resnet(config: BackboneConfig, in_channels: int = 3) -> ResNet:
    """The ResNet of `config`, its weights loaded and its stages frozen.

    With `in_channels` above 3 the further channels of the stem convolution keep their random weights.

    Raises ValueError when the weights don't fit the network, FileNotFoundError when their file is missing.
    """
    block, depths = STAGES[config.name]
    base = max(1, round(64 * config.width))
    resnet = ResNet(
        block,
        depths,
        in_channels=in_channels,
        stem_channels=base,
        planes=base,
        norm=norm_layer(config.norm, config.norm_groups),
        stride_in_1x1=config.stride_in_1x1,
    )
    if config.weights is not None:
        load_resnet_weights(resnet, config.name, config.weights)
    resnet.freeze(config.frozen_stages)
    return resnet


def load_resnet_weights(resnet: ResNet, name: str, weights: str) -> None:
    """Load `imagenet` or a file of torchvision-named weights into `resnet`; the classifier's are left out."""
    if weights == "imagenet":
        state = get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=False, check_hash=True)
    elif weights.endswith(".safetensors"):
        state = load_file(weights)
    else:
        state = torch.load(Path(weights), map_location="cpu", weights_only=True)
    own = resnet.state_dict()
    stem = state.get("conv1.weight")
    if stem is not None and stem.shape[1] < own["conv1.weight"].shape[1]:
        widened = own["conv1.weight"].clone()
        widened[:, : stem.shape[1]] = stem
        state = {**state, "conv1.weight": widened}
    # Group norm has no running statistics, torchvision's classifier and step counters have no place here.
    spare = ("fc.", "num_batches_tracked", "running_mean", "running_var")
    faults = [f"{key}: missing" for key in own.keys() - state.keys() if "num_batches" not in key]
    for key, value in state.items():
        if key in own and own[key].shape != value.shape:
            faults.append(f"{key}: found {list(value.shape)}, expected {list(own[key].shape)}")
        elif key not in own and not any(part in key for part in spare):
            faults.append(f"{key}: not in this network")
    if faults:
        shown = "\n  ".join(sorted(faults)[:10])
        raise ValueError(
            f"weights {weights!r} do not fit {name} ({len(faults)} faults):\n  {shown}\n"
            "Use width 1.0 with published weights, the same depth, or weights: null."
        )
    resnet.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


class ResNetFPN(nn.Module):
    """ResNet and feature pyramid: images [N, 3, H, W] to P2..P6, [N, channels, H / 2^l, W / 2^l] for level l.

    P6 is P5 sub-sampled by 2 (rounded up). The top-down path up-samples by nearest neighbour, as the paper's.
    """

    LEVELS = PYRAMID_LEVELS

    def __init__(self, config: BackboneConfig, fpn_channels: int) -> None:
        super().__init__()
        self.body = build_resnet(config)
        self.fpn = FeaturePyramidNetwork(
            self.body.channels[1:], fpn_channels, extra_blocks=LastLevelMaxPool()
        )

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        maps = self.body(images)[1:]
        pyramid = self.fpn(OrderedDict((str(level), x) for level, x in zip(self.LEVELS, maps, strict=False)))
        return dict(zip(self.LEVELS, pyramid.values(), strict=True))
