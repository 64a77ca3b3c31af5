"""Exclusive masks: of masks that overlap, each pixel is assigned to one.

Each click is on another object. So where masks of one group (a class, or all) overlap, only one can be right.

Legend: K masks, H x W pixels of the image, h x w a map of probabilities, M claims: pairs of a mask and one of its
pixels. Points are x, y and boxes xyxy in pixels of the image; (0, 0) is the outer corner of the top-left pixel, whose
centre is (0.5, 0.5).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from models.config import Exclusive
from models.masks.resize import Sizes

CHUNK_ELEMENTS = 1 << 23
"""Mask pixels processed at a time. A pixel in several masks takes a few hundred bytes."""
Probability = Callable[[Tensor, Tensor], Tensor]
"""The probabilities of masks [M] at points [M, 2]."""


def groups_of(labels: Tensor, exclusive: Exclusive) -> Tensor:
    """Int64 [K]: masks of equal groups exclude each other; `none` gives each mask a group of its own."""
    if exclusive == "none":
        return torch.arange(len(labels), device=labels.device)
    return labels.long() if exclusive == "same_class" else torch.zeros_like(labels, dtype=torch.long)


class Maps(NamedTuple):
    """The probability maps of masks, and where each is in the image."""

    probabilities: Tensor
    """float [K, h, w]"""
    boxes_xyxy: Tensor
    """float32 [K, 4]"""
    scale: Tensor | None = None
    """float32 [K]: the factor of each map"""

    @classmethod
    def of_input(cls, probabilities: Tensor, sizes: Sizes, scale: Tensor | None = None) -> "Maps":
        """Maps that cover the image and the batch's padding."""
        (height, width), (ch, cw), (oh, ow) = sizes
        box = torch.tensor([0.0, 0.0, width * ow / cw, height * oh / ch], device=probabilities.device)
        return cls(probabilities, box.expand(len(probabilities), 4), scale)

    def at(self, rows: Tensor, points_xy: Tensor) -> Tensor:
        """Float32 [M]: maps `rows` [M] at points [M, 2] of the image, bilinear; outside a box, its edge's value."""
        h, w = self.probabilities.shape[-2:]
        box = self.boxes_xyxy.to(points_xy)[rows]
        side = points_xy.new_tensor([w, h])
        spot = (points_xy - box[:, :2]) / (box[:, 2:] - box[:, :2]) * side - 0.5
        spot = spot.clamp(min=torch.zeros_like(side), max=side - 1)
        low = spot.floor()
        (fx, fy), (x0, y0) = (spot - low).unbind(1), low.long().unbind(1)
        x1, y1 = (x0 + 1).clamp(max=w - 1), (y0 + 1).clamp(max=h - 1)
        top = self._pick(rows, y0, x0) * (1 - fx) + self._pick(rows, y0, x1) * fx
        bottom = self._pick(rows, y1, x0) * (1 - fx) + self._pick(rows, y1, x1) * fx
        return top * (1 - fy) + bottom * fy

    def _pick(self, rows: Tensor, y: Tensor, x: Tensor) -> Tensor:
        picked = self.probabilities[rows, y, x].float()
        return picked if self.scale is None else picked * self.scale[rows]


