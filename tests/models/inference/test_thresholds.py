from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.inference.thresholds import mask_thresholds
from models.solov2.targets import shrink_masks

SIZE = (96, 128)


def disc(x: float, y: float, radius: float) -> Tensor:
    across, down = torch.arange(SIZE[1]) + 0.5 - x, torch.arange(SIZE[0]) + 0.5 - y
    return (across.square() + down.square()[:, None] <= radius**2)[None]


def resized(maps: Tensor) -> Tensor:
    return F.interpolate(maps[:, None], size=SIZE, mode="bilinear", align_corners=False)[:, 0]


def iou(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


@settings(max_examples=60, deadline=None)
@given(st.floats(20, 100), st.floats(20, 70), st.floats(2.2, 8))
def test_a_small_mask_has_its_true_area_wherever_it_lies(x: float, y: float, radius: float) -> None:
    """At 0.5 a disc of radius 2.5 between four places of a stride-4 map vanishes."""
    true = disc(x, y, radius)
    maps = shrink_masks(true, SIZE, 4)
    level = mask_thresholds(maps, 0.5, 16.0, 0.02)
    ours = resized(maps) > level[:, None, None]
    assert float(ours.sum()) == pytest.approx(float(true.sum()), rel=0.2, abs=8)  # symmetric: 8 at once
    assert iou(ours, true) > (0.35 if radius < 3.5 else 0.6)
    assert iou(ours, true) >= iou(resized(maps) > 0.5, true) - 0.06


def test_other_masks_are_cut_at_the_threshold() -> None:
    large = shrink_masks(disc(60, 40, 20), SIZE, 4)
    faint = 0.08 * shrink_masks(disc(60, 40, 4), SIZE, 4)
    small = shrink_masks(disc(60, 40, 4), SIZE, 4)
    maps = torch.cat([large, faint, torch.zeros_like(small), small])
    levels = mask_thresholds(maps, 0.5, 16.0, 0.1)
    assert levels[:3].tolist() == [0.5] * 3
    assert levels[3] != 0.5
    assert mask_thresholds(maps, 0.5, 0.0, 0.1).tolist() == [0.5] * 4
    assert mask_thresholds(maps[:0], 0.5, 16.0, 0.1).shape == (0,)


def test_a_large_faint_mask_is_no_small_one() -> None:
    """A single place of it is above the threshold, but its probabilities sum to far more than `small_area`."""
    maps = 0.4 * shrink_masks(disc(60, 40, 20), SIZE, 4)
    maps[0, 10, 15] = 0.9
    assert mask_thresholds(maps, 0.5, 16.0, 0.1).tolist() == [0.5]
    assert mask_thresholds(maps, 0.5, 200.0, 0.1).tolist() != [0.5]


@pytest.mark.parametrize(("small_area", "small"), [(12.0, True), (11.75, False)])
def test_a_mask_of_just_the_small_area_is_small(small_area: float, small: bool) -> None:
    maps = torch.zeros(1, 24, 32)
    maps[0, 10:13, 14:18] = 1
    assert (mask_thresholds(maps, 0.375, small_area, 0.1).item() != 0.375) == small


def test_what_is_far_from_a_small_mask_does_not_swell_it() -> None:
    one = shrink_masks(disc(30, 30, 4), SIZE, 4)
    two = one + 0.4 * shrink_masks(disc(100, 70, 2), SIZE, 4)
    assert torch.equal(mask_thresholds(one, 0.5, 16.0, 0.1), mask_thresholds(two, 0.5, 16.0, 0.1))


@pytest.mark.parametrize("place", [(0, 0), (23, 31), (0, 16)])
def test_a_single_place_at_the_edge_of_the_map(place: tuple[int, int]) -> None:
    maps = torch.zeros(1, 24, 32)
    maps[0, place[0], place[1]] = 0.9
    level = mask_thresholds(maps, 0.5, 4.0, 0.1)
    assert 0 < float(level) < 0.9
    assert math.isclose(float((resized(maps) > level).sum()), 0.9 * 16, abs_tol=8)
