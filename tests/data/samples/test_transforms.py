from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.plain_samples import Whole
from data.masks.rle import encode
from data.samples.transforms import AugmentConfig, draw_placement, recolour

STILL = AugmentConfig(
    flip=0.0, vertical_flip=0.0, rotate90=0.0, scale_min=1.0, scale_max=1.0, crop=False, crop_side=None,
    brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, grayscale=0.0, invert=0.0, tint=0.0, blur=0.0,
    blur_sigma=0.0, erase=0.0, erase_side=0.0,
)  # fmt: skip


def changed(config: AugmentConfig, **values: object) -> AugmentConfig:
    return dataclasses.replace(config, **values)  # type: ignore[arg-type]


MOVED = changed(STILL, flip=0.5, vertical_flip=0.5, rotate90=0.5, scale_min=0.6, scale_max=1.8, crop=True)
WILD = changed(
    MOVED, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, grayscale=0.3, invert=0.3, tint=0.3, blur=0.5,
    blur_sigma=2.0, erase=0.5, erase_side=0.5,
)  # fmt: skip


def sample(height: int = 40, width: int = 60) -> Whole:
    """Two rectangles painted in their own colour, each with a point inside."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 4:20, 6:30] = True
    masks[1, 22:38, 32:56] = True
    image[0][masks[0]] = 255
    image[1][masks[1]] = 255
    return Whole(image, masks, torch.tensor([[18.0, 12.0], [44.0, 30.0]]))


def augment(given: Whole, shape: tuple[int, int], config: AugmentConfig) -> Whole:
    """All of the sample moved as drawn; masks that the crop cuts off are empty."""
    placement = draw_placement((given.image.shape[-2], given.image.shape[-1]), shape, config)
    image = recolour(placement.image(given.image), config)
    reaching, kept = placement.masks([encode(mask.numpy()) for mask in given.masks])
    masks = torch.zeros(len(given.masks), *reaching.shape[1:], dtype=torch.bool)
    masks[torch.from_numpy(kept)] = reaching
    points = None if given.points_xy is None else placement.points(given.points_xy)
    return Whole(image, masks, points, placement.origin)


def drawn(config: AugmentConfig, seed: int, shape: tuple[int, int] = (40, 60)) -> Whole:
    torch.manual_seed(seed)
    return augment(sample(), shape, config)


def test_without_augmentation_nothing_changes() -> None:
    result = drawn(STILL, 0)
    assert torch.equal(result.image, sample().image)
    assert torch.equal(result.masks, sample().masks)
    assert torch.equal(result.points_xy, sample().points_xy)


def test_a_flip_is_its_own_inverse_and_exact() -> None:
    flipped = drawn(changed(STILL, flip=1.0), 0)
    assert torch.equal(flipped.image, sample().image.flip(-1))
    assert torch.equal(flipped.masks, sample().masks.flip(-1))
    assert flipped.points_xy[:, 0].tolist() == [60 - 18.0, 60 - 44.0]
    assert torch.equal(augment(flipped, (40, 60), changed(STILL, flip=1.0)).points_xy, sample().points_xy)


@pytest.mark.parametrize("factor", [2, 0.5])
def test_resizing_scales_masks_points_and_image_alike(factor: float) -> None:
    result = drawn(STILL, 0, (int(40 * factor), int(60 * factor)))
    assert result.masks.sum(dim=(1, 2)).tolist() == [24 * 16 * factor**2] * 2
    assert torch.equal(result.points_xy, sample().points_xy * factor)
    assert result.image.dtype == torch.uint8
    inside = result.image[0][result.masks[0]].float().mean()
    assert inside > 240  # bilinear edges take a little


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([None, 32, 64]))
def test_masks_and_points_move_with_the_image(seed: int, crop_side: int | None) -> None:
    result = drawn(changed(MOVED, crop_side=crop_side), seed)
    height, width = result.image.shape[-2:]
    assert (height <= 40 and width <= 60) or (height <= 60 and width <= 40)
    assert max(height, width) <= (crop_side or 60)
    assert result.masks.shape == (2, height, width)
    for channel, (mask, (x, y)) in enumerate(zip(result.masks, result.points_xy.tolist(), strict=True)):
        painted = result.image[channel] >= 128
        # Bilinear against nearest: at most a line of pixels along two edges.
        either = painted | mask
        assert (painted ^ mask).sum() <= 2 + either.any(0).sum() + either.any(1).sum()
        if 0 <= x < width and 0 <= y < height:
            assert mask[int(y), int(x)]


def test_crops_cut_to_the_plain_size_and_reach_everywhere() -> None:
    config = changed(STILL, scale_min=2.0, scale_max=2.0, crop=True)
    corners = {tuple(drawn(config, seed).points_xy[0].int().tolist()) for seed in range(50)}
    assert len(corners) > 40
    assert drawn(config, 0).image.shape == (3, 40, 60)
    assert drawn(changed(config, crop=False), 0).image.shape == (3, 80, 120)
    assert drawn(changed(config, rotate90=1.0), 0).image.shape == (3, 60, 40)


@pytest.mark.parametrize(
    ("name", "turned"),
    [
        ("flip", lambda x: x.flip(-1)),
        ("vertical_flip", lambda x: x.flip(-2)),
        ("rotate90", lambda x: x.rot90(1, (-2, -1))),
    ],
)
def test_a_turn_is_exact_and_undone_by_repeating_it(name: str, turned: Callable[[Tensor], Tensor]) -> None:
    config = changed(STILL, **{name: 1.0})
    result = drawn(config, 0)
    assert torch.equal(result.image, turned(sample().image))
    assert torch.equal(result.masks, turned(sample().masks))
    for mask, (x, y) in zip(result.masks, result.points_xy.tolist(), strict=True):
        # The points are corners of four pixels, all of them inside.
        assert mask[int(y) - 1 : int(y) + 1, int(x) - 1 : int(x) + 1].all()
    for _ in range(3 if name == "rotate90" else 1):
        result = augment(result, (result.image.shape[-2], result.image.shape[-1]), config)
    assert all(torch.equal(a, b) for a, b in zip(result[:3], sample()[:3], strict=True))


def test_flips_and_turns_give_all_eight_orientations() -> None:
    config = changed(STILL, flip=0.5, vertical_flip=0.5, rotate90=0.5)
    seen = {
        (tuple(r.image.shape), tuple(r.points_xy[0].tolist())) for r in (drawn(config, n) for n in range(80))
    }
    assert len(seen) == 8


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_a_crops_origin_is_its_place_in_the_whole_image(seed: int) -> None:
    """The whole image, turned alike (the same draws, since a crop's come after), holds the crop at its origin."""
    config = changed(MOVED, crop=False)
    whole, part = drawn(config, seed), drawn(changed(config, crop_side=32), seed)
    assert whole.origin == (0, 0)
    (x, y), (h, w) = part.origin, part.image.shape[-2:]
    assert (h, w) == (min(32, whole.image.shape[-2]), min(32, whole.image.shape[-1]))
    assert torch.equal(part.image, whole.image[:, y : y + h, x : x + w])
    assert torch.equal(part.masks, whole.masks[:, y : y + h, x : x + w])
    torch.testing.assert_close(part.points_xy + torch.tensor([x, y]), whole.points_xy)


def test_crops_of_a_side_reach_everywhere_and_keep_what_is_smaller() -> None:
    config = changed(STILL, crop_side=32)
    origins = {drawn(config, seed).origin for seed in range(200)}
    assert {x for x, _ in origins} == set(range(29))
    assert {y for _, y in origins} == set(range(9))
    small = drawn(config, 0, (20, 30))
    assert small.image.shape == (3, 20, 30)
    assert small.origin == (0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"brightness": 0.5, "hue": 0.2},
        {"grayscale": 1.0},
        {"invert": 1.0},
        {"tint": 0.5},
        {"blur": 1.0, "blur_sigma": 3.0},
        {"blur": 1.0, "blur_sigma": 40.0},
        {"erase": 1.0, "erase_side": 1.0},
    ],
)
def test_what_changes_the_image_alone(changes: dict[str, float]) -> None:
    result = drawn(changed(STILL, **changes), 3)
    assert not torch.equal(result.image, sample().image)
    assert result.image.shape == sample().image.shape
    assert result.image.dtype == torch.uint8
    assert type(result.image) is torch.Tensor
    assert torch.equal(result.masks, sample().masks)
    assert torch.equal(result.points_xy, sample().points_xy)


