"""Feature pyramid (Lin et al., CVPR 2017) on a backbone.

Legend: N images, H x W pixels.
"""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from models.backbones.build import build_backbone
from models.backbones.config import PYRAMID_LEVELS, BackboneConfig


class BackboneFPN(nn.Module):
    """Backbone and feature pyramid: images [N, 3, H, W] to P2..P6, [N, channels, H / 2^l, W / 2^l] for level l.

    P6 is P5 sub-sampled by 2 (rounded up). The top-down path up-samples by nearest neighbour, as in the paper.
    """

    def __init__(self, config: BackboneConfig, fpn_channels: int) -> None:
        super().__init__()
        self.body = build_backbone(config)
        self.fpn = FeaturePyramidNetwork(
            self.body.channels[1:], fpn_channels, extra_blocks=LastLevelMaxPool()
        )

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        maps = self.body(images)[1:]
        pyramid = self.fpn(
            OrderedDict((str(level), x) for level, x in zip(PYRAMID_LEVELS, maps, strict=False))
        )
        return dict(zip(PYRAMID_LEVELS, pyramid.values(), strict=True))
