"""Every pixel has one owner: masks of different clicks don't claim each other's pixels.

Each click is another object's, so where masks of one group (a class, or all) claim a pixel only one can be right.

Legend: K masks, H x W pixels of the image, h x w a map of probabilities, M claims of pixels. Points are x, y and
boxes xyxy in pixels of the image; (0, 0) is the outer corner of the top-left pixel, whose centre is (0.5, 0.5).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from models.config import Exclusive
from models.masks.boxes import mask_boxes

CHUNK_ELEMENTS = 1 << 23
"""Pixels of masks looked at together, the disputed of which take a few hundred bytes each."""
Probability = Callable[[Tensor, Tensor], Tensor]
"""How sure masks [M] are of points [M, 2]."""


def groups_of(labels: Tensor, exclusive: Exclusive) -> Tensor:
    """Int64 [K]: masks and clicks of equal groups exclude each other; `none` puts each in its own."""
    if exclusive == "none":
        return torch.arange(len(labels), device=labels.device)
    return labels.long() if exclusive == "same_class" else torch.zeros_like(labels, dtype=torch.long)


class Maps(NamedTuple):
    """Probabilities that masks are cut from, and where in the image each map lies."""

    probabilities: Tensor
    """float [K, h, w]"""
    boxes_xyxy: Tensor
    """float32 [K, 4]"""
    scale: Tensor | None = None
    """float32 [K]: what each map is to be multiplied by"""

    @classmethod
    def of_input(
        cls,
        probabilities: Tensor,
        input_size: tuple[int, int],
        content_size: tuple[int, int],
        original_size: tuple[int, int],
        scale: Tensor | None = None,
    ) -> "Maps":
        """Of mask maps, which cover the image with the batch's padding.

        Sizes are (height, width) of the padded batch, the resized and the original image.
        """
        (height, width), (ch, cw), (oh, ow) = input_size, content_size, original_size
        box = torch.tensor([0.0, 0.0, width * ow / cw, height * oh / ch], device=probabilities.device)
        return cls(probabilities, box.expand(len(probabilities), 4), scale)

    def at(self, rows: Tensor, points_xy: Tensor) -> Tensor:
        """Float32 [M]: maps `rows` [M], bilinearly, at points [M, 2] of the image; beyond its box, the map's edge."""
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


def settle(masks: Tensor, probability: Probability, points_xy: Tensor, groups: Tensor) -> Tensor:
    """A copy of the masks, bool [K, H, W], in which `disown` took from each what is likelier another's."""
    owned = masks.clone()
    disown(owned, mask_boxes(masks), probability, points_xy, groups)
    return owned


def disown(
    masks: Tensor, boxes_xyxy: Tensor, probability: Probability, points_xy: Tensor, groups: Tensor
) -> None:
    """Takes from each of the masks, bool [K, H, W], the pixels that are likelier another's of its group.

    A pixel goes to the mask that is surest of it, but never from one that holds its click to one that misses its
    own, which seems to have drawn something else; where several are equally sure, to the one whose click is
    nearest, then to the first. A click's own pixel, where its mask has it, stays its mask's: a mask that holds
    its click never comes out empty, unless another click of its group is in the same pixel. Pixels that one
    mask alone claims stay as they are.

    Args:
        masks: changed in place.
        boxes_xyxy: int64 [K, 4]: whole pixels outside of which a mask is empty, the lower end outside; zeros for a
            mask that is empty. Only where boxes of a group overlap is anything looked at.
        probability: gives how sure masks [M] are of points [M, 2], 0 or more, as `Maps.at` does; asked for the
            disputed pixels only.
        points_xy: float [K, 2], the clicks.
        groups: int64 [K], see `groups_of`.
    """
    device, (_, height, width) = masks.device, masks.shape
    rivals = _rivals(boxes_xyxy, groups)
    if not rivals:
        return
    boxes = boxes_xyxy.tolist()
    clicks = Clicked.of(masks, points_xy)
    number = torch.empty(height * width, dtype=torch.long, device=device)
    for rows in rivals:
        claims = torch.zeros(height, width, dtype=torch.int32, device=device)
        for row in rows:
            x0, y0, x1, y1 = boxes[row]
            claims[y0:y1, x0:x1] += masks[row, y0:y1, x0:x1]
        disputed = claims > 1
        for top, bottom in _bands(boxes, rows, height):
            found = [_true(masks, disputed, row, boxes[row], (top, bottom)) for row in rows]
            mine = torch.cat([torch.full_like(y, row) for row, (y, _) in zip(rows, found, strict=True)])
            y, x = (torch.cat(part) for part in zip(*found, strict=True))
            if not len(mine):
                continue
            value, distance = clicks.worth(mine, y, x, probability)
            wins = winners(value, distance, mine, y * width + x, number)
            masks[mine[~wins], y[~wins], x[~wins]] = False


