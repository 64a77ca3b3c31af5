"""Refinement as the paper tells it, instance by instance: what bench/refine.py holds ours against.

Written after PointWSSIS (arXiv 2303.15062), section 3.3. Boxes are xyxy, points x, y, in pixels; (0, 0) is the outer
corner of the top-left pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import RefineNetConfig
from models.refiner.network import MaskRefineNet


def plain_box(mask: Tensor, point_xy: Tensor, enlarge: float) -> tuple[int, int, int, int]:
    """The box of a mask bool [H, W] and of its point's pixel, with (enlarge - 1) / 2 of the mask's size around it."""
    height, width = mask.shape
    y, x = mask.nonzero(as_tuple=True)
    column, row = int(point_xy[0]), int(point_xy[1])
    box = []
    for where, pixel, limit in ((x, column, width), (y, row, height)):
        low, high = int(where.min()), int(where.max()) + 1
        context = (high - low) * (enlarge - 1) / 2
        first = math.floor(min(low, pixel) - context)
        after = math.ceil(max(high, pixel + 1) + context)
        box.append((max(0, first), min(limit, after)))
    (left, right), (top, bottom) = box
    return left, top, right, bottom


def plain_input(
    image: Tensor, mask: Tensor, point_xy: Tensor, box: tuple[int, int, int, int], config: RefineNetConfig
) -> Tensor:
    """Float32 [1, 5, S, S]: image crop (normalised), point heatmap, mask."""
    left, top, right, bottom = box
    size, device = config.crop_size, image.device
    pixels = F.interpolate(
        image[None, :, top:bottom, left:right].float(), size=(size, size), mode="bilinear", antialias=True
    )
    mean = torch.tensor(config.pixel_mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(config.pixel_std, device=device).view(1, 3, 1, 1)
    at = torch.arange(size, device=device) + 0.5
    x = (point_xy[0] - left) / (right - left) * size
    y = (point_xy[1] - top) / (bottom - top) * size
    distance = (at[None, :] - x) ** 2 + (at[:, None] - y) ** 2
    heat = torch.exp(-distance / (2 * config.heatmap_sigma**2))
    rough = F.interpolate(
        mask[None, None, top:bottom, left:right].float(), size=(size, size), mode="nearest-exact"
    )
    return torch.cat([(pixels - mean) / std, heat[None, None], rough], 1)


@torch.no_grad()
def plain_refine(
    model: MaskRefineNet,
    image: Tensor,
    masks: Tensor,
    points_xy: Tensor,
    *,
    enlarge: float,
    mask_threshold: float,
) -> Tensor:
    """Bool [K, H, W]: the masks refined one after the other; where nothing came out, as they were.

    Args:
        image: uint8 RGB [3, H, W].
        masks: bool [K, H, W], none of them empty.
        points_xy: float [K, 2].
    """
    refined = []
    for mask, point in zip(masks, points_xy, strict=True):
        left, top, right, bottom = box = plain_box(mask, point, enlarge)
        logits = model(plain_input(image, mask, point, box, model.config))
        object_map = logits.softmax(1)[:, 1:]
        pasted = F.interpolate(
            object_map, size=(bottom - top, right - left), mode="bilinear", align_corners=False
        )
        new = torch.zeros_like(mask)
        new[top:bottom, left:right] = pasted[0, 0] > mask_threshold
        refined.append(new if bool(new.any()) else mask)
    return torch.stack(refined)
