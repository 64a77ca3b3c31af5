"""A point becomes a mask: adaptive pyramid-level selection (PointWSSIS, arXiv 2303.15062, section 3.2).

At every level the cell that holds the point gives a kernel, hence a mask; the level whose mask scores best
wins. Every point gets exactly one answer, whatever the others are.

Legend: K points, L levels, S grid side, E kernel channels, h x w the mask map. Points are x, y in pixels of
the padded input, (0, 0) its outer top-left corner.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.postprocess import maskness
from models.solov2 import RawOutputs
from models.targets import cells_of

CHUNK_ELEMENTS = 1 << 26
"""Mask values held at a time."""


class Prompted(NamedTuple):
    """One row a point, in the order given."""

    level: Tensor
    """int64 [K], 0 the finest"""
    class_score: Tensor
    """float32 [K]: probability of the point's class in its cell"""
    maskness: Tensor
    """float32 [K]: mean probability inside the mask, 0 when it's empty"""
    score: Tensor
    """float32 [K]: their product"""
    mask_prob: Tensor
    """float32 [K, h, w] of the chosen level"""


@torch.no_grad()
def prompt_points(
    outputs: RawOutputs,
    n: int,
    points_xy: Tensor,
    labels: Tensor,
    input_size: tuple[int, int],
    *,
    mask_threshold: float = 0.5,
) -> Prompted:
    """Masks of image `n` at points [K, 2] of contiguous classes [K].

    All points at all levels are one matrix product with the mask features (several where memory wouldn't hold
    it). A level whose mask is empty loses to any other; a tie goes to the finer level.

    Raises ValueError for a point that isn't finite or a class the network doesn't have.
    """
    device = outputs.mask_features.device
    points, labels = points_xy.to(device, torch.float32), labels.to(device)
    classes = outputs.category_logits[0].shape[1]
    if points.shape != (len(labels), 2) or not bool(points.isfinite().all()):
        raise ValueError(f"points_xy: found shape {list(points.shape)}, expected finite [{len(labels)}, 2]")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise ValueError(f"labels: found {labels.tolist()}, expected classes 0..{classes - 1}")

    features = outputs.mask_features[n].float()
    h, w = features.shape[-2:]
    flat = features.flatten(1)
    kernels, class_scores = [], []
    for logits, level_kernels in zip(outputs.category_logits, outputs.kernels, strict=True):
        column, row = cells_of(points, (logits.shape[-2], logits.shape[-1]), input_size).unbind(1)
        kernels.append(level_kernels[n, :, row, column].float().T)
        class_scores.append(logits[n, labels, row, column].float().sigmoid())
    kernel, class_score = torch.stack(kernels, 1), torch.stack(class_scores, 1)  # [K, L, E], [K, L]

    level = torch.zeros(len(points), dtype=torch.long, device=device)
    certainty = torch.zeros(len(points), device=device)
    mask_prob = torch.empty(len(points), h, w, device=device)
    levels = kernel.shape[1]
    step = max(1, CHUNK_ELEMENTS // (levels * h * w))
    for at in range(0, len(points), step):
        rows = slice(at, at + step)
        probabilities = (kernel[rows].flatten(0, 1) @ flat).sigmoid().view(-1, levels, h * w)
        measured, _ = maskness(probabilities, mask_threshold)
        best = (measured * class_score[rows]).argmax(1)
        pick = torch.arange(len(best), device=device)
        level[rows], certainty[rows] = best, measured[pick, best]
        mask_prob[rows] = probabilities[pick, best].view(-1, h, w)
    chosen = class_score.gather(1, level[:, None])[:, 0]
    return Prompted(level, chosen, certainty, certainty * chosen, mask_prob)
