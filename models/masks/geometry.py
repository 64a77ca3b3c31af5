"""Measures of masks, and random pixels of them.

Legend: K masks, H x W pixels. Pixel coordinates are x, y with the centre of the top-left pixel at (0.5, 0.5).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shapes:
    """Measures of K masks, in pixels; 0 for an empty one."""

    area: Tensor
    centre: Tensor
    """float32 [K, 2]: mean x, y of the pixel centres"""
    size: Tensor
    """float32 [K, 2]: width and height of the box"""


def measure(masks: Tensor) -> Shapes:
    """Area, mass centre and box size of bool masks [K, H, W]."""
    columns = masks.sum(1, dtype=torch.float32)  # [K, W]
    rows = masks.sum(2, dtype=torch.float32)  # [K, H]
    area = columns.sum(1)
    mean, extent = [], []
    for counts in (columns, rows):
        where = torch.arange(counts.shape[1], device=masks.device, dtype=torch.float32)
        mean.append((counts * (where + 0.5)).sum(1) / area.clamp(min=1))
        held = counts > 0
        first = torch.where(held, where, torch.inf).amin(1)
        last = torch.where(held, where, -torch.inf).amax(1)
        extent.append((last - first + 1).clamp(min=0))
    return Shapes(area, torch.stack(mean, 1), torch.stack(extent, 1))


def random_inner_points(masks: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Float32 [K, count, 2]: x, y of random pixels' centres in bool masks [K, H, W]; NaN in an empty one."""
    return inner_points(masks, torch.rand(len(masks), count, generator=generator, device=masks.device))


def inner_points(masks: Tensor, draws: Tensor) -> Tensor:
    """Float32 [K, Q, 2]: x, y of pixels' centres in bool masks [K, H, W]; NaN in an empty one.

    `draws` in [0, 1), float32 [K, Q], are the pixels' relative positions in the mask, in reading order.
    """
    points = torch.full((len(masks), draws.shape[1], 2), torch.nan, device=masks.device)
    # The r-th pixel of a mask: the row where the running count of pixels first exceeds r, and in it the column. So
    # pixels are counted along these rows only.
    running = masks.view(torch.uint8).sum(2, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    real = running[:, -1] > 0
    if draws.shape[1] and bool(real.any()):
        running, total = running[real], running[real][:, -1:]
        rank = (draws[real] * total).int().minimum(total - 1)
        y = torch.searchsorted(running, rank, right=True)
        before = torch.where(y > 0, running.gather(1, (y - 1).clamp(min=0)), 0)
        along = masks[real.nonzero(), y].cumsum(2, dtype=torch.int32)
        x = torch.searchsorted(along, (rank - before)[..., None], right=True)[..., 0]
        points[real] = torch.stack([x, y], -1).float() + 0.5
    return points
