"""One vector an image, of a network's backbone: images that look alike to the network have vectors that are close."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from models.solov2.network import SOLOv2


class Pooled:
    """Means of the backbone's coarsest map over the content of what passes through, padding left out."""

    def __init__(self) -> None:
        self._maps: list[Tensor] = []
        self._sums: list[Tensor] = []
        self._cells: list[Tensor] = []

    def take(self, counts: list[int]) -> Tensor:
        """float32 [N, F] on the CPU, a row for each of N images, which came in this order; then it is empty again.

        Args:
            counts: of the tiles of each image; they are joined by the area of their content.
        """
        sums, cells = torch.cat(self._sums), torch.cat(self._cells)
        self._sums, self._cells = [], []
        rows = [
            part.sum(0) / weight.sum()
            for part, weight in zip(sums.split(counts), cells.split(counts), strict=True)
        ]
        return torch.stack(rows).float().cpu()

    def _of_backbone(self, module: Any, arguments: Any, maps: list[Tensor]) -> None:
        self._maps.append(maps[-1])

    def _of_network(self, module: Any, arguments: tuple[Any, ...], outputs: Any) -> None:
        images, sizes = arguments[0], arguments[1]
        map_ = self._maps.pop()
        stride_y, stride_x = (images.shape[2 + k] / map_.shape[2 + k] for k in (0, 1))
        for one, (height, width) in zip(map_, sizes, strict=True):
            # A tile may lie in the padding as a whole.
            h, w = (-(-height // int(stride_y)), -(-width // int(stride_x)))
            self._sums.append(one[:, :h, :w].sum((1, 2))[None])
            self._cells.append(one.new_full((1, 1), h * w))


@contextmanager
def pooled_features(model: SOLOv2) -> Iterator[Pooled]:
    """Notes the vectors of all images, or tiles, that pass through the network meanwhile."""
    pooled = Pooled()
    hooks = [
        model.backbone.body.register_forward_hook(pooled._of_backbone),
        model.register_forward_hook(pooled._of_network),
    ]
    try:
        yield pooled
    finally:
        for hook in hooks:
            hook.remove()
