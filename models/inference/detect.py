"""From raw outputs to instances without prompts: point NMS, mask scoring, matrix NMS (SOLOv2, 3.3-3.4).

Legend: C classes, D detections, K masks, S grid side, E kernel channels, h x w the mask map, H x W pixels.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import InferenceConfig
from models.masks.boxes import mask_boxes
from models.masks.resize import Sizes, resize_boxed
from models.solov2.network import RawOutputs

CHUNK_ELEMENTS = 1 << 25
"""Values of mask maps held at a time."""
CACHED = 1 << 18
"""Values processed at a time on a CPU: they fit its cache."""
PIECE = 32
"""Side of the blocks of the map in which many masks are compared."""
MANY = 48
"""Masks from which on blocks are faster."""
REFERENCE_STRIDE = 4
"""`min_area` counts pixels of a map at this stride, the paper's, whatever the stride of the network."""


class Predictions(NamedTuple):
    """Instances of one image, best first."""

    masks: Tensor
    """bool [D, H, W] of the original image"""
    scores: Tensor
    """float32 [D]"""
    labels: Tensor
    """int64 [D], contiguous classes"""
    boxes_xyxy: Tensor
    """int64 [D, 4], on the CPU: whole pixels outside of which a mask is empty, the upper end exclusive; not always
    tight, zeros for an empty mask"""


def point_nms(scores: Tensor) -> Tensor:
    """Scores [C, S, S], set to 0 where the cell to the left, above, or above left has a greater one."""
    most = F.max_pool2d(scores[None], 2, stride=1, padding=1)[0, :, :-1, :-1]
    return scores * (most == scores)


