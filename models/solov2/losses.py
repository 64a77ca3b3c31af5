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
"""Added to each squared sum of the Dice loss; SOLO's."""
CHUNK_ELEMENTS = 1 << 25
"""Mask values held at a time by the mask loss; more are computed in chunks, and again in the backward pass.
It bounds memory and doesn't alter results beyond rounding."""


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """[P]: 1 - 2 sum(p g) / (sum p^2 + sum g^2 + 0.002) over the last axis of [P, h * w] in 0..1.

    V-Net (Milletari et al., 2016) as SOLO uses it (equation 5), with a constant for empty masks.
    """
    overlap = (probabilities * targets).sum(-1)
    total = probabilities.square().sum(-1) + targets.square().sum(-1)
    return 1 - 2 * overlap / (total + 2 * DICE_EPSILON)


def focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Elementwise sigmoid focal loss (Lin et al., ICCV 2017, equation 5); targets are 0 or 1."""
    # Written with logsigmoid, so that a confident error stays finite.
    positive = -alpha * torch.sigmoid(-logits).pow(gamma) * F.logsigmoid(logits)
    negative = -(1 - alpha) * torch.sigmoid(logits).pow(gamma) * F.logsigmoid(-logits)
    return targets * positive + (1 - targets) * negative


@dataclass(frozen=True)
class Totals:
    """What the loss's sums are divided by."""

    pairs: Tensor
    """float32 scalar: weights of the mask loss's (cell, object) pairs"""
    positives: Tensor
    """float32 scalar: weights of the cells that hold an object"""

    @classmethod
    def of(cls, targets: Targets) -> Totals:
        """Sums of one batch or piece."""
        held = torch.cat([x.flatten(1) for x in targets.categories], 1) >= 0
        weights = torch.cat([x.flatten(1) for x in targets.cell_weights], 1)
        return cls(targets.weights[targets.instance].sum(), weights[held].sum())


def solov2_loss(
    outputs: RawOutputs, targets: Targets, config: SOLOv2Config, totals: Totals | None = None
) -> dict[str, Tensor]:
    """`loss` and its two parts `loss_mask` (weighted mean Dice over the pairs) and `loss_category`, scalars.

    A batch with no object has loss_mask 0 and finite gradients in every parameter. Both parts are means by weight: half
    the weight is half the pull of another object, and doubtful objects don't make the sure ones count less.

    With `totals` of a larger batch, of which this is a piece, it is the piece's share of that batch's loss: the sum
    over the pieces is the loss of the whole.
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
    if targets.silent.shape[1]:
        image, of_class, cell = targets.silent
        loss = loss.index_put((image, of_class, cell), loss.new_zeros(()))
    return loss.sum() / (positives + 1)


def _mask_loss(outputs: RawOutputs, targets: Targets, total: Tensor) -> Tensor:
    """Sum over the pairs of weight x Dice, / `total`, their weights (at least 1: a doubtful pair alone isn't sure)."""
    maps = outputs.mask_features.float().flatten(2)  # [N, E, h * w]
    joined = torch.cat([k.float().flatten(2) for k in outputs.kernels], 2)  # [N, E, cells of all levels]
    pairs = len(targets.cell)
    if not pairs:
        # Still a function of every parameter: distributed training waits for all gradients.
        return 0.0 * (maps.sum() + joined.sum())
    # Taken apart once: the gradient of one image picked from a batch is a whole batch of zeros but for it.
    features, kernels = maps.unbind(0), joined.unbind(0)
    first = torch.tensor([0, *(k.shape[2] * k.shape[3] for k in outputs.kernels)], device=maps.device).cumsum(
        0
    )
    column = first[targets.level] + targets.cell
    truth = targets.masks.flatten(1)
    step = max(1, CHUNK_ELEMENTS // maps.shape[2])
    found = maps.new_zeros(())
    bounds = torch.bincount(targets.image, minlength=len(maps)).cumsum(0).tolist()
    for i, (start, end) in enumerate(zip([0, *bounds[:-1]], bounds, strict=True)):
        for at in range(start, end, step):
            rows = slice(at, min(at + step, end))
            instance = targets.instance[rows]
            arguments = (kernels[i][:, column[rows]], features[i], truth, instance, targets.weights)
            if pairs > step:
                found = found + checkpoint(_pair_dice, *arguments, use_reentrant=False)
            else:
                found = found + _pair_dice(*arguments)
    return found / total.clamp(min=1)


def _pair_dice(kernels: Tensor, features: Tensor, truth: Tensor, instance: Tensor, weights: Tensor) -> Tensor:
    """Sum of weighted Dice of kernels [E, P] on one image's features [E, h * w]."""
    probabilities = torch.sigmoid(kernels.T @ features)
    return (dice_loss(probabilities, truth[instance]) * weights[instance]).sum()
