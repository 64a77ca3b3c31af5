"""What the fast code is held against: masks at points, and detections, by the plain loops that the papers describe.

Point by point and level by level, mask by mask, all at the image's size (METHOD: a point becomes a mask; SOLOv2,
sections 3.3 and 3.4). Points are x, y in pixels of the input.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from models.config import InferenceConfig
from models.masks.resize import Sizes
from models.solov2.network import RawOutputs


def prompt_plainly(
    outputs: RawOutputs, points_xy: Tensor, labels: Tensor, sizes: Sizes, threshold: float
) -> list[bytes]:
    """Compressed RLEs of the masks at points [K, 2] of the first image: of the best level each."""
    features = outputs.mask_features[0]
    height, width = sizes[0]
    codes = []
    for (x, y), label in zip(points_xy.tolist(), labels.tolist(), strict=True):
        best, best_score = features.new_zeros(features.shape[1:]), -1.0
        for logits, kernels in zip(outputs.category_logits, outputs.kernels, strict=True):
            rows, columns = logits.shape[2:]
            row, column = min(int(y / height * rows), rows - 1), min(int(x / width * columns), columns - 1)
            mask = draw(features, kernels[0, :, row, column])
            score = float(certainty(mask, threshold) * logits[0, label, row, column].sigmoid())
            if score > best_score:
                best, best_score = mask, score
        codes.append(code(resize(best, sizes) > threshold))
    return codes


def detect_plainly(outputs: RawOutputs, sizes: Sizes, config: InferenceConfig) -> tuple[list[bytes], Tensor]:
    """Compressed RLEs of the first image's detections, the best first, and their scores."""
    features = outputs.mask_features[0]
    masks, labels, scores = [], [], []
    for logits, kernels, stride in zip(
        outputs.category_logits, outputs.kernels, outputs.strides, strict=True
    ):
        chances = logits[0].sigmoid()
        around = F.max_pool2d(chances[None], 2, stride=1, padding=1)[0, :, :-1, :-1]
        peaks = (chances > config.score_threshold) & (chances == around)
        for label, row, column in peaks.nonzero().tolist():
            mask = draw(features, kernels[0, :, row, column])
            area = int((mask > config.mask_threshold).sum())
            if area == 0 or area <= config.min_area * stride:
                continue
            masks.append(mask)
            labels.append(label)
            scores.append(float(chances[label, row, column] * certainty(mask, config.mask_threshold)))
    order = sorted(range(len(scores)), key=lambda k: -scores[k])[: config.nms_pre]
    flat = torch.stack([masks[k].flatten() > config.mask_threshold for k in order]).float()
    kept = torch.tensor([scores[k] for k in order])
    kinds = torch.tensor([labels[k] for k in order])
    overlap = flat @ flat.T
    areas = flat.sum(1)
    iou = overlap / (areas[:, None] + areas - overlap).clamp(min=1)
    iou = (iou * (kinds[:, None] == kinds)).triu(diagonal=1)
    lost = iou.amax(0)[:, None]
    kept = kept * torch.exp(-config.nms_sigma * (iou.square() - lost.square())).amin(0)
    best = kept.argsort(descending=True)[: config.max_detections]
    best = best[kept[best] >= config.nms_threshold]
    codes = [code(resize(masks[order[k]], sizes) > config.mask_threshold) for k in best.tolist()]
    return codes, kept[best]


def draw(features: Tensor, kernel: Tensor) -> Tensor:
    """The mask [h, w] of a kernel [E] as the 1x1 convolution that it is, of features [E, h, w]."""
    return F.conv2d(features[None], kernel.view(1, -1, 1, 1))[0, 0].sigmoid()


def certainty(mask: Tensor, threshold: float) -> Tensor:
    """Mean probability inside a mask [h, w], 0 of an empty one."""
    inside = mask > threshold
    return mask[inside].mean() if bool(inside.any()) else mask.new_zeros(())


def resize(mask: Tensor, sizes: Sizes) -> Tensor:
    """Values [h, w] of the mask map to those of the original image."""
    padded, content, original = sizes
    x = F.interpolate(mask[None, None], size=padded, mode="bilinear", align_corners=False)
    x = x[:, :, : content[0], : content[1]]
    return F.interpolate(x, size=original, mode="bilinear", align_corners=False)[0, 0]


def code(mask: Tensor) -> bytes:
    """Compressed RLE of a bool mask [H, W]."""
    counts: bytes = coco_mask.encode(np.asfortranarray(mask.cpu().numpy(), dtype=np.uint8))["counts"]
    return counts
