"""Prompts of a Segment Anything model: the clicks of an object, and those on its neighbours as negatives.

Legend: K clicks, P points of a prompt. Points are x, y in pixels of the original image; (0, 0) is the outer corner of
the top-left pixel.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.masks.clicks import NO_POINT, OFF, ON, FurtherClicks

ROWS = 1024
"""Clicks whose distances are in memory at a time."""


class Prompts(NamedTuple):
    """A prompt for each click."""

    points_xy: Tensor
    """float32 [K, P, 2]; the first is the click"""
    labels: Tensor
    """int64 [K, P]"""


def prompts_at(points_xy: Tensor, negatives: int, further: FurtherClicks | None = None) -> Prompts:
    """The prompts of all clicks [K, 2] of an image, each with its nearest `negatives` other clicks as negatives, and
    with the further clicks of its object.

    Of clicks at equal distance the first are used. A click at the very same place is no negative: it would contradict
    the click. Where an image has fewer other clicks, there are fewer points, or some are `NO_POINT`.
    """
    clicks = len(points_xy)
    count = max(0, min(negatives, clicks - 1))
    points = [points_xy[:, None]]
    labels = [torch.full((clicks, 1), ON, device=points_xy.device)]
    if count:
        exact = points_xy.double()
        distance, nearest = [], []
        for some in exact.split(ROWS):
            square = (some[:, None] - exact).square().sum(-1)
            order = square.where(square > 0, torch.inf).sort(dim=1, stable=True)
            distance.append(order.values[:, :count])
            nearest.append(order.indices[:, :count])
        points.append(points_xy[torch.cat(nearest)])
        labels.append(torch.where(torch.cat(distance).isfinite(), OFF, NO_POINT))
    if further is not None:
        points.append(further.points_xy)
        labels.append(further.labels)
    return Prompts(torch.cat(points, 1), torch.cat(labels, 1))
