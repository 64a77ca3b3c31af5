"""Who owns each pixel, where there are more masks than memory holds: `exclusive.disown`, some masks at a time.

All masks of a group claim their pixels, chunk after chunk; then each, drawn or unpacked once more, keeps its own.

Legend: K masks of a chunk, H x W pixels of the image, M claims. Points are x, y in pixels of the image.
"""

import torch
from torch import Tensor

from models.masks.exclusive import Clicked, Probability, winners

CHUNK_ELEMENTS = 1 << 23
"""Pixels of masks looked at together, each of which may take a few hundred bytes."""


class Owners:
    """The owners of an image's pixels among the masks of one group."""

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        """`size` is the image's (height, width)."""
        self.size = size
        pixels = size[0] * size[1]
        self._value = torch.full((pixels,), -torch.inf, device=device)
        self._distance = torch.full((pixels,), torch.inf, device=device)
        self._row = torch.full((pixels,), -1, dtype=torch.long, device=device)
        self._number = torch.empty(pixels, dtype=torch.long, device=device)

    def claim(self, masks: Tensor, rows: Tensor, probability: Probability, points_xy: Tensor) -> None:
        """Masks claim their pixels, by the rules of `disown`.

        Args:
            masks: bool [K, H, W].
            rows: int64 [K], rising: the numbers by which these masks are known; of equals, the least wins.
            probability: how sure masks 0..K-1 of this chunk are of points.
            points_xy: float [K, 2], their clicks.
        """
        clicks = Clicked.of(masks, points_xy)
        step = max(1, CHUNK_ELEMENTS // (self.size[0] * self.size[1]))
        for at in range(0, len(masks), step):
            mine, y, x = masks[at : at + step].nonzero(as_tuple=True)
            if not len(mine):
                continue
            mine = mine + at
            flat = y * self.size[1] + x
            value, distance = clicks.worth(mine, y, x, probability)
            wins = winners(value, distance, mine, flat, self._number)
            row, flat, value, distance = rows[mine[wins]], flat[wins], value[wins], distance[wins]
            equal = value == self._value[flat]
            far = self._distance[flat]
            better = (value > self._value[flat]) | (equal & (distance < far))
            better |= equal & (distance == far) & (row < self._row[flat])
            flat = flat[better]
            self._value[flat], self._distance[flat] = value[better], distance[better]
            self._row[flat] = row[better]

    def owned(self, masks: Tensor, rows: Tensor) -> Tensor:
        """Bool [K, H, W]: of masks that have claimed as `rows` [K], the pixels that are theirs."""
        return masks & (self._row.view(self.size) == rows[:, None, None])
