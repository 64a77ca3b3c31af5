"""EfficientNet-Lite0 (Tan and Le, ICML 2019; Google's Lite variant) of torchvision's parts.

The Lite family is EfficientNet for small devices: ReLU6 in place of swish, no squeeze and excitation. Its published
weights were trained with TensorFlow, so batch norm's epsilon is 1e-3, and a convolution of stride 2 has TensorFlow's
"SAME" padding: for an even size one pixel more at the bottom and right. Their inputs are (x - 127) / 128 of RGB 0..255.

Legend: N images, H x W pixels.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models._utils import _make_divisible

from models.backbones.base import Backbone
from models.backbones.config import BackboneConfig
from models.backbones.conv_norm import ConvNorm, norm_layer
from models.backbones.registry import BACKBONES

STEM_CHANNELS = 32
NORM_EPSILON = 1e-3

STAGES: tuple[tuple[tuple[int, int, int, int, int], ...], ...] = (
    ((1, 3, 1, 1, 16),),
    ((2, 3, 2, 6, 24),),
    ((2, 5, 2, 6, 40),),
    ((3, 3, 2, 6, 80), (3, 5, 1, 6, 112)),
    ((4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
"""The blocks between two maps: rows of (blocks, kernel, stride of the first block, expansion, channels)."""

WEIGHTS_FILE = "models/efficientnet-lite0-57934424.pth"
"""In the package of the weights."""

CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
"""The published weights' last part, which a backbone hasn't."""

Norm = Callable[[int], nn.Module]


def pad_same(x: Tensor, kernel: int) -> Tensor:
    """TensorFlow's "SAME" padding, with zeros, for a convolution of stride 2: n pixels become ceil(n / 2)."""
    pads = []
    for size in (x.shape[3], x.shape[2]):
        total = kernel - 2 + size % 2
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    norm: Norm,
    *,
    stride: int = 1,
    groups: int = 1,
    active: bool = True,
) -> ConvNorm:
    """Convolution without bias, normalisation, ReLU6 if `active`; at stride 2 `pad_same` comes before it."""
    padding = kernel // 2 if stride == 1 else 0
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
    return ConvNorm(layer, norm(out_channels), *([nn.ReLU6(inplace=True)] if active else []))


class Block(nn.Module):
    """Inverted residual (MobileNetV2): 1x1 to `expansion` times the channels, depthwise, 1x1 without ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int, norm: Norm
    ) -> None:
        super().__init__()
        inside = in_channels * expansion
        self.kernel, self.stride = kernel, stride
        self.skips = stride == 1 and in_channels == out_channels
        self.expand = conv(in_channels, inside, 1, norm) if expansion != 1 else None
        self.depthwise = conv(inside, inside, kernel, norm, stride=stride, groups=inside)
        self.project = conv(inside, out_channels, 1, norm, active=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y if self.stride == 1 else pad_same(y, self.kernel)))
        return x + y if self.skips else y


def published_names() -> dict[str, str]:
    """{module of the published weights: ours}, such as `_blocks.1._bn0`: `stages.1.0.expand.1`."""
    names = {"_conv_stem": "stem.0", "_bn0": "stem.1"}
    number = 0
    for s, rows in enumerate(STAGES):
        i = 0
        for count, _, _, expansion, _ in rows:
            for _ in range(count):
                theirs, ours = f"_blocks.{number}", f"stages.{s}.{i}"
                if expansion != 1:
                    names |= {
                        f"{theirs}._expand_conv": f"{ours}.expand.0",
                        f"{theirs}._bn0": f"{ours}.expand.1",
                    }
                names |= {
                    f"{theirs}._depthwise_conv": f"{ours}.depthwise.0",
                    f"{theirs}._bn1": f"{ours}.depthwise.1",
                    f"{theirs}._project_conv": f"{ours}.project.0",
                    f"{theirs}._bn2": f"{ours}.project.1",
                }
                number, i = number + 1, i + 1
    return names


class EfficientNetLite0(Backbone):
    """The convolutional part; at width 1 its maps have 16, 24, 40, 112 and 320 channels.

    Unlike the published weights' training, ours has no stochastic depth.
    """

    STEM = "stem.0.weight"

    def __init__(self, config: BackboneConfig, in_channels: int) -> None:
        super().__init__(config, in_channels)
        norm = norm_layer(config.norm, config.norm_groups, NORM_EPSILON)

        def scaled(channels: int) -> int:
            return _make_divisible(channels * config.widths[1], 8)

        before = scaled(STEM_CHANNELS)
        self.stem = conv(in_channels, before, 3, norm, stride=2)
        self.stages = nn.ModuleList()
        self.channels: list[int] = []
        for rows in STAGES:
            blocks = []
            for count, kernel, stride, expansion, channels in rows:
                for i in range(count):
                    after = scaled(channels)
                    blocks.append(Block(before, after, kernel, stride if i == 0 else 1, expansion, norm))
                    before = after
            self.stages.append(nn.Sequential(*blocks))
            self.channels.append(before)
        self.initialise()

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        x = self.stem(pad_same(images, 3))
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def frozen_parts(self) -> list[nn.Module]:
        return [self.stem, *self.stages[: self.frozen_stages]] if self.frozen_stages else []

    @staticmethod
    def published_file(name: str) -> Path:
        package = BACKBONES[name].weights_package
        assert package is not None
        spec = importlib.util.find_spec(package.module)
        if spec is None or spec.origin is None:
            raise FileNotFoundError(
                f"weights imagenet of {name}: package {package.module} isn't installed; {package.install} "
                "(18 MB, no download beyond it), or set weights: null"
            )
        path = Path(spec.origin).parent / WEIGHTS_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file in the installed package; {package.install} --force-reinstall"
            )
        return path

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        names = published_names()
        renamed = {}
        for key, value in state.items():
            if not key.startswith(CLASSIFIER):
                module, _, leaf = key.rpartition(".")
                renamed[f"{names.get(module, module)}.{leaf}" if module else key] = value
        return renamed
