"""Resizes mask maps to masks of the original image.

On the CPU only inside boxes, since an object is much smaller than the image. On a GPU whole masks are faster than boxes
of different sizes.

Legend: K masks, h x w the mask map, H x W pixels. Sizes are (height, width); boxes are xyxy in whole pixels, the
upper end exclusive.
"""

from itertools import starmap
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.masks.boxes import empty_masks, mask_boxes, span

CHUNK_ELEMENTS = 1 << 25
"""Values of full-size masks in memory at a time."""
ROUNDING = 1e-5
"""Rounding may lift a pixel between values below a threshold above it, by much less than this fraction."""


class Sizes(NamedTuple):
    """Sizes (height, width) of an image on its way through a network."""

    input: tuple[int, int]
    """of the batch, with its padding at the bottom and right"""
    content: tuple[int, int]
    """of the resized image in it"""
    original: tuple[int, int]


class Boxed(NamedTuple):
    """Masks, and boxes outside of which they are empty."""

    masks: Tensor
    """bool [K, H, W]"""
    boxes_xyxy: Tensor
    """int64 [K, 4], on the CPU; not always tight, zeros for a mask without a value above the threshold"""


def resize_masks(
    probabilities: Tensor,
    sizes: Sizes,
    threshold: float | Tensor,
) -> Tensor:
    """Mask map values [K, h, w] to bool masks [K, H, W] of the original image.

    Resized to the padded input, cropped to the content, resized to the original; bilinear. The threshold is a number,
    or one per mask [K].
    """
    if probabilities.device.type == "cpu":
        return resize_boxed(probabilities, sizes, threshold).masks
    return _whole(probabilities, sizes, _levels(threshold, probabilities))


def resize_boxed(
    probabilities: Tensor,
    sizes: Sizes,
    threshold: float | Tensor,
) -> Boxed:
    """`resize_masks`, with the masks' boxes."""
    levels = _levels(threshold, probabilities)
    if probabilities.device.type != "cpu":
        masks = _whole(probabilities, sizes, levels)
        return Boxed(masks, mask_boxes(masks))
    maps = probabilities.float()
    masks = empty_masks(len(maps), sizes.original, maps.device)
    boxes = torch.zeros(len(maps), 4, dtype=torch.long)
    map_size = (maps.shape[1], maps.shape[2])
    aligned = sizes.content == sizes.original and all(
        length % places == 0 for length, places in zip(sizes.input, map_size, strict=True)
    )
    if aligned:
        scales = (sizes.input[0] // map_size[0], sizes.input[1] // map_size[1])
    else:
        axes = list(starmap(_Axis, zip(map_size, *sizes, strict=True)))
    for k, (level, held) in enumerate(zip(levels.tolist(), _held(maps, levels), strict=True)):
        if held is None:
            continue
        if aligned:
            (top, left), drawn = _enlarged(maps[k], held, scales)
        else:
            (top, left), drawn = _sampled(maps[k], held, axes)
        mask = masks[k, top : top + drawn.shape[0], left : left + drawn.shape[1]]
        if mask.numel():
            torch.gt(drawn[: mask.shape[0], : mask.shape[1]], level, out=mask)
            boxes[k] = torch.tensor([left, top, left + mask.shape[1], top + mask.shape[0]])
    return Boxed(masks, boxes)


def _levels(threshold: float | Tensor, like: Tensor) -> Tensor:
    return torch.as_tensor(threshold, dtype=torch.float32, device=like.device).expand(len(like))


def _whole(
    probabilities: Tensor,
    sizes: Sizes,
    levels: Tensor,
) -> Tensor:
    """All pixels of all masks, in chunks of masks."""
    (height, width), (ch, cw) = sizes.original, sizes.content
    masks = torch.empty(len(probabilities), height, width, dtype=torch.bool, device=probabilities.device)
    step = max(1, CHUNK_ELEMENTS // max(height * width, sizes.input[0] * sizes.input[1]))
    for at in range(0, len(probabilities), step):
        x = probabilities[at : at + step, None].float()
        x = F.interpolate(x, size=sizes.input, mode="bilinear", align_corners=False)[:, :, :ch, :cw]
        if sizes.content != sizes.original:
            x = F.interpolate(x, size=sizes.original, mode="bilinear", align_corners=False)
        masks[at : at + step] = x[:, 0] > levels[at : at + step, None, None]
    return masks


Span = tuple[int, int]


def _held(maps: Tensor, levels: Tensor) -> list[tuple[Span, Span] | None]:
    """Row and column ranges of each map's places that may pass its level; None where no place does."""
    least = (levels - levels.abs() * ROUNDING).numpy()
    spans: list[tuple[Span, Span] | None] = []
    for places, rows, level in zip(maps.numpy(), maps.amax(2).numpy(), least, strict=True):
        above = rows > level
        if not above.any():
            spans.append(None)
            continue
        y0, y1 = span(above)
        spans.append(((y0, y1), span(places[y0:y1].max(0) > level)))
    return spans


def _enlarged(places: Tensor, held: tuple[Span, Span], scales: tuple[int, int]) -> tuple[Span, Tensor]:
    """Top left pixel, and values, of the part of a map [h, w] around `held` places, enlarged by whole factors.

    Wherever they pass the level, the values equal those of the whole map enlarged, bit for bit: they differ only at the
    part's border, where no place passes it.
    """
    rows, columns = (
        slice(max(0, low - 1), min(high + 1, length))
        for (low, high), length in zip(held, places.shape, strict=True)
    )
    piece = places[None, None, rows, columns]
    size = (piece.shape[2] * scales[0], piece.shape[3] * scales[1])
    drawn = F.interpolate(piece, size=size, mode="bilinear", align_corners=False)[0, 0]
    return (rows.start * scales[0], columns.start * scales[1]), drawn


class _Axis:
    """Along one axis: the weights of a map's places in the pixels of the original image.

    Both resizings are linear, so they are one matrix [pixels, places], with two or three non-zero values per row.
    """

    def __init__(self, places: int, padded: int, content: int, original: int) -> None:
        x = F.interpolate(torch.eye(places)[None], size=padded, mode="linear", align_corners=False)
        x = F.interpolate(x[:, :, :content], size=original, mode="linear", align_corners=False)
        self.weights = x[0].T.contiguous()
        reached = self.weights.numpy() > 0
        pixels = [span(column) if column.any() else (original, 0) for column in reached.T]
        self.pixels_of = [(low, high) for low, high in pixels]
        self.places_of = [span(row) for row in reached]

    def reach(self, low: int, high: int) -> tuple[slice, slice]:
        """Pixels that depend on places low..high - 1, and all places that these depend on."""
        first = min(begin for begin, _ in self.pixels_of[low:high])
        last = max(end for _, end in self.pixels_of[low:high])
        if first >= last:
            return slice(0, 0), slice(0, 0)
        return slice(first, last), slice(self.places_of[first][0], self.places_of[last - 1][1])


def _sampled(places: Tensor, held: tuple[Span, Span], axes: list[_Axis]) -> tuple[Span, Tensor]:
    """Top left pixel, and values, of the pixels of the original image that depend on `held` places of a map [h, w]."""
    (y, rows), (x, columns) = (axis.reach(*ends) for axis, ends in zip(axes, held, strict=True))
    drawn = axes[0].weights[y, rows] @ places[rows, columns] @ axes[1].weights[x, columns].T
    return (y.start, x.start), drawn
