"""The backbones by name. A new one is a module in this folder, and its row here.

A row's `load` imports the module when a network is built: reading a configuration doesn't import torch. It is written
as an import statement, since a stage's identity follows these (tasks/common/code_identity.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from models.backbones.config import BackboneConfig
    from models.backbones.freezing import Freezable


class Module(Protocol):
    """What a backbone's module has."""

    STEM: str
    """Name of the first convolution's weights."""

    def build(self, config: BackboneConfig, in_channels: int) -> Freezable:
        """The network with random weights."""

    def imagenet_file(self, name: str) -> Path:
        """The published weights, downloaded if necessary; raises FileNotFoundError with what to do."""

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The published weights by this network's names, without the classifier."""


@dataclass(frozen=True)
class Backbone:
    """One row."""

    load: Callable[[], Module]
    stride_in_1x1: bool = False
    """It takes the setting `stride_in_1x1`."""
    stem_width: bool = False
    """Its stem may have a width of its own."""


def _resnet() -> Module:
    from models.backbones import resnet

    return resnet


def _efficientnet() -> Module:
    from models.backbones import efficientnet

    return efficientnet


BACKBONES: dict[str, Backbone] = {
    "resnet18": Backbone(_resnet, stride_in_1x1=True, stem_width=True),
    "resnet34": Backbone(_resnet, stride_in_1x1=True, stem_width=True),
    "resnet50": Backbone(_resnet, stride_in_1x1=True, stem_width=True),
    "resnet101": Backbone(_resnet, stride_in_1x1=True, stem_width=True),
    "efficientnet_lite0": Backbone(_efficientnet),
}
