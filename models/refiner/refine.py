"""Refined masks: rough ones that MaskRefineNet looked at again, each pixel at most one refined mask's of its group.

Those that stay rough keep all their pixels, and may overlap a refined neighbour.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.config import PromptConfig
from models.inference.coarse_masks import Rough
from models.masks.exclusive import Maps, Probability, groups_of, make_exclusive
from models.refiner.crops import Refined, refine
from models.refiner.network import MaskRefineNet


class Final(NamedTuple):
    """What came of all clicks of an image, a row a click."""

    masks: Tensor
    """bool [K, H, W]; the rough one where either of these is true"""
    kept_rough: Tensor
    """bool [K]: refinement wasn't wanted, or came out empty"""
    taken: Tensor
    """bool [K]: all pixels of the refined mask are likelier another's"""


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
        batch_size: crops at a time; it doesn't alter results.
        enlarge: how much larger than the mask's box a crop is.
        rounds: times that each mask is refined.
        selected: bool [K]; the other rough masks stay.
    """
    refined = refine(
        model, image, rough.masks, points_xy, model.config, batch_size,
        enlarge=enlarge, mask_threshold=prompt.mask_threshold, rounds=rounds, labels=labels, selected=selected,
    )  # fmt: skip
    masks = make_exclusive(
        refined.masks, confidence(rough, refined), points_xy, groups_of(labels, prompt.exclusive)
    )
    taken = ~refined.kept_rough & ~masks.flatten(1).any(1)
    stays = (refined.kept_rough | taken)[:, None, None]
    return Final(torch.where(stays, rough.masks, masks), refined.kept_rough, taken)


def confidence(rough: Rough, refined: Refined) -> Probability:
    """How sure masks are of places before they are settled: the refiner, or the teacher where a mask stays rough."""
    maps = Maps(refined.probabilities, refined.boxes_xyxy)

    def probability(rows: Tensor, places_xy: Tensor) -> Tensor:
        kept = refined.kept_rough[rows]
        return torch.where(kept, rough.maps.at(rows, places_xy), maps.at(rows, places_xy))

    return probability
