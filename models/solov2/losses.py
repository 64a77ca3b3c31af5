"""SOLOv2's training loss: Dice on masks, sigmoid focal on cells (SOLO, arXiv 1912.04488, section 3.3.2).

Legend: N images, C classes, S grid side, E kernel channels, P (cell, object) pairs, h x w the mask map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.config import SOLOv2Config
from models.solov2.network import RawOutputs
from models.solov2.targets import Targets

DICE_EPSILON = 0.001
"""Added to each squared sum of the Dice loss, as in SOLO."""
CHUNK_ELEMENTS = 1 << 25
"""Mask values that the mask loss has in memory at a time; more are computed in chunks, and again in the backward pass.
It affects results by rounding only."""


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """[P]: 1 - 2 sum(p g) / (sum p^2 + sum g^2 + 0.002) over the last axis of [P, h * w] in 0..1.

    V-Net (Milletari et al., 2016) as SOLO uses it (equation 5), with a constant for empty masks.
    """
    overlap = (probabilities * targets).sum(-1)
    total = probabilities.square().sum(-1) + targets.square().sum(-1)
    return 1 - 2 * overlap / (total + 2 * DICE_EPSILON)


def focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Elementwise sigmoid focal loss (Lin et al., ICCV 2017, equation 5); targets are 0 or 1."""
    # logsigmoid stays finite for confident errors.
    positive = -alpha * torch.sigmoid(-logits).pow(gamma) * F.logsigmoid(logits)
    negative = -(1 - alpha) * torch.sigmoid(logits).pow(gamma) * F.logsigmoid(-logits)
    return targets * positive + (1 - targets) * negative


@dataclass(frozen=True)
class Totals:
    """The divisors of the loss's sums."""

    pairs: Tensor
    """float32 scalar: sum of the weights of the mask loss's (cell, object) pairs"""
    positives: Tensor
    """float32 scalar: sum of the weights of the cells that hold an object"""

    @classmethod
    def of(cls, targets: Targets) -> Totals:
        """Those of one batch, or of a part of one."""
        held = torch.cat([x.flatten(1) for x in targets.categories], 1) >= 0
        weights = torch.cat([x.flatten(1) for x in targets.cell_weights], 1)
        return cls(targets.weights[targets.instance].sum(), weights[held].sum())


def solov2_loss(
    outputs: RawOutputs, targets: Targets, config: SOLOv2Config, totals: Totals | None = None
) -> dict[str, Tensor]:
    """`loss` and its two parts `loss_mask` (weighted mean Dice over the pairs) and `loss_category`, scalars.

    A batch with no object has loss_mask 0 and finite gradients in every parameter. Both parts are weighted means, so
    objects of low weight don't lower the influence of the others.

    With the `totals` of a whole batch, of which this is a part, the losses of its parts sum to the loss of the whole.
    The host doesn't wait for a GPU.
    """
    if totals is None:
        totals = Totals.of(targets)
    with torch.autocast(outputs.mask_features.device.type, enabled=False):
        mask = config.dice_weight * _mask_loss(outputs, targets, totals.pairs)
        category = config.focal_weight * _category_loss(outputs, targets, config, totals.positives)
        return {"loss": mask + category, "loss_mask": mask, "loss_category": category}


def _category_loss(outputs: RawOutputs, targets: Targets, config: SOLOv2Config, positives: Tensor) -> Tensor:
    """Focal loss summed over all cells and classes / (positive cells + 1), by weight."""
    classes = outputs.category_logits[0].shape[1]
    logits = torch.cat([x.float().flatten(2) for x in outputs.category_logits], 2)  # [N, C, cells]
    category = torch.cat([x.flatten(1) for x in targets.categories], 1)
    weight = torch.cat([x.flatten(1) for x in targets.cell_weights], 1)
    hot = (category[:, None] == torch.arange(classes, device=category.device)[:, None]).float()
    loss = focal_loss(logits, hot, config.focal_alpha, config.focal_gamma) * weight[:, None]
    if targets.skipped_negatives.shape[1]:
        image, of_class, cell = targets.skipped_negatives
        loss = loss.index_put((image, of_class, cell), loss.new_zeros(()))
    return loss.sum() / (positives + 1)


def _mask_loss(outputs: RawOutputs, targets: Targets, total: Tensor) -> Tensor:
    """Sum over the pairs of weight x Dice / `total`, the sum of weights (at least 1: a low weight stays low)."""
    maps = outputs.mask_features.float().flatten(2)  # [N, E, h * w]
    joined = torch.cat([k.float().flatten(2) for k in outputs.kernels], 2)  # [N, E, cells of all levels]
    pairs = len(targets.cell)
    if not pairs:
        # A function of every parameter: distributed training waits for all gradients.
        return 0.0 * (maps.sum() + joined.sum())
    # Unbound once: the gradient of one image indexed from a batch is as large as the batch.
    features, kernels = maps.unbind(0), joined.unbind(0)
    truth = targets.masks.flatten(1)
    step = max(1, CHUNK_ELEMENTS // maps.shape[2])
    found = maps.new_zeros(())
    end = 0
    for i, count in enumerate(targets.pairs_per_image):
        start, end = end, end + count
        for at in range(start, end, step):
            rows = slice(at, min(at + step, end))
            instance = targets.instance[rows]
            arguments = (kernels[i][:, targets.place[rows]], features[i], truth, instance, targets.weights)
            if pairs > step:
                found = found + checkpoint(_pair_dice, *arguments, use_reentrant=False)
            else:
                found = found + _pair_dice(*arguments)
    return found / total.clamp(min=1)


def _pair_dice(kernels: Tensor, features: Tensor, truth: Tensor, instance: Tensor, weights: Tensor) -> Tensor:
    """Sum of the weighted Dice losses of kernels [E, P] on one image's features [E, h * w]."""
    probabilities = torch.sigmoid(kernels.T @ features)
    return (dice_loss(probabilities, truth[instance]) * weights[instance]).sum()
