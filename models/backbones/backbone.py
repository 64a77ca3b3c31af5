"""ResNet (He et al., CVPR 2016) and feature pyramid (Lin et al., CVPR 2017) of torchvision's parts; backbones by name.

torchvision's `ResNet` class fixes the stem at 64 channels, so a network of another width is assembled here
from its blocks; parameter names stay torchvision's, so that its published weights load by name.

Legend: N images, H x W pixels.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from math import gcd
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

from models.backbones.conv_norm import BasicBlock, Bottleneck, ConvNorm, conv_norm
from models.backbones.efficientnet import NORM_EPSILON, EfficientNetLite0, from_published, published_file
from models.backbones.freezing import Freezable
from models.config import PYRAMID_LEVELS, BackboneConfig, NormKind
from models.weights import WeightsError, fault_of, read_pickle, read_safetensors

STAGES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


def norm_layer(kind: NormKind, groups: int, epsilon: float = 1e-5) -> Callable[[int], nn.Module]:
    """The constructor, from a channel count, of one kind of normalisation; `epsilon` is batch norm's."""
    if kind == "frozen_bn":
        return partial(FrozenBatchNorm2d, eps=epsilon)
    if kind == "batch_norm":
        return partial(nn.BatchNorm2d, eps=epsilon)
    return lambda channels: nn.GroupNorm(gcd(groups, channels), channels)


class ResNet(Freezable):
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
                downsample = ConvNorm(nn.Conv2d(before, after, 1, stride=stride, bias=False), norm(after))
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
        maps = [self.relu(conv_norm(self.conv1, self.bn1, images))]
        x = self.maxpool(maps[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def frozen_parts(self) -> list[nn.Module]:
        """The stem (1), the stem and the first stage (2), and so on."""
        stem: list[nn.Module] = [self.conv1, self.bn1]
        stages = [self.layer1, self.layer2, self.layer3, self.layer4]
        return [*stem, *stages[: self.frozen_stages - 1]] if self.frozen_stages else []


def build_backbone(config: BackboneConfig, in_channels: int = 3) -> ResNet | EfficientNetLite0:
    """The network of `config`, its weights loaded and its stages frozen.

    With `in_channels` above 3 the further channels of the stem convolution keep their random weights.

    Raises ValueError when the weights don't fit the network, OSError when their file is missing.
    """
    network: ResNet | EfficientNetLite0
    if config.name == "efficientnet_lite0":
        norm = norm_layer(config.norm, config.norm_groups, NORM_EPSILON)
        network = EfficientNetLite0(in_channels=in_channels, width=config.widths[1], norm=norm)
    else:
        block, depths = STAGES[config.name]
        stem, base = (max(1, round(64 * width)) for width in config.widths)
        network = ResNet(
            block,
            depths,
            in_channels=in_channels,
            stem_channels=stem,
            planes=base,
            norm=norm_layer(config.norm, config.norm_groups),
            stride_in_1x1=config.stride_in_1x1,
        )
    if config.weights is not None:
        load_weights(network, config.name, config.weights)
    network.freeze(config.frozen_stages)
    return network


def weights_file(name: str, weights: str) -> Path:
    """The file that `weights` names, fetched if need be: torchvision's `imagenet` weights lie in torch's cache.

    Raises FileNotFoundError when it isn't there, or can't be fetched.
    """
    if weights != "imagenet":
        path = Path(weights)
        if not path.is_file():
            raise FileNotFoundError(f"{weights}: no such file; name a .pth or .safetensors file, or imagenet")
        return path
    if name == "efficientnet_lite0":
        return published_file()
    published = get_model_weights(name)["IMAGENET1K_V1"]
    url = published.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        try:
            published.get_state_dict(progress=False, check_hash=True)
        except OSError as error:
            raise FileNotFoundError(
                f"weights imagenet of {name}: {url} can't be fetched ({error}); put that file at {path}, "
                "or name its place in weights"
            ) from None
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name. Never executes code.

    Raises ValueError when it is damaged, or holds anything but named tensors.
    """
    try:
        state = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    except (UnpicklingError, WeightsError) as error:
        raise ValueError(f"{path}: not readable as weights ({error}); fetch or save it anew") from None
    strange = (
        [key for key, value in state.items() if not isinstance(value, Tensor)]
        if isinstance(state, dict)
        else []
    )
    if strange or not isinstance(state, dict):
        found = f"entries {', '.join(map(str, strange))}" if strange else type(state).__name__
        raise ValueError(f"{path}: found {found}, expected a state dict: tensors by name and nothing else")
    return state


def load_weights(network: ResNet | EfficientNetLite0, name: str, weights: str) -> None:
    """Load `imagenet`, or a file of weights with the published ones' names; the classifier's are left out.

    Raises ValueError that lists every fault, FileNotFoundError when there is no such file.
    """
    state = read_weights(weights_file(name, weights))
    if isinstance(network, EfficientNetLite0):
        state, stem = from_published(state), "stem.0.weight"
    else:
        state, stem = (
            {key: value for key, value in state.items() if not key.startswith("fc.")},
            "conv1.weight",
        )
    own = network.state_dict()
    if stem in state and state[stem].shape[1] < own[stem].shape[1]:
        widened = own[stem].clone()
        widened[:, : state[stem].shape[1]] = state[stem]
        state = {**state, stem: widened}
    # Group norm has no running statistics, step counters are of no use.
    spare = ("num_batches_tracked", "running_mean", "running_var")
    faults = [f"{key}: missing" for key in own.keys() - state.keys() if "num_batches" not in key]
    for key, value in state.items():
        if key in own and own[key].shape != value.shape:
            faults.append(f"{key}: found {list(value.shape)}, expected {list(own[key].shape)}")
        elif key in own and (fault := fault_of(key, value)) is not None:
            faults.append(f"{key}: {fault}")
        elif key not in own and not key.endswith(spare):
            faults.append(f"{key}: not in this network")
    if faults:
        shown = "\n  ".join(sorted(faults))
        raise ValueError(
            f"weights {weights!r} do not fit {name} ({len(faults)} faults):\n  {shown}\n"
            "Use width 1.0 with published weights, the same depth, or weights: null."
        )
    network.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


class BackboneFPN(nn.Module):
    """Backbone and feature pyramid: images [N, 3, H, W] to P2..P6, [N, channels, H / 2^l, W / 2^l] for level l.

    P6 is P5 sub-sampled by 2 (rounded up). The top-down path up-samples by nearest neighbour, as the paper's.
    """

    LEVELS = PYRAMID_LEVELS

    def __init__(self, config: BackboneConfig, fpn_channels: int) -> None:
        super().__init__()
        self.body = build_backbone(config)
        self.fpn = FeaturePyramidNetwork(
            self.body.channels[1:], fpn_channels, extra_blocks=LastLevelMaxPool()
        )

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        maps = self.body(images)[1:]
        pyramid = self.fpn(OrderedDict((str(level), x) for level, x in zip(self.LEVELS, maps, strict=False)))
        return dict(zip(self.LEVELS, pyramid.values(), strict=True))
