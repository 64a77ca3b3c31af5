from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.transforms import AugmentConfig, Geometry, augment, resize, resize_shape

STILL = AugmentConfig(
    flip=0.0, scale_min=1.0, scale_max=1.0, crop=False, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0
)
WILD = AugmentConfig(
    flip=0.5, scale_min=0.6, scale_max=1.8, crop=True, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1
)


def changed(config: AugmentConfig, **values: object) -> AugmentConfig:
    return AugmentConfig(**{**config.__dict__, **values})  # type: ignore[arg-type]


def sample(height: int = 40, width: int = 60) -> Geometry:
    """Two rectangles painted in their own colour, each with a point inside."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 4:20, 6:30] = True
    masks[1, 22:38, 32:56] = True
    image[0][masks[0]] = 255
    image[1][masks[1]] = 255
    return Geometry(image, masks, torch.tensor([[18.0, 12.0], [44.0, 30.0]]))


def drawn(config: AugmentConfig, seed: int, shape: tuple[int, int] = (40, 60)) -> Geometry:
    torch.manual_seed(seed)
    return augment(sample(), shape, config)


@pytest.mark.parametrize(
    ("size", "short_side", "max_side", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((480, 640), 800, 900, (675, 900)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((128, 128), 128, 128, (128, 128)),
        ((1000, 10), 100, 200, (200, 2)),
        ((3000, 1), 100, 200, (200, 1)),
    ],
)
def test_resize_shape(
    size: tuple[int, int], short_side: int, max_side: int, expected: tuple[int, int]
) -> None:
    assert resize_shape(size, short_side, max_side) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 1000), st.integers(16, 2000))
def test_resize_shape_keeps_the_ratio_and_the_limits(h: int, w: int, short_side: int, max_side: int) -> None:
    new_h, new_w = resize_shape((h, w), short_side, max_side)
    scale = min(short_side / min(h, w), max_side / max(h, w))
    assert abs(new_h - h * scale) <= 0.5 or new_h == 1
    assert abs(new_w - w * scale) <= 0.5 or new_w == 1
    assert max(new_h, new_w) <= max_side
    assert resize_shape((w, h), short_side, max_side) == (new_w, new_h)


def test_nothing_changes_where_nothing_is_asked_for() -> None:
    for result in (resize(sample(), (40, 60)), drawn(STILL, 0)):
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
    result = resize(sample(), (int(40 * factor), int(60 * factor)))
    assert result.masks.sum(dim=(1, 2)).tolist() == [24 * 16 * factor**2] * 2
    assert torch.equal(result.points_xy, sample().points_xy * factor)
    assert result.image.dtype == torch.uint8
    inside = result.image[0][result.masks[0]].float().mean()
    assert inside > 240  # bilinear edges take a little


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_masks_and_points_move_with_the_image(seed: int) -> None:
    result = drawn(changed(WILD, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0), seed)
    height, width = result.image.shape[-2:]
    assert height <= 40
    assert width <= 60
    assert result.masks.shape == (2, height, width)
    for channel, (mask, (x, y)) in enumerate(zip(result.masks, result.points_xy.tolist(), strict=True)):
        painted = result.image[channel] >= 128
        assert (painted ^ mask).sum() <= 2 + 0.2 * mask.sum()
        if 0 <= x < width and 0 <= y < height:
            assert mask[int(y), int(x)]


def test_crops_cut_to_the_plain_size_and_reach_everywhere() -> None:
    config = changed(STILL, scale_min=2.0, scale_max=2.0, crop=True)
    corners = {tuple(drawn(config, seed).points_xy[0].int().tolist()) for seed in range(50)}
    assert len(corners) > 40
    assert drawn(config, 0).image.shape == (3, 40, 60)
    assert drawn(changed(config, crop=False), 0).image.shape == (3, 80, 120)


def test_colours_change_the_image_alone() -> None:
    result = drawn(changed(STILL, brightness=0.5, hue=0.2), 3)
    assert not torch.equal(result.image, sample().image)
    assert result.image.dtype == torch.uint8
    assert type(result.image) is torch.Tensor
    assert torch.equal(result.masks, sample().masks)


def test_the_seed_alone_decides() -> None:
    first, again, other = drawn(WILD, 5), drawn(WILD, 5), drawn(WILD, 6)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.masks, again.masks)
    assert first.image.shape != other.image.shape or not torch.equal(first.image, other.image)


def test_no_objects_and_no_points() -> None:
    empty = Geometry(sample().image, torch.zeros(0, 40, 60, dtype=torch.bool), None)
    for seed in range(5):
        torch.manual_seed(seed)
        result = augment(empty, (32, 48), WILD)
        assert result.points_xy is None
        assert result.masks.shape == (0, *result.image.shape[-2:])
