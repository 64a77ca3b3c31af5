"""Rough masks: the teacher's masks at clicks, at the size of the image, without overlaps."""

from typing import NamedTuple, Protocol

from torch import Tensor

from models.config import PromptConfig
from models.inference.click_masks import Prompted
from models.inference.tiles import Outputs, prompt
from models.masks.boxes import areas_in
from models.masks.clicks import FurtherClicks
from models.masks.exclusive import Maps, groups_of, remove_overlaps_
from models.masks.resize import Sizes, resize_boxed


class Probabilities(Protocol):
    """Probabilities of K masks on the original image."""

    def at(self, rows: Tensor, points_xy: Tensor, /) -> Tensor:
        """Float32 [M]: masks `rows` [M] at points [M, 2]."""
        ...


class Rough(NamedTuple):
    """The rough masks of all clicks of an image, a row a click."""

    masks: Tensor
    """bool [K, H, W] of the original image"""
    drawn: Tensor
    """bool [K]: the teacher's mask isn't empty; `masks` may be, where all its pixels are assigned to other masks"""
    maps: Probabilities
    """the probabilities on the original image, times mask_threshold / cut, so that all masks have one threshold"""
    boxes_xyxy: Tensor
    """int64 [K, 4], on the CPU: whole pixels outside of which a mask is empty; zeros for an empty one"""


def rough_masks(
    outputs: Outputs, n: int, points_xy: Tensor, labels: Tensor, sizes: Sizes, config: PromptConfig
) -> Rough:
    """`place_masks` of `prompt_original`."""
    prompted = prompt_original(outputs, n, points_xy, labels, sizes, config)
    return place_masks(prompted.mask_prob, prompted.cut, points_xy, labels, sizes, config)


def prompt_original(
    outputs: Outputs,
    n: int,
    points_xy: Tensor,
    labels: Tensor,
    sizes: Sizes,
    config: PromptConfig,
    further: FurtherClicks | None = None,
) -> Prompted:
    """Mask maps of image `n` at clicks [K, 2], in pixels of the original image, of contiguous classes [K], and at
    `further` clicks on the same objects.

    Raises what `prompt_points` does.
    """
    (ch, cw), (height, width) = sizes.content, sizes.original
    scaled = points_xy * points_xy.new_tensor([cw / width, ch / height])
    if further is not None:
        further = further.scaled(cw / width, ch / height)
    return prompt(outputs, n, scaled, labels, sizes.input, config, further)


def place_masks(
    mask_prob: Tensor, cut: Tensor, points_xy: Tensor, labels: Tensor, sizes: Sizes, config: PromptConfig
) -> Rough:
    """Mask maps [K, h, w] at all clicks of an image as masks of the original image, without overlaps.

    Args:
        mask_prob: covers the padded input.
        cut: float32 [K], above 0: the probability above which a pixel belongs to a mask.
        points_xy: float [K, 2], the clicks in pixels of the original image.
        labels: int64 [K], contiguous classes.
    """
    masks, boxes = resize_boxed(mask_prob, sizes, cut)
    drawn = areas_in(masks, boxes) > 0
    # Small masks, cut at a lower level, have lower probabilities throughout.
    maps = Maps.of_input(mask_prob, sizes, config.mask_threshold / cut)
    remove_overlaps_(masks, boxes, maps.at, points_xy, groups_of(labels, config.exclusive))
    return Rough(masks, drawn, maps, boxes)