def remove_overlaps_(
    masks: Tensor, boxes_xyxy: Tensor, probability: Probability, points_xy: Tensor, groups: Tensor
) -> None:
    """Removes overlaps inside each group of bool masks [K, H, W], in place.

    A pixel of several masks is assigned to the one of these that comes first by:

    1. the pixel holds the mask's click;
    2. the mask holds its click (one that misses its click seems to be of another object);
    3. the highest probability;
    4. the nearest click;
    5. the lowest index.

    So a mask that holds its click stays non-empty, unless another click of its group is in the same pixel.

    Args:
        boxes_xyxy: int64 [K, 4]: whole pixels outside of which a mask is empty, the upper end exclusive; zeros for an
            empty mask. Only masks whose boxes overlap are compared.
        probability: 0 or more, such as `Maps.at`; called for overlapping pixels only.
        points_xy: float [K, 2], the clicks.
        groups: int64 [K], see `groups_of`.
    """
    device, (_, height, width) = masks.device, masks.shape
    overlapping = _overlapping(boxes_xyxy, groups)
    if not overlapping:
        return
    boxes = boxes_xyxy.tolist()
    clicks = _Clicks.of(masks, points_xy)
    scratch = torch.empty(height * width, dtype=torch.long, device=device)
    for rows in overlapping:
        counts = torch.zeros(height, width, dtype=torch.int32, device=device)
        for row in rows:
            x0, y0, x1, y1 = boxes[row]
            counts[y0:y1, x0:x1] += masks[row, y0:y1, x0:x1]
        shared = counts > 1
        for top, bottom in _bands(boxes, rows, height):
            found = [_pixels(masks, shared, row, boxes[row], (top, bottom)) for row in rows]
            mask = torch.cat([torch.full_like(y, row) for row, (y, _) in zip(rows, found, strict=True)])
            y, x = (torch.cat(part) for part in zip(*found, strict=True))
            if not len(mask):
                continue
            value, distance = clicks.rank(mask, y, x, probability)
            wins = _winners(value, distance, mask, y * width + x, scratch)
            masks[mask[~wins], y[~wins], x[~wins]] = False


