"""The post-processing of the public PointWSSIS implementation (the reference).

For comparisons, and to reproduce its results with its published weights; the default is
models/inference/click_masks.py and models/inference/detect.py. docs/method.md lists the differences. Written from the
reference's measured behaviour.

Legend: K points, D resulting masks, L levels, S grid side, h x w the mask map. Points are x, y in pixels of the
padded input, (0, 0) its outer top-left corner; the reference counts from the centre of the top-left pixel.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.config import InferenceConfig
from models.inference.detect import CHUNK_ELEMENTS, Predictions, candidates, mask_ious, maskness
from models.masks.resize import Sizes, resize_boxed
from models.solov2.network import RawOutputs

NMS_IOU = 0.5
"""Of two masks of a class that overlap by more, the one of lower score is dropped."""
POINT_STEPS = 10_000
"""Points are rounded down to such a fraction of the image's sides."""
KEPT = "kept"


class ReferencePrompted(NamedTuple):
    """The resulting masks, best first, and the fate of each point."""

    prompt: Tensor
    """int64 [D]: the mask's point (the first of several)"""
    carried: Tensor
    """int64 [D]: the point that the reference reports with the mask, the last one in its cell, of any class"""
    level: Tensor
    """int64 [D], 0 the finest"""
    labels: Tensor
    """int64 [D], contiguous classes"""
    scores: Tensor
    """float32 [D]: the maskness"""
    mask_prob: Tensor
    """float32 [D, h, w]"""
    fates: list[str]
    """[K]: `kept`, or why the point has no mask"""


def reference_cells(points_xy: Tensor, grid: tuple[int, int], input_size: tuple[int, int]) -> Tensor:
    """Int64 [K, 2]: column and row of each point's cell, int(x // (1 / S)) for its place x relative to the padded size.

    `grid` is the number of rows and of columns. At cells' borders rounding makes this differ from floor(x S), often by
    one cell less.
    """
    height, width = input_size
    share = (points_xy.double() - 0.5) / points_xy.new_tensor([width, height], dtype=torch.float64)
    rows, columns = grid
    counts = torch.tensor([columns, rows], device=share.device)
    cells = share.div(1.0 / counts.double(), rounding_mode="floor").long()
    return torch.minimum(cells.clamp(min=0), counts - 1)


