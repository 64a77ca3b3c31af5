"""The training loss of a network with queries: each object is matched with one query; the others learn `no object`.

As in Mask2Former (arXiv 2112.01527, section 3.3): cross-entropy of classes, and of masks at random points (more of them
where a mask is uncertain) binary cross-entropy and Dice, for each layer of the decoder. Ours are the objects' weights,
and ignored regions: points in them don't count, and a query whose mask lies mostly in one isn't `no object`.

Legend: N images, C classes, Q queries, K objects, M matched pairs, P points, L layers, H x W pixels of the padded
input, h x w its mask map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.queries.network import QueryOutputs

MOSTLY = 0.5
"""The share of a query's mask in an ignored region from which on it doesn't learn `no object`."""
Draws = Callable[[int, int], torch.Generator]
"""From an image's index in the batch and a layer to the generator of its points, on the device of the outputs."""


class QueryLossConfig(NamedTuple):
    """Constants of the loss, by their names in transformers."""

    class_weight: float
    mask_weight: float
    dice_weight: float
    no_object_weight: float
    train_num_points: int
    oversample_ratio: float
    importance_sample_ratio: float
    weigh_categories: bool
    """Whether an object's weight scales its class loss, not the losses of its mask alone"""

    @classmethod
    def of(cls, settings: Any, weigh_categories: bool) -> QueryLossConfig:
        """Those of a network's config."""
        values = {name: getattr(settings, name) for name in cls._fields if name != "weigh_categories"}
        return cls(**values, weigh_categories=weigh_categories)


@dataclass(frozen=True)
class Truth:
    """The objects of an image."""

    masks: Tensor
    """bool [K, H, W]; float32 only one image at a time, as it is four times as large"""
    labels: Tensor
    """int64 [K]"""
    weights: Tensor
    """float32 [K]: factors of an object's part of the losses"""
    ignored: Tensor | None
    """bool [H, W]: pixels of no known object, or None"""


class QueryTotals(NamedTuple):
    """The divisors of the loss's sums; they don't depend on the network."""

    classes: Tensor
    """float32 scalar: sum of the weights of all queries"""
    masks: Tensor
    """float32 scalar: sum of the objects' weights"""

    @classmethod
    def of(cls, truths: Sequence[Truth], queries: int, config: QueryLossConfig) -> QueryTotals:
        """Those of some images. If there are more objects than queries, a query counts with their mean weight."""
        classes = masks = truths[0].weights.new_zeros(())
        for one in truths:
            matched = min(queries, len(one.labels))
            total = one.weights.sum()
            masks = masks + total
            share = total * (matched / max(1, len(one.labels))) if config.weigh_categories else matched
            classes = classes + share + config.no_object_weight * (queries - matched)
        return cls(classes, masks)


def query_loss(
    outputs: QueryOutputs, truths: Sequence[Truth], config: QueryLossConfig, totals: QueryTotals, draws: Draws
) -> dict[str, Tensor]:
    """`loss` and its parts `loss_category`, `loss_mask` (cross-entropy) and `loss_dice`, scalars: sums over the layers.

    Each is a weighted mean, over all queries or all objects. With the `totals` of a whole batch, of which this is a
    part, the losses of its parts sum to the loss of the whole. In a batch without objects the losses of masks are 0,
    with finite gradients in every parameter.
    """
    device = outputs.class_logits[-1].device
    sums = torch.zeros(3, device=device)
    with torch.autocast(device.type, enabled=False):
        for layer, (logits, maps) in enumerate(zip(outputs.class_logits, outputs.mask_logits, strict=True)):
            for n, truth in enumerate(truths):
                sums = sums + _of_image(logits[n].float(), maps[n].float(), truth, config, draws(n, layer))
        category = config.class_weight * sums[0] / totals.classes.clamp(min=torch.finfo().tiny)
        # At least 1: a low weight stays low.
        mask = config.mask_weight * sums[1] / totals.masks.clamp(min=1)
        dice = config.dice_weight * sums[2] / totals.masks.clamp(min=1)
    return {"loss": category + mask + dice, "loss_category": category, "loss_mask": mask, "loss_dice": dice}


