"""SOLOv2's loss as the papers tell it, in loops over images, levels, objects and cells: what bench/train_step.py holds
ours against. Written after SOLO (arXiv 1912.04488), section 3.3, and SOLOv2 (arXiv 2003.10152), section 3.

Legend: K objects of an image, S grid side, h x w the mask map, H x W pixels of the input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import SOLOv2Config
from models.solov2.network import RawOutputs


def cells_of(mask: Tensor, grid: int, config: SOLOv2Config) -> list[tuple[int, int]]:
    """Row and column of the cells of an S x S grid that learn a mask bool [H, W]: those that its box, shrunk around its
    mass centre, touches, no further than one from the centre's."""
    height, width = mask.shape
    y, x = mask.nonzero(as_tuple=True)
    spans = []
    for where, side in ((y, height), (x, width)):
        centre = float(where.float().mean()) + 0.5
        half = (int(where.max()) - int(where.min()) + 1) * config.centre_shrink / 2
        low, middle, high = (
            min(max(math.floor(at / side * grid), 0), grid - 1)
            for at in (centre - half, centre, centre + half)
        )
        spans.append(range(max(low, middle - 1), min(high, middle + 1) + 1))
    return [(row, column) for row in spans[0] for column in spans[1]]


def learns(mask: Tensor, level: int, config: SOLOv2Config) -> bool:
    """Whether a level learns a mask bool [H, W] of its size; one beyond all ranges goes to the nearest."""
    y, x = mask.nonzero(as_tuple=True)
    size = math.sqrt((int(y.max()) - int(y.min()) + 1) * (int(x.max()) - int(x.min()) + 1))
    size = min(max(size, min(low for low, _ in config.ranges)), max(high for _, high in config.ranges) - 1e-3)
    low, high = config.ranges[level]
    return low <= size < high


def plain_loss(
    outputs: RawOutputs, masks: Sequence[Tensor], labels: Sequence[Tensor], config: SOLOv2Config
) -> Tensor:
    """Scalar: the loss of a batch.

    Args:
        masks: of each image bool [K, H, W], of the input's size, none of them empty.
        labels: of each image int64 [K], contiguous classes.
    """
    device = outputs.mask_features.device
    dice: list[Tensor] = []
    focal = torch.zeros((), device=device)
    positive = 0
    for n, (own, classes) in enumerate(zip(masks, labels, strict=True)):
        truths = [F.avg_pool2d(mask[None, None].float(), config.mask_stride)[0, 0] for mask in own]
        features = outputs.mask_features[n]
        for level, grid in enumerate(config.grids):
            logits = outputs.category_logits[level][n]
            hot = torch.zeros_like(logits)
            for mask, label, truth in zip(own, classes.tolist(), truths, strict=True):
                if not learns(mask, level, config):
                    continue
                for row, column in cells_of(mask, grid, config):
                    hot[:, row, column] = 0  # the last object has the cell
                    hot[label, row, column] = 1
                    kernel = outputs.kernels[level][n, :, row, column]
                    found = torch.sigmoid(F.conv2d(features[None], kernel[None, :, None, None])[0, 0])
                    overlap = (found * truth).sum()
                    total = found.square().sum() + truth.square().sum()
                    dice.append(1 - 2 * overlap / (total + 0.002))
            probability = torch.sigmoid(logits)
            sure = torch.where(hot > 0, probability, 1 - probability)
            alpha = torch.where(hot > 0, config.focal_alpha, 1 - config.focal_alpha)
            entropy = F.binary_cross_entropy_with_logits(logits, hot, reduction="none")
            focal = focal + (alpha * (1 - sure) ** config.focal_gamma * entropy).sum()
            positive += int(hot.sum())
    return config.dice_weight * torch.stack(dice).mean() + config.focal_weight * focal / (positive + 1)
