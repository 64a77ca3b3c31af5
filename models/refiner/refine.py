"""Refined masks: MaskRefineNet's masks, without overlaps inside a group.

Masks that stay rough keep all their pixels, and may overlap a refined neighbour.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.config import PromptConfig
from models.inference.coarse_masks import Rough
from models.masks.boxes import mask_boxes
from models.masks.exclusive import Maps, Probability, groups_of, remove_overlaps_
from models.refiner.crops import Refined, refine
from models.refiner.network import MaskRefineNet


class Final(NamedTuple):
    """The final masks of all clicks of an image, one row per click."""

    masks: Tensor
    """bool [K, H, W]; the rough mask where `kept_rough` or `taken`"""
    kept_rough: Tensor
    """bool [K]: not selected for refinement, or the refined mask is empty"""
    taken: Tensor
    """bool [K]: all pixels of the refined mask are assigned to other masks"""


def refined_masks(
    model: MaskRefineNet,
    image: Tensor,
    rough: Rough,
    points_xy: Tensor,
    labels: Tensor,
    prompt: PromptConfig,
    batch_size: int,
    *,
    enlarge: float,
    rounds: int,
    selected: Tensor,
) -> Final:
    """Refines the rough masks of an image at all its clicks [K, 2] of contiguous classes [K].

    Args:
        image: uint8 RGB [3, H, W], the original.
        batch_size: crops at a time; doesn't affect results.
        enlarge: size of a crop relative to the mask's box.
        rounds: how often each mask is refined.
        selected: bool [K]; the other rough masks stay.
    """
    refined = refine(
        model, image, rough.masks, points_xy, model.config, batch_size,
        enlarge=enlarge, mask_threshold=prompt.mask_threshold, rounds=rounds, labels=labels, selected=selected,
    )  # fmt: skip
    masks = (
        refined.masks
    )  # a copy; each further one of an image with hundreds of masks takes a tenth of a second
    groups = groups_of(labels, prompt.exclusive)
    remove_overlaps_(masks, mask_boxes(masks), confidence(rough, refined), points_xy, groups)
    taken = ~refined.kept_rough & ~masks.flatten(1).any(1)
    for row in (refined.kept_rough | taken).nonzero()[:, 0].tolist():
        masks[row] = rough.masks[row]
    return Final(masks, refined.kept_rough, taken)


def confidence(rough: Rough, refined: Refined) -> Probability:
    """The probabilities by which overlaps are removed: the refiner's, or the teacher's if a mask stays rough."""
    maps = Maps(refined.probabilities, refined.boxes_xyxy)

    def probability(rows: Tensor, places_xy: Tensor) -> Tensor:
        kept = refined.kept_rough[rows]
        return torch.where(kept, rough.maps.at(rows, places_xy), maps.at(rows, places_xy))

    return probability
