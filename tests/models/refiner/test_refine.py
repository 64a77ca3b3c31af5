from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.config import PromptConfig
from models.inference.coarse_masks import Rough
from models.masks.boxes import mask_boxes
from models.masks.exclusive import Maps
from models.masks.resize import Sizes
from models.refiner.refine import refined_masks

SIZE = (40, 60)
POINTS = torch.tensor([[12.5, 10.5], [30.5, 10.5]])


class Dilate(nn.Module):
    """Predicts the rough mask grown by `reach` pixels of the crop, with one probability in all crops."""

    def __init__(self, config, reach: int, certainty: float = 4.0) -> None:
        super().__init__()
        self.config, self.reach, self.certainty = config, reach, certainty
        self.spare_channels = 0

    def forward(self, x: Tensor) -> Tensor:
        grown = nn.functional.max_pool2d(x[:, -1:], 2 * self.reach + 1, 1, self.reach)[:, 0]
        sure = self.certainty * (2 * grown - 1)
        return torch.stack([-sure, sure], 1)


def rough_of(masks: Tensor, certainty: float = 0.9) -> Rough:
    maps = Maps.of_input(masks.float() * certainty, Sizes(SIZE, SIZE, SIZE))
    return Rough(masks, masks.flatten(1).any(1), maps, mask_boxes(masks))


@pytest.fixture
def refined(refinenet_config, rectangles):
    """Refines two neighbouring squares, of one class, with a network that grows them into each other."""
    masks = rectangles(SIZE, (6, 4, 12, 12), (20, 4, 20, 12))

    def run(wanted: list[bool], reach: int = 12, exclusive: str = "same_class"):
        prompt = PromptConfig.paper(0.5).model_copy(update={"exclusive": exclusive})
        return masks, refined_masks(
            Dilate(refinenet_config(), reach),  # type: ignore[arg-type]
            torch.zeros(3, *SIZE, dtype=torch.uint8),
            rough_of(masks),
            POINTS,
            torch.tensor([2, 2]),
            prompt,
            8,
            enlarge=2.0,
            rounds=1,
            selected=torch.tensor(wanted),
        )

    return run


def test_refined_masks_share_no_pixel(refined) -> None:
    _, both = refined([True, True])
    assert not both.kept_rough.any() and not both.taken.any()
    assert not both.masks.all(0).any()
    _, free = refined([True, True], exclusive="none")
    assert free.masks.all(0).any()
    assert torch.equal(free.masks.any(0), both.masks.any(0))


@pytest.mark.parametrize("wanted", [[True, False], [False, True], [False, False]])
def test_masks_that_are_not_wanted_stay_rough(refined, wanted: list[bool]) -> None:
    masks, found = refined(wanted)
    assert found.kept_rough.tolist() == [not one for one in wanted]
    for k, one in enumerate(wanted):
        assert torch.equal(found.masks[k], masks[k]) != one


def test_an_empty_rough_mask_is_kept_and_taken_by_nobody(refinenet_config, rectangles) -> None:
    masks = torch.cat([rectangles(SIZE, (6, 4, 12, 12)), torch.zeros(1, *SIZE, dtype=torch.bool)])
    found = refined_masks(
        Dilate(refinenet_config(), 3),  # type: ignore[arg-type]
        torch.zeros(3, *SIZE, dtype=torch.uint8),
        rough_of(masks),
        POINTS,
        torch.tensor([2, 2]),
        PromptConfig.paper(0.5),
        8,
        enlarge=2.0,
        rounds=1,
        selected=torch.ones(2, dtype=torch.bool),
    )
    assert found.kept_rough.tolist() == [False, True]
    assert found.taken.tolist() == [False, False]
    assert not found.masks[1].any()


def test_a_mask_that_is_all_another_s_falls_back_to_the_rough_one(refinenet_config, rectangles) -> None:
    masks = rectangles(SIZE, (6, 4, 24, 12), (20, 6, 6, 6))
    points = torch.tensor([[12.5, 10.5], [50.5, 30.5]])  # the second click lies off its mask
    prompt = PromptConfig.paper(0.5).model_copy(update={"exclusive": "all"})
    found = refined_masks(
        Dilate(refinenet_config(), 0),  # type: ignore[arg-type]
        torch.zeros(3, *SIZE, dtype=torch.uint8),
        rough_of(masks),
        points,
        torch.tensor([0, 1]),
        prompt,
        8,
        enlarge=1.0,
        rounds=1,
        selected=torch.ones(2, dtype=torch.bool),
    )
    assert found.taken.tolist() == [False, True] and not found.kept_rough.any()
    assert torch.equal(found.masks, masks)
