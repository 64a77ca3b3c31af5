"""Crowded scenes with a perfect network: no click is lost, nor its object where the mask map can hold it."""

from __future__ import annotations

import pytest
import torch

from bench.crowded import OURS, PAPER, by_our_rule, by_the_reference_s_rule
from bench.perfect import SIZE, close_pairs, disc_pairs, discs, perfect_outputs, specks
from models.inference.coarse_masks import rough_masks
from models.masks.resize import Sizes
from tasks.labelling.measure_refiner import paired_iou


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("where", ["centre", "random"])
@pytest.mark.parametrize(
    ("scene", "stride", "least"),
    [
        (discs(40, 2.5, rng()), 4, 40),
        (discs(40, 4.0, rng()), 4, 40),
        (discs(60, 6.0, rng()), 4, 60),
        (disc_pairs(20, 6.0, rng()), 4, 40),
        (discs(20, 6.0, rng(), over_border=True), 4, 20),
        (disc_pairs(20, 3.0, rng()), 2, 36),  # where both share a cell, the targets teach one of them
    ],
    ids=["radius 2.5", "radius 4", "radius 6", "pairs", "border", "pairs in a cell"],
)
def test_every_click_keeps_its_object(scene, stride: int, least: int, where: str) -> None:
    outputs, _ = perfect_outputs(scene, stride)
    rows, found = by_our_rule(outputs, scene, scene.clicks(where, rng(1)), OURS)
    assert rows == len(scene.masks)
    assert found >= least


def test_objects_of_three_pixels_all_have_a_row_and_a_mask_about_them() -> None:
    scene = specks(30, rng())
    clicks = scene.clicks("random", rng(1))
    masks = rough_masks(
        perfect_outputs(scene, 2).outputs, 0, clicks, scene.labels, Sizes(SIZE, SIZE, SIZE), OURS
    ).masks
    assert len(masks) == 30 and masks.flatten(1).any(1).all()
    assert (paired_iou(masks, scene.masks) > 0.2).float().mean() > 0.8


def test_two_classes_in_one_cell_each_get_a_row_and_may_share_pixels() -> None:
    scene = close_pairs(6, 4, 40, rng(), classes=2)
    clicks = scene.clicks("centre", rng(1))
    rows, found = by_our_rule(perfect_outputs(scene, 2).outputs, scene, clicks, OURS)
    assert rows == 12 and found >= 6


def test_more_points_than_the_reference_s_cap() -> None:
    scene = discs(120, 6.0, rng())
    clicks = scene.clicks("centre", rng(1))
    outputs = perfect_outputs(scene, 2).outputs
    assert by_our_rule(outputs, scene, clicks, OURS) == (120, 120)
    assert by_the_reference_s_rule(outputs, scene, clicks)[0] == 100


def test_clicks_off_the_centre_are_what_the_blend_is_for() -> None:
    scene = discs(60, 6.0, rng())
    clicks = scene.clicks("random", rng(1))
    outputs = perfect_outputs(scene, 4).outputs
    assert by_our_rule(outputs, scene, clicks, PAPER)[1] < 45
    assert by_our_rule(outputs, scene, clicks, OURS)[1] == 60


def test_the_same_click_twice_has_two_rows_and_one_owner() -> None:
    scene = discs(3, 6.0, rng())
    clicks = scene.clicks("centre", rng(1))[[0, 0, 1, 2]]
    labels = scene.labels[[0, 0, 1, 2]]
    outputs = perfect_outputs(scene, 4).outputs
    rough = rough_masks(outputs, 0, clicks, labels, Sizes(SIZE, SIZE, SIZE), OURS)
    assert len(rough.masks) == 4 and rough.drawn.all()
    assert rough.masks[0].any() and not rough.masks[1].any()
