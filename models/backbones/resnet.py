"""ResNet (He et al., CVPR 2016) of torchvision's parts.

torchvision's `ResNet` class has a stem of 64 channels. To allow other widths, the network is built here from its
blocks; parameter names are torchvision's, so that its published weights can be loaded.

Legend: N images, H x W pixels.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from models.backbones.config import BackboneConfig
from models.backbones.conv_norm import BasicBlock, Bottleneck, ConvNorm, conv_norm, norm_layer
from models.backbones.freezing import Freezable

STEM = "conv1.weight"
STAGES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


def build(config: BackboneConfig, in_channels: int) -> "ResNet":
    """The network of `config` with random weights."""
    block, depths = STAGES[config.name]
    stem, base = (max(1, round(64 * width)) for width in config.widths)
    return ResNet(
        block,
        depths,
        in_channels=in_channels,
        stem_channels=stem,
        planes=base,
        norm=norm_layer(config.norm, config.norm_groups),
        stride_in_1x1=config.stride_in_1x1,
    )


def imagenet_file(name: str) -> Path:
    """torchvision's weights in torch's cache, downloaded if necessary.

    Raises FileNotFoundError when they can't be downloaded.
    """
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


def from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's weights without the classifier's."""
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


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
            """Stage i; its first block changes the channels and, except for stage 0, halves the map."""
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
