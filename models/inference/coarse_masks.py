"""Rough masks: the teacher's masks at clicks, at the size of the image, without overlaps."""

from typing import NamedTuple

from torch import Tensor

from models.config import PromptConfig
from models.inference.click_masks import Prompted
from models.inference.tiles import Outputs, prompt
from models.masks.boxes import areas_in
from models.masks.exclusive import Maps, groups_of, remove_overlaps_
from models.masks.resize import resize_boxed


class Rough(NamedTuple):
    """The rough masks of all clicks of an image, a row a click."""

    masks: Tensor
    """bool [K, H, W] of the original image"""
    drawn: Tensor
    """bool [K]: the teacher's mask isn't empty; `masks` may be, where all its pixels are assigned to other masks"""
    prompted: Prompted
    maps: Maps
    """the probabilities on the original image, times mask_threshold / cut, so that all masks have one threshold"""
    boxes_xyxy: Tensor
    """int64 [K, 4], on the CPU: whole pixels outside of which a mask is empty; zeros for an empty one"""


def rough_masks(
    outputs: Outputs,
    n: int,
    points_xy: Tensor,
    labels: Tensor,
    input_size: tuple[int, int],
    content_size: tuple[int, int],
    original_size: tuple[int, int],
    config: PromptConfig,
) -> Rough:
    """Masks of image `n` at all its clicks [K, 2], in pixels of the original image, of contiguous classes [K].

    Sizes are (height, width) of the padded batch, the resized and the original image. Raises what
    `prompt_points` does.
    """
    (ch, cw), (height, width) = content_size, original_size
    scaled = points_xy * points_xy.new_tensor([cw / width, ch / height])
    prompted = prompt(outputs, n, scaled, labels, input_size, config)
    masks, boxes = resize_boxed(prompted.mask_prob, input_size, content_size, original_size, prompted.cut)
    drawn = areas_in(masks, boxes) > 0
    # Small masks, cut at a lower level, have lower probabilities throughout.
    scale = config.mask_threshold / prompted.cut
    maps = Maps.of_input(prompted.mask_prob, input_size, content_size, original_size, scale)
    remove_overlaps_(masks, boxes, maps.at, points_xy, groups_of(labels, config.exclusive))
    return Rough(masks, drawn, prompted, maps, boxes)