def test_gray_is_gray_and_a_blur_keeps_the_mean() -> None:
    gray = drawn(changed(STILL, grayscale=1.0), 0).image
    assert torch.equal(gray[0], gray[1]) and torch.equal(gray[1], gray[2])
    blurred = drawn(changed(STILL, blur=1.0, blur_sigma=9.0), 0).image.float()
    assert blurred.mean() == pytest.approx(sample().image.float().mean().item(), rel=0.05)
    assert blurred.std() < sample().image.float().std()


def test_a_negative_is_exact_and_a_tint_scales_each_channel_alike_everywhere() -> None:
    assert torch.equal(drawn(changed(STILL, invert=1.0), 0).image, 255 - sample().image)
    grey = Whole(torch.full((3, 40, 60), 100, dtype=torch.uint8), sample().masks, None)
    seen = []
    for seed in range(50):
        torch.manual_seed(seed)
        image = augment(grey, (40, 60), changed(STILL, tint=0.5)).image
        assert (image == image[:, :1, :1]).all()
        seen.append(image[:, 0, 0])
    values = torch.stack(seen).int()
    assert values.min() in range(50, 56) and values.max() in range(145, 151)
    assert (values.max(1).values - values.min(1).values).float().mean() > 20


def test_a_tint_rounds_to_the_nearest_value() -> None:
    """Not down, which would darken every image by half a value."""
    ramp = torch.arange(160, dtype=torch.uint8).expand(3, 8, 160)
    torch.manual_seed(7)
    tinted = recolour(ramp, changed(STILL, tint=0.5))
    for channel in tinted[:, 0]:
        factor, offset = np.polyfit(np.arange(160), channel.numpy(), 1)
        assert 0.5 < factor < 1.5 and abs(factor - 1) > 0.01
        assert abs(offset) < 0.2


