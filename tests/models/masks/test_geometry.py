from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from models.masks.geometry import inner_points, measure, random_inner_points

SIZE = (64, 96)


def test_measure_counts_pixels_between_their_outer_edges(rectangles) -> None:
    shapes = measure(rectangles(SIZE, (10, 20, 5, 3), (0, 0, 1, 1)))
    assert shapes.area.tolist() == [15, 1]
    assert shapes.centre.tolist() == [[12.5, 21.5], [0.5, 0.5]]
    assert shapes.size.tolist() == [[5, 3], [1, 1]]


@given(st.integers(0, 2**31), st.integers(0, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
def test_inner_points_are_the_pixels_in_reading_order(
    seed: int, k: int, height: int, width: int, q: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    masks = torch.rand(k, height, width, generator=draw) < torch.rand(k, 1, 1, generator=draw)
    draws = torch.rand(k, q, generator=draw)
    found = inner_points(masks, draws)
    assert found.shape == (k, q, 2)
    for mask, shares, points in zip(masks, draws, found, strict=True):
        pixels = mask.nonzero()
        for share, point in zip(shares, points, strict=True):
            if not len(pixels):
                assert point.isnan().all()
                continue
            y, x = pixels[min(int(share * len(pixels)), len(pixels) - 1)].tolist()
            assert point.tolist() == [x + 0.5, y + 0.5]


def test_random_inner_points_are_inside_and_everywhere(rectangles) -> None:
    masks = rectangles(SIZE, (10, 20, 3, 2), (0, 0, 0, 0), (95, 63, 1, 1))
    points = random_inner_points(masks, 200, torch.Generator().manual_seed(1))
    assert points[1].isnan().all()
    assert {(x, y) for x, y in points[0].tolist()} == {
        (x + 0.5, y + 0.5) for x in (10, 11, 12) for y in (20, 21)
    }
    assert (points[2] == torch.tensor([95.5, 63.5])).all()
    again = random_inner_points(masks, 200, torch.Generator().manual_seed(1))
    assert torch.equal(points.nan_to_num(), again.nan_to_num())
