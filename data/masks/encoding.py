"""Run-length codes of many masks at once, in time that grows with the objects, not with the image.

A compressed RLE is as in `data.masks.rle`. Only a mask's box is looked at, row by row as it lies in memory, and all
codes are written in one go.

Legend: K masks, H x W pixels of the image, R ends of runs in all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from data.masks.rle import BoolArray, IntArray

CHUNK_ELEMENTS = 1 << 28
"""Pixels looked at together on a GPU."""


def encode_many(
    masks: BoolArray | torch.Tensor, boxes_xyxy: IntArray | torch.Tensor | None = None
) -> list[bytes]:
    """Compressed RLEs of bool masks [K, H, W]: byte for byte those of `data.masks.rle.encode`.

    Args:
        masks: on the CPU, or a tensor on a GPU, of which the ends of runs alone are then fetched.
        boxes_xyxy: whole [K, 4], pixels outside of which a mask is empty, the lower end outside; zeros for an empty
            mask. None looks for them. Not needed on a GPU.

    Raises:
        ValueError: masks of another shape or type.
    """
    if masks.ndim != 3 or masks.dtype not in (np.bool_, torch.bool):
        raise ValueError(f"masks are bool [K, H, W]; found {masks.dtype} {list(masks.shape)}")
    count, height, width = masks.shape
    if isinstance(masks, torch.Tensor) and masks.device.type != "cpu":
        owner, place = _ends_of_tensor(masks)
    else:
        if boxes_xyxy is None:
            boxes_xyxy = _boxes(np.asarray(masks))
        owner, place = _ends(np.asarray(masks), np.asarray(boxes_xyxy).tolist())
    return _codes(owner, place, count, height * width)


def _boxes(masks: BoolArray) -> IntArray:
    boxes = np.zeros((len(masks), 4), np.int64)
    for box, mask in zip(boxes, masks, strict=True):
        rows = np.flatnonzero(mask.any(1))
        if rows.size:
            y0, y1 = int(rows[0]), int(rows[-1]) + 1
            columns = np.flatnonzero(mask[y0:y1].any(0))
            box[:] = columns[0], y0, columns[-1] + 1, y1
    return boxes


def _ends(masks: BoolArray, boxes: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Where runs down the columns begin and end: whose they are [R], and the pixel in order of the columns [R].

    They lie in no order, and where a run goes on at the next column's top its end and that beginning are both there.
    """
    height = masks.shape[1]
    owners, places = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        h, w = y1 - y0, x1 - x0
        if h <= 0 or w <= 0:
            continue
        piece = masks[k, y0:y1, x0:x1]
        changes = np.empty((h + 1, w), np.bool_)
        changes[0], changes[h] = piece[0], piece[-1]
        np.not_equal(piece[1:], piece[:-1], out=changes[1:h])
        row, column = np.divmod(np.flatnonzero(changes), w)
        places.append((x0 + column) * height + (y0 + row))
        owners.append(np.full(row.size, k))
    return np.concatenate(owners), np.concatenate(places)


def _ends_of_tensor(masks: torch.Tensor) -> tuple[IntArray, IntArray]:
    """As `_ends`, of whole masks where they lie."""
    _, height, width = masks.shape
    owners, places = [], []
    for at, part in enumerate(masks.split(step := max(1, CHUNK_ELEMENTS // (height * width)))):
        changes = torch.cat([part[:, :1], part[:, 1:] != part[:, :-1], part[:, -1:]], 1)
        owner, row, column = changes.nonzero(as_tuple=True)
        owners.append(owner + at * step)
        places.append(column * height + row)
    return torch.cat(owners).cpu().numpy(), torch.cat(places).cpu().numpy()


def _codes(owner: IntArray, place: IntArray, count: int, pixels: int) -> list[bytes]:
    """The codes of `count` masks of so many pixels from the ends of their runs (see `_ends`)."""
    # In order, each mask's between its first pixel and the one past its last.
    key = np.sort(owner * (pixels + 1) + place)
    same = np.flatnonzero(key[1:] == key[:-1])  # a run that goes on in the next column
    key = np.delete(key, np.concatenate([same, same + 1]))
    owner, place = np.divmod(key, pixels + 1)
    sizes = np.bincount(owner, minlength=count)
    last = np.cumsum(sizes)
    # A run to the very last pixel has no background behind it.
    full = np.zeros(count, np.bool_)
    full[sizes > 0] = place[last[sizes > 0] - 1] == pixels
    numbers_of = sizes + ~full
    ends = np.cumsum(numbers_of)
    total = np.full(int(ends[-1]) if count else 0, pixels, np.int64)
    starts = ends - numbers_of
    at = np.arange(key.size) + np.repeat(starts - (last - sizes), sizes)
    total[at] = place
    lengths = np.diff(total, prepend=0)
    lengths[starts] = total[starts]
    # From the fourth on a number is the difference to the one two before.
    rank = np.arange(lengths.size) - np.repeat(starts, numbers_of)
    numbers = lengths.copy()
    later = np.flatnonzero(rank > 2)
    numbers[later] -= lengths[later - 2]
    return _written(numbers, numbers_of)


def _written(numbers: IntArray, numbers_of: IntArray) -> list[bytes]:
    """Numbers as pycocotools writes them, so many a code: digits of base 32, low ones first, from '0' on.

    Bit 5 says that more follow; bit 4 of the last one is the sign.
    """
    magnitude = np.where(numbers < 0, ~numbers, numbers)
    digits = np.ones(numbers.size, np.int64)
    bound = 16
    while (longer := magnitude >= bound).any():
        digits += longer
        bound <<= 5
    most = int(digits.max(initial=1))
    shift = 5 * np.arange(most)
    code = (numbers[:, None] >> shift) & 31
    rank = np.arange(most)
    code += np.where(rank < digits[:, None] - 1, 32, 0) + 48
    text: npt.NDArray[np.uint8] = code.astype(np.uint8)[rank < digits[:, None]]
    ends = np.cumsum(digits)[np.cumsum(numbers_of) - 1] if numbers.size else np.zeros(0, np.int64)
    packed = text.tobytes()
    begins = [0, *ends[:-1].tolist()]
    return [packed[begin:end] for begin, end in zip(begins, ends.tolist(), strict=False)]