def _of_image(
    logits: Tensor, maps: Tensor, truth: Truth, config: QueryLossConfig, generator: torch.Generator
) -> Tensor:
    """float32 [3]: sums of the losses of classes, masks and Dice of logits [Q, C + 1] and maps [Q, h, w]."""
    query, target = match(logits, maps, truth, config, generator)
    no_object = logits.shape[1] - 1
    classes = torch.full((len(logits),), no_object, device=logits.device)
    weights = torch.full((len(logits),), config.no_object_weight, device=logits.device)
    if truth.ignored is not None:
        weights[in_ignored(maps, truth.ignored)] = 0
    classes[query] = truth.labels[target]
    weights[query] = truth.weights[target] if config.weigh_categories else 1.0
    category = (F.cross_entropy(logits, classes, reduction="none") * weights).sum()
    if not len(query):
        return torch.stack([category, *(0.0 * maps.sum()).expand(2)])
    drawn = maps[query][:, None]
    with torch.no_grad():
        points = uncertain_points(drawn, truth.ignored, config, generator)
        truths = at_points(truth.masks[target][:, None].float(), points)[:, 0]
        counts = counted(truth.ignored, points)
    values = at_points(drawn, points)[:, 0]
    weight = truth.weights[target]
    cross = F.binary_cross_entropy_with_logits(values, truths, reduction="none")
    mask = (cross * counts).sum(1) / counts.sum(1).clamp(min=1)
    inside, truths = values.sigmoid() * counts, truths * counts
    dice = 1 - (2 * (inside * truths).sum(1) + 1) / (inside.sum(1) + truths.sum(1) + 1)
    return torch.stack([category, (mask * weight).sum(), (dice * weight).sum()])


@torch.no_grad()
def match(
    logits: Tensor, maps: Tensor, truth: Truth, config: QueryLossConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Two of int64 [M], M = min(Q, K): the queries and the objects of the pairs of the least total cost."""
    from scipy.optimize import linear_sum_assignment

    if not len(truth.labels):
        none = torch.zeros(0, dtype=torch.long, device=logits.device)
        return none, none
    points = torch.rand(1, config.train_num_points, 2, generator=generator, device=logits.device)
    values = at_points(maps[None], points)[0]  # [Q, P]
    truths = at_points(truth.masks[None].float(), points)[0]  # [K, P]
    counts = counted(truth.ignored, points)  # [1, P]
    total = counts.sum().clamp(min=1)
    cross = (F.softplus(-values) * counts) @ truths.T + (F.softplus(values) * counts) @ (1 - truths).T
    inside = values.sigmoid() * counts
    areas = inside.sum(1)[:, None] + (truths * counts).sum(1)
    dice = 1 - (2 * inside @ truths.T + 1) / (areas + 1)
    category = -logits.softmax(1)[:, truth.labels]
    cost = config.class_weight * category + config.mask_weight * cross / total + config.dice_weight * dice
    # The loss that isn't finite is reported after the step.
    cost = cost.nan_to_num(nan=1e9, posinf=1e9, neginf=1e9)
    query, target = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(query, device=logits.device), torch.as_tensor(target, device=logits.device)


def in_ignored(maps: Tensor, ignored: Tensor) -> Tensor:
    """Bool [Q]: the masks of logits [Q, h, w] that lie mostly in the region bool [H, W]; not empty ones."""
    region = F.adaptive_avg_pool2d(ignored.float()[None], (maps.shape[1], maps.shape[2]))[0]
    inside = (maps.detach() > 0).float()
    return (inside * region).sum((1, 2)) > MOSTLY * inside.sum((1, 2))


def uncertain_points(
    drawn: Tensor, ignored: Tensor | None, config: QueryLossConfig, generator: torch.Generator
) -> Tensor:
    """float32 [M, P, 2] in 0..1: of more random points the most uncertain of masks [M, 1, h, w], and random ones."""
    many = int(config.train_num_points * config.oversample_ratio)
    few = min(many, int(config.importance_sample_ratio * config.train_num_points))
    count = len(drawn)
    points = torch.rand(count, many, 2, generator=generator, device=drawn.device)
    uncertainty = -at_points(drawn, points)[:, 0].abs()
    uncertainty = uncertainty.where(counted(ignored, points) > 0, -torch.inf)
    best = uncertainty.topk(few, dim=1).indices
    chosen = points.gather(1, best[..., None].expand(-1, -1, 2))
    rest = config.train_num_points - few
    others = torch.rand(count, rest, 2, generator=generator, device=drawn.device)
    return torch.cat([chosen, others], 1)


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """[A, B, P]: values of maps [A, B, h, w] at points [A, P, 2] (x, y in 0..1), bilinear."""
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]


def counted(ignored: Tensor | None, points: Tensor) -> Tensor:
    """float32 [A, P]: 0 for points [A, P, 2] in the region bool [H, W], else 1."""
    if ignored is None:
        return points.new_ones(points.shape[:2])
    region = ignored.float()[None, None].expand(len(points), 1, -1, -1)
    grid = 2 * points[:, :, None] - 1
    return 1 - F.grid_sample(region, grid, mode="nearest", align_corners=False)[:, 0, :, 0]
