"""The base class of all backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from torch import Tensor, nn

from models.backbones.config import BackboneConfig


class BackboneError(ValueError):
    """A key of the backbone's settings can't be used with its network; the text begins with the key."""


class Backbone(nn.Module):
    """Images [N, C, H, W] to maps at strides 2, 4, 8, 16 and 32, in that order; its first stages can be frozen."""

    STEM: str
    """name of the first convolution's weights"""
    channels: list[int]
    """of the maps"""
    frozen_stages = 0

    def __init__(self, config: BackboneConfig, in_channels: int) -> None:
        """The network with random weights."""
        super().__init__()

    @staticmethod
    def published_file(name: str) -> Path:
        """The published weights, downloaded if necessary.

        Raises FileNotFoundError, with the next step, when they are missing.
        """
        raise NotImplementedError

    def from_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The published weights by the names of `pretrained`, without the classifier; unknown names stay."""
        raise NotImplementedError

    def pretrained(self) -> nn.Module:
        """The part with published weights; all of it, unless a subclass adds layers of ours."""
        return self

    def frozen_parts(self) -> list[nn.Module]:
        """The parts that `frozen_stages` freezes."""
        raise NotImplementedError

    def freeze(self, stages: int) -> None:
        """Freezes the first `stages` parts; the stem counts as one."""
        self.frozen_stages = stages
        for part in self.frozen_parts():
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of all but the frozen parts, which stay in eval mode: their batch norms take no statistics."""
        super().train(mode)
        for part in self.frozen_parts():
            part.eval()
        return self

    def initialise(self) -> None:
        """Random weights for all convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
