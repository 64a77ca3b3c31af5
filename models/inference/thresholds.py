"""The thresholds at which probability maps become masks.

The target of each place of the map is the fraction of it that an object covers (see
`models.solov2.targets.shrink_masks`). At a fixed threshold an object of a few places comes out too small, or vanishes.
But the sum of its probabilities is its area, whatever its size. So a small mask gets the threshold at which its area
equals that sum.

Legend: K masks, h x w places of the map.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.inference.detect import rows_at_once

FINER = 4
"""Areas are measured on a map so many times finer, so that they change in small steps."""


def mask_thresholds(
    probabilities: Tensor,
    threshold: float,
    small_area: float,
    faint: float,
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Float32 [K]: the probability above which a pixel belongs to each mask of [K, h, w].

    It is `threshold`, except for small masks: those of at most `small_area` places above the threshold, whose
    probabilities above `faint` around the greatest one sum to at most `small_area`. Their level is the one at which
    their area, resized bilinearly as masks are, equals that sum.

    `known` are the masks' areas and greatest values [K], if they are measured already.
    """
    levels = torch.full((len(probabilities),), threshold, device=probabilities.device)
    if small_area == 0 or not len(probabilities):
        return levels
    h, w = probabilities.shape[-2:]
    if known is None:
        known = ((probabilities > threshold).flatten(1).sum(1), probabilities.flatten(1).amax(1))
    area, peak = known
    rows = ((area <= small_area) & (peak > faint)).nonzero()[:, 0]
    if not len(rows):
        return levels
    at_once = rows_at_once(probabilities.flatten(1))
    place = torch.cat([probabilities[part].flatten(1).max(1).indices for part in rows.split(at_once)])

    # A window around the peak: long enough for a bar two places wide.
    reach = math.ceil(small_area / 4) + 2
    span = torch.arange(-reach, reach + 1, device=probabilities.device)
    y, x = (place // w)[:, None] + span, (place % w)[:, None] + span
    on_map = ((y >= 0) & (y < h))[:, :, None] & ((x >= 0) & (x < w))[:, None, :]
    window = probabilities[rows[:, None, None], y.clamp(0, h - 1)[:, :, None], x.clamp(0, w - 1)[:, None, :]]
    window = window.float() * on_map
    expected = (window * (window > faint)).flatten(1).sum(1)

    finer = F.interpolate(window[:, None], scale_factor=FINER, mode="bilinear", align_corners=False).flatten(
        1
    )
    most = min(math.ceil(small_area * FINER**2) + 1, finer.shape[1])
    ranked = finer.topk(most, dim=1).values
    # The mean of the last value inside and the first one outside leaves as many values as the area above it.
    last = (expected * FINER**2).round().long().clamp(1, most - 1)[:, None]
    level = (ranked.gather(1, last - 1) + ranked.gather(1, last))[:, 0] / 2
    small = expected <= small_area
    levels[rows[small]] = level[small]
    return levels
