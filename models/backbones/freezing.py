"""Backbones whose first parts don't learn."""

from __future__ import annotations

from typing import Self

from torch import nn


class Freezable(nn.Module):
    """A backbone that learns from some stage on."""

    frozen_stages = 0
    channels: list[int]
    """of the maps"""

    def freeze(self, stages: int) -> None:
        """Stop the learning of the first `stages` parts, the stem being one; see the backbone's `frozen_parts`."""
        self.frozen_stages = stages
        for part in self.frozen_parts():
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As any module's, but what is frozen stays in eval mode: its batch norms take no statistics."""
        super().train(mode)
        for part in self.frozen_parts():
            part.eval()
        return self

    def frozen_parts(self) -> list[nn.Module]:
        """What `frozen_stages` freezes."""
        raise NotImplementedError
