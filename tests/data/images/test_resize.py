from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.images.resize import pad_to, padded_shape, resize, resize_shape


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
    assert resize_shape(size, short_side, max_side, True) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(16, 1000), st.integers(16, 2000))
def test_resize_shape_keeps_the_ratio_and_the_limits(h: int, w: int, short_side: int, max_side: int) -> None:
    new_h, new_w = resize_shape((h, w), short_side, max_side, True)
    scale = min(short_side / min(h, w), max_side / max(h, w))
    assert abs(new_h - h * scale) <= 0.5 or new_h == 1
    assert abs(new_w - w * scale) <= 0.5 or new_w == 1
    assert max(new_h, new_w) <= max_side
    assert resize_shape((w, h), short_side, max_side, True) == (new_w, new_h)
    kept = resize_shape((h, w), short_side, max_side, False)
    assert kept == ((new_h, new_w) if scale <= 1 else (h, w))


@given(st.integers(1, 200), st.integers(1, 200))
def test_padding_is_at_the_bottom_and_right_and_less_than_32_pixels(h: int, w: int) -> None:
    height, width = padded_shape((h, w))
    assert height % 32 == width % 32 == 0 and 0 <= height - h < 32 and 0 <= width - w < 32
    padded = pad_to(torch.ones(3, h, w, dtype=torch.uint8), (height, width))
    assert padded.shape == (3, height, width) and padded.sum() == 3 * h * w == padded[:, :h, :w].sum()


def test_memory_layout_does_not_change_a_resized_image() -> None:
    """Training resizes images as decoded, [H, W, 3] in memory; inference resizes contiguous ones."""
    pixels = torch.randint(0, 256, (57, 91, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = pixels.permute(2, 0, 1)
    assert torch.equal(resize(image, (40, 130)), resize(image.contiguous(), (40, 130)))
    assert resize(image, (57, 91)) is image
