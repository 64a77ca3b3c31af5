"""The geometry of a sample: an image, its masks and points resized, flipped, turned and cropped together.

Nearest-pixel resizing, flips, a quarter turn and a crop take each output pixel from one source pixel, by a map of rows
and a map of columns. So masks are decoded from their run lengths directly into the crop; outside of it only runs are
read.

K instances of an image of H x W pixels; h x w: the sample's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from data.images.resize import resize
from data.masks.rle import IntArray, decode_window


class Placement(NamedTuple):
    """What is done to an image, in this order: resize, flips, quarter turn, crop.

    Points are x, y in pixels; (0, 0) is the outer corner of the top-left pixel.
    """

    source: tuple[int, int]
    """(H, W)"""
    resized: tuple[int, int]
    flip: bool
    vertical_flip: bool
    turn: bool
    """A quarter turn counter-clockwise: the right edge becomes the upper one."""
    origin: tuple[int, int]
    """x, y of the top-left pixel in the whole resized, flipped and turned image."""
    size: tuple[int, int]
    """(h, w)"""

    def image(self, image: Tensor) -> Tensor:
        """uint8 [3, h, w] of the image uint8 [3, H, W]: bilinear with antialiasing."""
        # The whole image: the filter's weights depend on the position, so a part alone would differ slightly.
        image = resize(image, self.resized)
        rows, columns = self._cut()
        return self._turned(image[:, rows, columns])

    def masks(self, codes: Sequence[bytes]) -> tuple[Tensor, IntArray]:
        """The masks of K compressed RLEs that have a pixel in the sample.

        Returns:
            bool [k, h, w], nearest pixels; their indices among the K, int64 [k], ascending.

        Raises:
            ValueError: an RLE is not of H x W pixels.
        """
        rows, columns = self._cut()
        masks, kept = decode_window(
            codes,
            *self.source,
            _nearest(self.source[0], self.resized[0])[rows],
            _nearest(self.source[1], self.resized[1])[columns],
        )
        return self._turned(torch.from_numpy(masks)).contiguous(), kept

    def points(self, points_xy: Tensor) -> Tensor:
        """float32 [K, 2]; points outside the crop get coordinates outside the sample."""
        height, width = self.resized
        if self.resized != self.source:
            ratio = [width / self.source[1], height / self.source[0]]
            points_xy = points_xy * points_xy.new_tensor(ratio)
        x, y = points_xy.unbind(1)
        if self.flip:
            x = width - x
        if self.vertical_flip:
            y = height - y
        if self.turn:
            x, y = y, width - x
        return torch.stack([x - self.origin[0], y - self.origin[1]], dim=1)

    def _cut(self) -> tuple[slice, slice]:
        """The sample's rows and columns in the resized image, before flips and turn."""
        (left, top), (h, w) = self.origin, self.size
        height, width = self.resized
        if self.turn:
            left, top, h, w = width - top - h, left, w, h
        if self.flip:
            left = width - left - w
        if self.vertical_flip:
            top = height - top - h
        return slice(top, top + h), slice(left, left + w)

    def _turned(self, planes: Tensor) -> Tensor:
        if self.flip:
            planes = planes.flip(-1)
        if self.vertical_flip:
            planes = planes.flip(-2)
        return planes.rot90(1, (-2, -1)) if self.turn else planes


def whole(source: tuple[int, int], resized: tuple[int, int]) -> Placement:
    """Resizing alone."""
    return Placement(source, resized, False, False, False, (0, 0), resized)


def _nearest(source: int, resized: int) -> IntArray:
    """The source pixel of each resized pixel along one side, int64 [resized], ascending."""
    if source == resized:
        return np.arange(source)
    # By the function that resizes whole masks, for equal rounding. float32 is exact for integers up to 2**24.
    places = torch.arange(source, dtype=torch.float32)[None, None]
    nearest: IntArray = interpolate(places, size=resized, mode="nearest-exact")[0, 0].long().numpy()
    return nearest
