"""Further clicks of objects, which have a first click inside them.

Legend: K objects, F clicks of an object at most. Points are x, y in pixels; of which image, the caller says.
"""

from typing import NamedTuple

import torch
from torch import Tensor

ON, OFF, NO_POINT = 1, 0, -1
"""Labels of points: on the object, not on it, none. SAM has a learnt embedding for each."""


class FurtherClicks(NamedTuple):
    """The further clicks of K objects."""

    points_xy: Tensor
    """float32 [K, F, 2]; zeros for none"""
    labels: Tensor
    """int64 [K, F]"""

    def take(self, rows: Tensor) -> "FurtherClicks":
        """Of some of the objects: int64 [k], or bool [K]."""
        return FurtherClicks(self.points_xy[rows], self.labels[rows])

    def scaled(self, x: float, y: float) -> "FurtherClicks":
        """In another unit of length."""
        return self._replace(points_xy=self.points_xy * self.points_xy.new_tensor([x, y]))

    def counts(self) -> Tensor:
        """Int64 [K]: clicks of each object."""
        return (self.labels != NO_POINT).sum(1)

    def contradicted(self, masks: Tensor) -> Tensor:
        """Int64 [K]: of how many clicks bool masks [K, H, W] lack the pixel, or have it where they are outside."""
        side = self.labels.new_tensor([masks.shape[2], masks.shape[1]])
        x, y = self.points_xy.long().clamp(min=torch.zeros_like(side), max=side - 1).unbind(-1)
        held = masks[torch.arange(len(masks), device=masks.device)[:, None], y, x]
        return ((held & (self.labels == OFF)) | (~held & (self.labels == ON))).sum(1)
