"""Masks that a person draws: rings and pixels, to and from run-length codes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data.masks.rle import BoolArray, decode, encode
from tasks.review.shapes import MOST_RINGS, from_png, from_rings, rings_of, to_png

HEIGHT, WIDTH = 30, 40
SQUARE = [(4.0, 3.0), (14.0, 3.0), (14.0, 23.0), (4.0, 23.0)]
HOLE = [(6.0, 5.0), (10.0, 5.0), (10.0, 9.0), (6.0, 9.0)]


def blank() -> BoolArray:
    return np.zeros((HEIGHT, WIDTH), np.bool_)


def ring_with_hole() -> BoolArray:
    mask = blank()
    mask[3:23, 4:14] = True
    mask[5:9, 6:10] = False
    return mask


def test_rings_are_drawn_along_the_edges_of_pixels() -> None:
    assert (decode(from_rings([SQUARE, HOLE], HEIGHT, WIDTH), HEIGHT, WIDTH) == ring_with_hole()).all()
    apart = [(x + 15, y) for x, y in SQUARE]
    two = decode(from_rings([SQUARE, apart], HEIGHT, WIDTH), HEIGHT, WIDTH)
    assert two.sum() == 400 and two[3:23, 19:29].all()
    over = [(-5.0, -5.0), (50.0, -5.0), (50.0, 2.0), (-5.0, 2.0)]  # over the border
    assert decode(from_rings([over], HEIGHT, WIDTH), HEIGHT, WIDTH).sum() == 2 * WIDTH


def test_a_mask_and_its_rings() -> None:
    mask = ring_with_hole()
    rings = rings_of(encode(mask), HEIGHT, WIDTH)
    assert len(rings) == 2 and sorted(map(tuple, np.round(rings[0]).tolist())) == sorted(SQUARE)
    assert from_rings(rings, HEIGHT, WIDTH) == encode(mask)
    assert rings_of(encode(blank()), HEIGHT, WIDTH) == [] and from_rings([], HEIGHT, WIDTH) == encode(blank())


@pytest.mark.parametrize(
    ("rings", "fault"),
    [
        ([SQUARE, SQUARE[:2]], "ring 1"),
        ([[(0.0, 0.0), (1e9, 0.0), (0.0, 5.0)]], "far outside"),
        ([SQUARE] * (MOST_RINGS + 1), "1001 rings"),
    ],
)
def test_rings_that_are_none(rings: list[list[tuple[float, float]]], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        from_rings(rings, HEIGHT, WIDTH)


def test_a_brush_changes_its_area_alone() -> None:
    mask, area = ring_with_hole(), (8, 2, 20, 9)
    png = to_png(encode(mask), HEIGHT, WIDTH, area)
    assert from_png(png, area, HEIGHT, WIDTH, encode(mask)) == encode(mask)
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None and pixels.shape == (9, 20) and set(np.unique(pixels)) == {0, 255}
    pixels[0, 19], pixels[8, 0], pixels[4, 5] = 128, 127, 200
    changed = cv2.imencode(".png", pixels)[1].tobytes()
    expected = mask.copy()
    expected[2, 27], expected[10, 8], expected[6, 13] = True, False, True
    assert from_png(changed, area, HEIGHT, WIDTH, encode(mask)) == encode(expected)
    alone = np.zeros_like(mask)
    alone[2:11, 8:28] = expected[2:11, 8:28]
    assert from_png(changed, area, HEIGHT, WIDTH, None) == encode(alone)


def test_pictures_that_are_no_brush() -> None:
    area = (0, 0, 20, 9)
    png = to_png(encode(blank()), HEIGHT, WIDTH, area)
    for bad, fault in (
        (b"", "expected a PNG"), (b"\xff\xd8\xff" + png, "expected a PNG"), (png[:30], "damaged"),
        (to_png(encode(blank()), HEIGHT, WIDTH, (0, 0, 9, 20)), "9 x 20 pixels, expected 20 x 9"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=fault):
            from_png(bad, area, HEIGHT, WIDTH, None)
