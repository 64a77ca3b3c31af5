"""Backbones with frozen stages."""

from __future__ import annotations

from typing import Self

from torch import nn


class Freezable(nn.Module):
    """A backbone whose first stages can be frozen: images [N, C, H, W] to a list of maps."""

    frozen_stages = 0
    channels: list[int]
    """of the maps"""

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

    def frozen_parts(self) -> list[nn.Module]:
        """The parts that `frozen_stages` freezes."""
        raise NotImplementedError