class PixelAssignment:
    """`remove_overlaps_` for more masks of a group than fit in memory.

    All chunks of masks are added first; then `exclusive` gives the assigned pixels of each chunk.
    """

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        """`size` is the image's (height, width)."""
        self.size = size
        pixels = size[0] * size[1]
        self._value = torch.full((pixels,), -torch.inf, device=device)
        self._distance = torch.full((pixels,), torch.inf, device=device)
        self._row = torch.full((pixels,), -1, dtype=torch.long, device=device)
        self._scratch = torch.empty(pixels, dtype=torch.long, device=device)

    def add(self, masks: Tensor, rows: Tensor, probability: Probability, points_xy: Tensor) -> None:
        """Assigns the pixels of a chunk of masks to them, where no mask before them comes first.

        Args:
            masks: bool [K, H, W].
            rows: int64 [K], ascending: the masks' indices in the group.
            probability: takes indices 0..K-1 of this chunk.
            points_xy: float [K, 2], their clicks.
        """
        clicks = _Clicks.of(masks, points_xy)
        step = max(1, CHUNK_ELEMENTS // (self.size[0] * self.size[1]))
        for at in range(0, len(masks), step):
            mask, y, x = masks[at : at + step].nonzero(as_tuple=True)
            if not len(mask):
                continue
            mask = mask + at
            flat = y * self.size[1] + x
            value, distance = clicks.rank(mask, y, x, probability)
            wins = _winners(value, distance, mask, flat, self._scratch)
            row, flat, value, distance = rows[mask[wins]], flat[wins], value[wins], distance[wins]
            equal = value == self._value[flat]
            far = self._distance[flat]
            better = (value > self._value[flat]) | (equal & (distance < far))
            better |= equal & (distance == far) & (row < self._row[flat])
            flat = flat[better]
            self._value[flat], self._distance[flat] = value[better], distance[better]
            self._row[flat] = row[better]

    def exclusive(self, masks: Tensor, rows: Tensor) -> Tensor:
        """Bool [K, H, W]: the pixels assigned to masks that were added as `rows` [K]."""
        return masks & (self._row.view(self.size) == rows[:, None, None])


class _Clicks(NamedTuple):
    """The clicks of K masks."""

    points_xy: Tensor
    """float [K, 2]"""
    pixels: Tensor
    """int64 [K, 2]: the x, y of the clicks' pixels"""
    inside: Tensor
    """bool [K]: the mask holds its click"""

    @classmethod
    def of(cls, masks: Tensor, points_xy: Tensor) -> "_Clicks":
        """The clicks [K, 2] of bool masks [K, H, W]."""
        points = points_xy.to(masks.device)
        side = torch.tensor([masks.shape[2], masks.shape[1]], device=masks.device)
        pixels = points.floor().long().clamp(min=torch.zeros_like(side), max=side - 1)
        rows = torch.arange(len(masks), device=masks.device)
        return cls(points, pixels, masks[rows, pixels[:, 1], pixels[:, 0]])

    def rank(self, mask: Tensor, y: Tensor, x: Tensor, probability: Probability) -> tuple[Tensor, Tensor]:
        """Value [M] of each claim, and the squared distance [M] of the pixel to the mask's click.

        The claim of the greatest value comes first, of equal values the nearest.
        """
        pixel = torch.stack([x, y], 1)
        value = probability(mask, pixel.float() + 0.5)
        # Below 0, in the same order: after all masks that hold their click.
        value = torch.where(self.inside[mask], value, -1 / (1 + value))
        value = torch.where((self.pixels[mask] == pixel).all(1), torch.inf, value)
        distance = (self.points_xy.to(value)[mask] - pixel - 0.5).square().sum(1)
        return value, distance


def _winners(value: Tensor, distance: Tensor, mask: Tensor, flat: Tensor, scratch: Tensor) -> Tensor:
    """Bool [M]: the claim of each pixel that comes first (see `_Clicks.rank`), of equal ones the lowest `mask`.

    Args:
        flat: int64 [M], indices of the pixels in the image.
        scratch: int64 [H * W], overwritten.
    """
    # Each pixel gets the index of one of its claims, whichever is written last.
    count = len(flat)
    scratch[flat] = torch.arange(count, device=flat.device)
    place = scratch[flat]
    wins = value == _extreme(value, place, count, "amax")[place]
    wins &= distance == _extreme(distance.where(wins, torch.inf), place, count, "amin")[place]
    first = mask.where(wins, torch.iinfo(mask.dtype).max)
    wins &= mask == _extreme(first, place, count, "amin")[place]
    return wins


def _overlapping(boxes_xyxy: Tensor, groups: Tensor) -> list[list[int]]:
    """For each group the masks whose box overlaps another one of the group, in order; without groups that have none."""
    found = []
    group = groups.cpu()
    for value, size in zip(*(part.tolist() for part in group.unique(return_counts=True)), strict=True):
        if size == 1:
            continue
        rows = (group == value).nonzero()[:, 0]
        low, high = boxes_xyxy[rows].split(2, 1)
        overlap = torch.ones(size, size, dtype=torch.bool)
        for axis in (0, 1):
            overlap &= torch.minimum(high[:, None, axis], high[:, axis]) > torch.maximum(
                low[:, None, axis], low[:, axis]
            )
        rows = rows[overlap.fill_diagonal_(False).any(1)]
        if len(rows):
            found.append(rows.tolist())
    return found


def _bands(boxes: Sequence[Sequence[int]], rows: Sequence[int], height: int) -> list[tuple[int, int]]:
    """Bands (first row, row after the last) in which the boxes have about CHUNK_ELEMENTS pixels."""
    change = [0] * (height + 1)
    for row in rows:
        x0, y0, x1, y1 = boxes[row]
        change[y0] += x1 - x0
        change[y1] -= x1 - x0
    bands, begin, held = [], 0, 0
    for y, across in enumerate(accumulate(change[:-1])):
        if held and held + across > CHUNK_ELEMENTS:
            bands.append((begin, y))
            begin, held = y, 0
        held += across
    return [*bands, (begin, height)]


def _pixels(
    masks: Tensor, shared: Tensor, row: int, box_xyxy: Sequence[int], band: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """y and x of the pixels of a mask in a band that other masks have too."""
    x0, y0, x1, y1 = box_xyxy
    y0, y1 = max(y0, band[0]), max(y0, band[0], min(y1, band[1]))
    y, x = (masks[row, y0:y1, x0:x1] & shared[y0:y1, x0:x1]).nonzero(as_tuple=True)
    return y + y0, x + x0


def _extreme(values: Tensor, place: Tensor, count: int, reduce: str) -> Tensor:
    """[count]: the greatest or the least value at each place; every place occurs."""
    found = values.new_zeros(count)
    return found.scatter_reduce_(0, place, values, reduce, include_self=False)
