"""Every pixel has one owner: masks of different clicks don't claim each other's pixels.

Each click is another object's, so where masks of one group (a class, or all) claim a pixel only one can be right.

Legend: K masks, H x W pixels of the image, h x w a map of probabilities, D disputed pixels. Points are x, y and
boxes xyxy in pixels of the image; (0, 0) is the outer corner of the top-left pixel, whose centre is (0.5, 0.5).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from models.config import Exclusive

CHUNK_ELEMENTS = 1 << 24
"""Claims looked at together."""


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

    @classmethod
    def of_input(
        cls,
        probabilities: Tensor,
        input_size: tuple[int, int],
        content_size: tuple[int, int],
        original_size: tuple[int, int],
    ) -> "Maps":
        """Of mask maps, which cover the image with the batch's padding.

        Sizes are (height, width) of the padded batch, the resized and the original image.
        """
        (height, width), (ch, cw), (oh, ow) = input_size, content_size, original_size
        box = torch.tensor([0.0, 0.0, width * ow / cw, height * oh / ch], device=probabilities.device)
        return cls(probabilities, box.expand(len(probabilities), 4))

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
        maps = self.probabilities
        top = maps[rows, y0, x0].float() * (1 - fx) + maps[rows, y0, x1].float() * fx
        bottom = maps[rows, y1, x0].float() * (1 - fx) + maps[rows, y1, x1].float() * fx
        return top * (1 - fy) + bottom * fy


def settle(
    masks: Tensor, probability: Callable[[Tensor, Tensor], Tensor], points_xy: Tensor, groups: Tensor
) -> Tensor:
    """The masks, bool [K, H, W], each without the pixels that are likelier another's of its group.

    A pixel goes to the mask that is surest of it, but never from one that holds its click to one that misses its
    own, which seems to have drawn something else; where several are equally sure, to the one whose click is
    nearest, then to the first. A click's own pixel, where its mask has it, stays its mask's: a mask that holds
    its click never comes out empty, unless another click of its group is in the same pixel. Pixels that one
    mask alone claims stay as they are.

    Args:
        masks: bool [K, H, W].
        probability: gives how sure masks [M] are of points [M, 2], 0 or more, as `Maps.at` does; asked for the
            disputed pixels only.
        points_xy: float [K, 2], the clicks.
        groups: int64 [K], see `groups_of`.
    """
    owned = masks.clone()
    side = torch.tensor([masks.shape[2], masks.shape[1]], device=masks.device)
    clicked = points_xy.to(masks.device).floor().long().clamp(min=torch.zeros_like(side), max=side - 1)
    holds = masks[torch.arange(len(masks), device=masks.device), clicked[:, 1], clicked[:, 0]]
    for group, size in zip(*(found.tolist() for found in groups.unique(return_counts=True)), strict=True):
        if size == 1:
            continue
        rows = (groups == group).nonzero()[:, 0]
        members = masks if size == len(masks) else masks[rows]
        y, x = _claimed_twice(members).nonzero(as_tuple=True)
        step = max(1, CHUNK_ELEMENTS // size)
        for at in range(0, len(y), step):
            here = (y[at : at + step], x[at : at + step])
            # Flat indices: several times as fast as pairs.
            claims = members.flatten(1).index_select(1, here[0] * masks.shape[2] + here[1])
            row, place = claims.nonzero(as_tuple=True)
            mine = rows[row]
            pixel = torch.stack([here[1], here[0]], 1)[place]
            value = probability(mine, pixel.float() + 0.5)
            # Below 0, in the same order: behind all masks that hold their click.
            value = torch.where(holds[mine], value, -1 / (1 + value))
            value = torch.where((clicked[mine] == pixel).all(1), torch.inf, value)
            distance = (points_xy.to(value)[mine] - pixel - 0.5).square().sum(1)
            count = len(here[0])
            wins = value == _extreme(value, place, count, "amax")[place]
            wins &= distance == _extreme(distance.where(wins, torch.inf), place, count, "amin")[place]
            last = row.where(wins, size)
            wins &= row == _extreme(last, place, count, "amin")[place]
            owned[mine[~wins], here[0][place[~wins]], here[1][place[~wins]]] = False
    return owned


def _claimed_twice(masks: Tensor) -> Tensor:
    """Bool [H, W]: pixels that two or more of bool masks [K, H, W] claim."""
    once = torch.zeros_like(masks[0])
    twice = torch.zeros_like(once)
    for part in masks.view(torch.uint8).split(255):  # sums of bytes are fast, and these don't overflow
        claims = part.sum(0, dtype=torch.uint8)
        twice |= (claims > 1) | (once & (claims > 0))
        once |= claims > 0
    return twice


def _extreme(values: Tensor, place: Tensor, count: int, reduce: str) -> Tensor:
    """[count]: the greatest or the least value at each place; every place has one."""
    found = values.new_zeros(count)
    return found.scatter_reduce_(0, place, values, reduce, include_self=False)