@torch.no_grad()
def prompt_as_reference(
    outputs: RawOutputs,
    n: int,
    points_xy: Tensor,
    labels: Tensor,
    input_size: tuple[int, int],
    config: InferenceConfig,
) -> ReferencePrompted:
    """Masks of image `n` at points [K, 2] of contiguous classes [K], as the reference selects them.

    Each point takes the level of greatest maskness x class probability. Then masks are treated as detections: points of
    one class and cell are merged; masks not larger than their level's stride are dropped; the others, with maskness as
    score, pass mask NMS; the best `max_detections` stay.
    """
    device = outputs.mask_features.device
    points, labels = points_xy.to(device), labels.to(device)
    grids = [(logits.shape[-2], logits.shape[-1]) for logits in outputs.category_logits]
    cells = torch.stack([reference_cells(points, grid, input_size) for grid in grids], 1)  # [K, L, 2]
    features = outputs.mask_features[n].float()
    h, w = features.shape[-2:]
    flat = features.flatten(1)
    kernel, class_score = _read_cells(outputs, n, cells, labels)
    certainty, area = torch.zeros_like(class_score), torch.zeros_like(class_score)
    step = max(1, CHUNK_ELEMENTS // (len(grids) * h * w))
    for at in range(0, len(points), step):
        rows = slice(at, at + step)
        certainty[rows], area[rows] = maskness((kernel[rows] @ flat).sigmoid(), config.mask_threshold)
    level = (certainty * class_score).argmax(1)

    picked = torch.arange(len(points), device=device)
    place = torch.cat([level[:, None], cells[picked, level], labels[:, None]], 1)
    fates = [KEPT] * len(points)
    leader = _leaders(place)
    strides = torch.tensor(outputs.strides, device=device)[level]
    too_small = area[picked, level] <= strides
    for k, first in enumerate(leader.tolist()):
        if too_small[k]:
            fates[k] = (
                f"too small: {int(area[k, level[k]])} pixels of the mask map, at stride {int(strides[k])}"
            )
        elif first != k:
            fates[k] = f"the mask of point {first}: the same cell and class"
    order = ((leader == picked) & ~too_small).nonzero()[:, 0]
    scores = certainty[picked, level]
    order = order[scores[order].argsort(descending=True, stable=True)][: config.nms_pre]
    masks = (kernel[order, level[order]] @ flat).sigmoid().view(-1, h, w)
    better = mask_nms(masks > config.mask_threshold, labels[order])
    kept = (better < 0).nonzero()[:, 0]
    for k, by in zip(order.tolist(), better.tolist(), strict=True):
        if by >= 0:
            fates[k] = f"covered by the mask of point {int(order[by])}: IoU above {NMS_IOU}"
    for k in order[kept[config.max_detections :]].tolist():
        fates[k] = f"beyond the best {config.max_detections}"
    kept = kept[: config.max_detections]
    found = order[kept]
    carried = _last_in_cell(cells, level[found], cells[found, level[found]])
    return ReferencePrompted(found, carried, level[found], labels[found], scores[found], masks[kept], fates)


def _read_cells(outputs: RawOutputs, n: int, cells: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Kernels [K, L, E] and class probabilities [K, L] of image `n` at cells [K, L, 2] for classes [K]."""
    level_kernels, level_scores = [], []
    for at, (logits, kernels) in enumerate(zip(outputs.category_logits, outputs.kernels, strict=True)):
        column, row = cells[:, at].unbind(1)
        level_kernels.append(kernels[n, :, row, column].float().T)
        level_scores.append(logits[n, labels, row, column].float().sigmoid())
    return torch.stack(level_kernels, 1), torch.stack(level_scores, 1)


def mask_nms(masks: Tensor, labels: Tensor) -> Tensor:
    """Int64 [K]: for each of bool masks [K, h, w], best first, the kept one that suppresses it, or -1."""
    rivals = (mask_ious(masks) > NMS_IOU) & (labels[:, None] == labels)
    loses_to = torch.full_like(labels, -1)
    for k in range(len(masks)):  # each decision depends on those before it
        above = rivals[k, :k] & (loses_to[:k] < 0)
        if bool(above.any()):
            loses_to[k] = above.int().argmax()
    return loses_to


def rounded_points(points_xy: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Float32 [K, 2]: points [K, 2] as the reference rounds them: measured from the first pixel's centre, rounded down
    to ten-thousandths of the image (height, width)."""
    height, width = image_size
    side = points_xy.new_tensor([width, height], dtype=torch.float64)
    steps = ((points_xy.double() - 0.5) / side * POINT_STEPS).long().clamp(min=0)
    return (steps / POINT_STEPS * side + 0.5).float()


@torch.no_grad()
def predict_as_reference(
    outputs: RawOutputs,
    n: int,
    config: InferenceConfig,
    sizes: Sizes,
) -> Predictions:
    """Instances of image `n` without points, by mask NMS, as the reference's teachers.

    Its students use matrix NMS: `models.inference.detect.predict`.
    """
    scores, labels, probabilities = candidates(outputs, n, config, sizes.input)
    better = mask_nms(probabilities > config.mask_threshold, labels)
    kept = (better < 0).nonzero()[:, 0][: config.max_detections]
    masks, boxes = resize_boxed(probabilities[kept], sizes, config.mask_threshold)
    return Predictions(masks, scores[kept], labels[kept], boxes)


def _leaders(place: Tensor) -> Tensor:
    """Int64 [K]: for each row of [K, ...] the first row that equals it."""
    if not len(place):
        return torch.zeros(0, dtype=torch.long, device=place.device)
    return (place[:, None] == place).all(-1).int().argmax(1)


def _last_in_cell(cells: Tensor, level: Tensor, place: Tensor) -> Tensor:
    """Int64 [D]: of the points with cells [K, L, 2] the last whose cell at `level` [D] is `place` [D, 2]."""
    there = (cells[:, level] == place).all(-1)  # [K, D]
    rank = torch.arange(1, len(cells) + 1, device=cells.device)[:, None]
    return (there * rank).amax(0) - 1 if len(cells) else level