def maskness(probabilities: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Mean probability inside each mask of [..., h * w], 0 for an empty one, and the masks' areas."""
    rows = probabilities.flatten(0, -2)
    measured = [_maskness(part, threshold) for part in rows.split(rows_at_once(rows))]
    certainty, area = (
        torch.cat(parts).view(probabilities.shape[:-1]) for parts in zip(*measured, strict=True)
    )
    return certainty, area


def _maskness(rows: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    # A sum of bytes is ten times as fast as one of bools.
    area = (rows > threshold).view(torch.uint8).sum(-1, dtype=torch.int32).long()
    inside = F.threshold(rows, threshold, 0.0)  # 0 where not above
    return inside.sum(-1) / area.clamp(min=1), area


def rows_at_once(rows: Tensor) -> int:
    """How many rows of [K, n] to process at a time: on the CPU as many as its cache holds, else all."""
    return max(1, CACHED // rows.shape[1]) if rows.device.type == "cpu" else max(1, len(rows))


def mask_ious(masks: Tensor, groups: Tensor | None = None) -> Tensor:
    """Float32 [K, K]: intersection over union of bool masks [K, h, w]; 0 for empty ones.

    With `groups`, int [K], it is 0 for masks of different groups.
    """
    overlap = torch.zeros(len(masks), len(masks), device=masks.device)
    kinds = (
        [slice(None)] if groups is None else [(groups == kind).nonzero()[:, 0] for kind in groups.unique()]
    )
    if masks.device.type != "cpu":  # one large product is faster there than many small ones
        flat = masks.flatten(1).float()
        overlap = flat @ flat.T
        if groups is not None:
            overlap *= groups[:, None] == groups
    else:
        for rows in kinds:
            _add_overlaps(overlap, masks, torch.arange(len(masks))[rows])
    area = overlap.diagonal()
    return overlap / (area[:, None] + area - overlap).clamp(min=1)


def _add_overlaps(overlap: Tensor, masks: Tensor, rows: Tensor) -> None:
    """Adds to overlap [K, K] the number of pixels that two masks of [K, h, w] share, for all pairs of `rows`.

    Works in blocks of the map, each of which meets few of many masks. Pixel counts are exact in float32, so the order
    doesn't matter.
    """
    boxes = mask_boxes(masks[rows])
    rows, boxes = rows[boxes[:, 2] > 0], boxes[boxes[:, 2] > 0]
    if not len(rows):
        return
    begin_x, begin_y = boxes[:, :2].amin(0).tolist()
    end_x, end_y = boxes[:, 2:].amax(0).tolist()
    x0, y0, x1, y1 = boxes.unbind(1)
    piece = PIECE if len(rows) >= MANY else max(end_x - begin_x, end_y - begin_y)
    for top in range(begin_y, end_y, piece):
        for left in range(begin_x, end_x, piece):
            mine = rows[(x0 < left + piece) & (x1 > left) & (y0 < top + piece) & (y1 > top)]
            flat = masks[mine, top : top + piece, left : left + piece].flatten(1).float()
            overlap[mine[:, None], mine] += flat @ flat.T


def matrix_nms(
    masks: Tensor, labels: Tensor, scores: Tensor, kernel: Literal["gaussian", "linear"], sigma: float
) -> Tensor:
    """Decayed scores [K] of bool masks [K, ...] sorted by descending score (SOLOv2, section 3.4, equations 4-5).

    Each score decays by the mask's IoU with every better mask of its class, compensated by that mask's own largest IoU
    with a better one.
    """
    if not len(masks):
        return scores
    iou = mask_ious(masks, labels).triu(diagonal=1)  # row: the better mask, column: the worse
    largest = iou.amax(0)[:, None]
    if kernel == "gaussian":
        decay = torch.exp(-sigma * (iou.square() - largest.square()))
    else:
        # 0 for a duplicate of a better mask: no divisor.
        decay = (1 - iou) / (1 - largest).clamp(min=1e-6)
    return scores * decay.amin(0)


class Candidates(NamedTuple):
    """Masks before non-maximum suppression, best first."""

    scores: Tensor
    """float32 [K]: class probability x maskness"""
    labels: Tensor
    """int64 [K], contiguous classes"""
    probabilities: Tensor
    """float32 [K, h, w]"""


@torch.no_grad()
def candidates(
    outputs: RawOutputs,
    n: int,
    config: InferenceConfig,
    input_size: tuple[int, int],
    core_xyxy: tuple[float, float, float, float] | None = None,
) -> Candidates:
    """The `nms_pre` best masks of image `n`'s cells, of those above the score threshold and the least area.

    With `core_xyxy`, in pixels of the input, cells whose centres are outside are skipped.
    """
    features = outputs.mask_features[n].float()
    h, w = features.shape[-2:]
    found = []
    for logits, kernels, stride in zip(
        outputs.category_logits, outputs.kernels, outputs.strides, strict=True
    ):
        scores = point_nms(logits[n].float().sigmoid())
        if core_xyxy is not None:
            scores = scores * _cells_in(core_xyxy, (scores.shape[1], scores.shape[2]), input_size, scores)
        label, row, column = (scores > config.score_threshold).nonzero(as_tuple=True)
        level_stride = torch.full_like(label, stride)
        found.append((scores[label, row, column], label, kernels[n].float()[:, row, column].T, level_stride))
    scores, labels, weights, strides = (torch.cat(parts) for parts in zip(*found, strict=True))

    # As in the paper, maskness counts for all candidates before the best are kept.
    area_unit = (input_size[0] / h / REFERENCE_STRIDE) * (input_size[1] / w / REFERENCE_STRIDE)
    flat = features.flatten(1)
    parts = weights.split(max(1, CHUNK_ELEMENTS // (h * w)))
    drawn = flat.new_zeros(0, h * w)
    measured = []
    for part in parts:
        drawn = _draw(part, flat)
        measured.append(maskness(drawn, config.mask_threshold))
    certainty, area = (torch.cat(column) for column in zip(*measured, strict=True))
    kept = (area > 0) & (area * area_unit > config.min_area * strides)
    scores = (scores * certainty)[kept]
    order = scores.argsort(descending=True, stable=True)[: config.nms_pre]
    best = kept.nonzero()[order, 0]
    probabilities = drawn[best] if len(parts) == 1 else _draw(weights[best], flat)
    return Candidates(scores[order], labels[best], probabilities.view(-1, h, w))


def _draw(kernels: Tensor, features: Tensor) -> Tensor:
    """Masks [K, h * w] of kernels [K, E]."""
    masks = kernels @ features
    for part in masks.split(rows_at_once(masks)):
        part.sigmoid_()
    return masks


def _cells_in(
    box_xyxy: tuple[float, float, float, float], grid: tuple[int, int], size: tuple[int, int], like: Tensor
) -> Tensor:
    """[rows, columns] of 0 and 1: cells of a grid over an input of (height, width) whose centres are in the box."""
    x0, y0, x1, y1 = box_xyxy
    y, x = (
        (torch.arange(count, device=like.device) + 0.5) * (length / count)
        for count, length in zip(grid, size, strict=True)
    )
    return (((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))).to(like.dtype)


@torch.no_grad()
def predict(
    outputs: RawOutputs,
    n: int,
    config: InferenceConfig,
    sizes: Sizes,
) -> Predictions:
    """Instances of image `n`."""
    found = candidates(outputs, n, config, sizes.input)
    scores, order = suppress(found, config)
    masks, boxes = resize_boxed(found.probabilities[order], sizes, config.mask_threshold)
    return Predictions(masks, scores, found.labels[order], boxes)


def suppress(found: Candidates, config: InferenceConfig) -> tuple[Tensor, Tensor]:
    """Scores [D] after matrix NMS, best first, and int64 [D], the indices of the candidates."""
    inside = found.probabilities > config.mask_threshold
    scores = matrix_nms(inside, found.labels, found.scores, config.nms_kernel, config.nms_sigma)
    order = scores.argsort(descending=True, stable=True)[: config.max_detections]
    order = order[scores[order] >= config.nms_threshold]
    return scores[order], order
