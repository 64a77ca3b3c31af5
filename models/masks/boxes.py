"""Boxes around masks. In an image of hundreds of objects masks are mostly empty, so work is limited to their boxes.

Legend: K masks, H x W pixels. Boxes are xyxy in whole pixels, the upper end exclusive.
"""

import mmap

import numpy as np
import torch
from torch import Tensor

LAZY = 1 << 20
"""Pixels from which on memory-mapped pages are faster."""


def mask_boxes(masks: Tensor) -> Tensor:
    """Int64 [K, 4], on the CPU: the tight boxes of bool masks [K, H, W]; zeros for an empty one."""
    boxes = torch.zeros(len(masks), 4, dtype=torch.long)
    if masks.device.type != "cpu":
        held = torch.cat([masks.any(1), masks.any(2)], 1).cpu().numpy()
        for box, line in zip(boxes, held, strict=True):
            if line.any():
                (x0, x1), (y0, y1) = span(line[: masks.shape[2]]), span(line[masks.shape[2] :])
                box[:] = torch.tensor([x0, y0, x1, y1])
        return boxes
    for box, mask in zip(boxes.numpy(), masks.numpy(), strict=True):
        rows = mask.any(1)  # several times as fast as torch's
        if rows.any():
            y0, y1 = span(rows)
            x0, x1 = span(mask[y0:y1].any(0))
            box[:] = x0, y0, x1, y1
    return boxes


def span(held: np.ndarray) -> tuple[int, int]:
    """Index of the first true value, and one past the last; at least one is true."""
    return int(held.argmax()), len(held) - int(held[::-1].argmax())


def empty_masks(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Bool [count, H, W], all false; on the CPU only pages that are written take memory."""
    pixels = count * size[0] * size[1]
    if device.type != "cpu" or pixels < LAZY or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.zeros(count, *size, dtype=torch.bool, device=device)
    pages = mmap.mmap(-1, pixels, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        pages.madvise(mmap.MADV_NOHUGEPAGE)  # with huge pages a written pixel takes two megabytes
    return torch.frombuffer(pages, dtype=torch.bool).view(count, *size)


def areas_in(masks: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Int64 [K], on the masks' device: pixels of masks [K, H, W], which are empty outside their boxes [K, 4]."""
    if masks.device.type != "cpu":
        return masks.flatten(1).count_nonzero(1)
    areas = [
        np.count_nonzero(mask[y0:y1, x0:x1])
        for mask, (x0, y0, x1, y1) in zip(masks.numpy(), boxes_xyxy.tolist(), strict=True)
    ]
    return torch.tensor(areas, dtype=torch.long)