class Clicked(NamedTuple):
    """What the clicks of K masks say of their claims."""

    points_xy: Tensor
    """float [K, 2]"""
    pixels: Tensor
    """int64 [K, 2]: the x, y of the clicks' pixels"""
    holds: Tensor
    """bool [K]: the mask holds its click"""

    @classmethod
    def of(cls, masks: Tensor, points_xy: Tensor) -> "Clicked":
        """Of bool masks [K, H, W] and their clicks [K, 2]."""
        points = points_xy.to(masks.device)
        side = torch.tensor([masks.shape[2], masks.shape[1]], device=masks.device)
        pixels = points.floor().long().clamp(min=torch.zeros_like(side), max=side - 1)
        rows = torch.arange(len(masks), device=masks.device)
        return cls(points, pixels, masks[rows, pixels[:, 1], pixels[:, 0]])

    def worth(self, mine: Tensor, y: Tensor, x: Tensor, probability: Probability) -> tuple[Tensor, Tensor]:
        """How much the claims [M] of masks `mine` on pixels y, x count, and the distances from their clicks, squared.

        Of claims on a pixel the greater counts, of equals the nearer.
        """
        pixel = torch.stack([x, y], 1)
        value = probability(mine, pixel.float() + 0.5)
        # Below 0, in the same order: behind all masks that hold their click.
        value = torch.where(self.holds[mine], value, -1 / (1 + value))
        value = torch.where((self.pixels[mine] == pixel).all(1), torch.inf, value)
        distance = (self.points_xy.to(value)[mine] - pixel - 0.5).square().sum(1)
        return value, distance


def winners(value: Tensor, distance: Tensor, mine: Tensor, flat: Tensor, number: Tensor) -> Tensor:
    """Bool [M]: of the claims on each pixel the one that counts most (see `Clicked.worth`), of equals the least `mine`.

    Args:
        flat: int64 [M], the pixels' places in the image.
        number: int64 [H * W], room to write in.
    """
    # A pixel is known by one of its claims, whichever is written last.
    count = len(flat)
    number[flat] = torch.arange(count, device=flat.device)
    place = number[flat]
    wins = value == _extreme(value, place, count, "amax")[place]
    wins &= distance == _extreme(distance.where(wins, torch.inf), place, count, "amin")[place]
    first = mine.where(wins, torch.iinfo(mine.dtype).max)
    wins &= mine == _extreme(first, place, count, "amin")[place]
    return wins


def _rivals(boxes_xyxy: Tensor, groups: Tensor) -> list[list[int]]:
    """Of each group the masks, in order, whose boxes overlap another's of it; groups without any are left out."""
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
    """Rows of pixels to look at together, so that boxes hold about CHUNK_ELEMENTS pixels in each band."""
    line = [0] * (height + 1)
    for row in rows:
        x0, y0, x1, y1 = boxes[row]
        line[y0] += x1 - x0
        line[y1] -= x1 - x0
    bands, begin, held = [], 0, 0
    for y, across in enumerate(accumulate(line[:-1])):
        if held and held + across > CHUNK_ELEMENTS:
            bands.append((begin, y))
            begin, held = y, 0
        held += across
    return [*bands, (begin, height)]


def _true(
    masks: Tensor, disputed: Tensor, row: int, box_xyxy: Sequence[int], band: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """y and x of the disputed pixels of a mask in a band."""
    x0, y0, x1, y1 = box_xyxy
    y0, y1 = max(y0, band[0]), max(y0, band[0], min(y1, band[1]))
    y, x = (masks[row, y0:y1, x0:x1] & disputed[y0:y1, x0:x1]).nonzero(as_tuple=True)
    return y + y0, x + x0


def _extreme(values: Tensor, place: Tensor, count: int, reduce: str) -> Tensor:
    """[count]: the greatest or the least value at each place; every place has one."""
    found = values.new_zeros(count)
    return found.scatter_reduce_(0, place, values, reduce, include_self=False)
