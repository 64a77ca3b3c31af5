"""ResNet (He et al., CVPR 2016) of torchvision's parts.

torchvision's `ResNet` class has a stem of 64 channels. To allow other widths, the network is built here from its
blocks; parameter names are torchvision's, so that its published weights can be loaded.

Legend: N images, H x W pixels.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from models.backbones.base import Backbone
from models.backbones.config import BackboneConfig
from models.backbones.conv_norm import BasicBlock, Bottleneck, ConvNorm, conv_norm, norm_layer

STAGES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(Backbone):
    """The convolutional part; its maps are those of the stem before its pooling, and of the four stages."""

    STEM = "conv1.weight"

    def __init__(self, config: BackboneConfig, in_channels: int) -> None:
        super().__init__(config, in_channels)
        block, depths = STAGES[config.name]
        stem_channels, planes = (max(1, round(64 * width)) for width in config.widths)
        norm = norm_layer(config.norm, config.norm_groups)
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
            if config.stride_in_1x1 and isinstance(first, Bottleneck):
                first.conv1.stride, first.conv2.stride = (stride, stride), (1, 1)
            self.channels.append(after)
            return nn.Sequential(
                first, *(block(after, inside, norm_layer=norm) for _ in range(depths[i] - 1))
            )

        self.layer1, self.layer2, self.layer3, self.layer4 = stage(0), stage(1), stage(2), stage(3)
        self.initialise()

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.relu(conv_norm(self.conv1, self.bn1, images))]
        x = self.maxpool(maps[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def frozen_parts(self) -> list[nn.Module]:
        stem: list[nn.Module] = [self.conv1, self.bn1]
        stages = [self.layer1, self.layer2, self.layer3, self.layer4]
        return [*stem, *stages[: self.frozen_stages - 1]] if self.frozen_stages else []

    @staticmethod
    def published_file(name: str) -> Path:
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

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value for key, value in state.items() if not key.startswith("fc.")}