def test_an_erased_box_is_as_large_as_said_and_of_the_mean_colour() -> None:
    shares = []
    for seed in range(60):
        image = drawn(changed(STILL, erase=1.0, erase_side=0.5), seed).image
        mean = sample().image.float().mean((1, 2)).to(torch.uint8)
        erased = (image == mean[:, None, None]).all(0)
        rows, columns = erased.any(1).nonzero(), erased.any(0).nonzero()
        box = erased[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.all()
        assert box.shape[0] <= 20
        assert box.shape[1] <= 30
        shares.append(float(erased.float().mean()))
    assert max(shares) > 0.1
    assert min(shares) < 0.02


def test_an_erased_box_reaches_all_borders_and_may_be_the_whole_image() -> None:
    gradient = torch.arange(12, dtype=torch.uint8).view(1, 3, 4).expand(3, 3, 4) * 20
    borders = torch.zeros(4, dtype=torch.bool)
    whole = 0
    for seed in range(80):
        torch.manual_seed(seed)
        erased = recolour(gradient, changed(STILL, erase=1.0, erase_side=1.0))[0] != gradient[0]
        borders |= torch.stack([erased[0].any(), erased[-1].any(), erased[:, 0].any(), erased[:, -1].any()])
        whole += bool(erased.all())
    assert borders.all() and whole


def test_the_seed_alone_decides() -> None:
    first, again, other = drawn(WILD, 5), drawn(WILD, 5), drawn(WILD, 6)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.masks, again.masks)
    assert first.image.shape != other.image.shape or not torch.equal(first.image, other.image)


def test_no_objects_and_no_points() -> None:
    empty = Whole(sample().image, torch.zeros(0, 40, 60, dtype=torch.bool), None)
    for seed in range(5):
        torch.manual_seed(seed)
        result = augment(empty, (32, 48), WILD)
        assert result.points_xy is None
        assert result.masks.shape == (0, *result.image.shape[-2:])
