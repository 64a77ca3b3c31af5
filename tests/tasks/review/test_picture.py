from __future__ import annotations

import cv2
import numpy as np
import pytest

from data.masks.rle import encode
from tasks.review.picture import EXACT_UP_TO, LEAST_SIDE, Window, paths, window_around


@pytest.mark.parametrize(
    ("box", "click", "size", "expected"),
    [
        ((100, 100, 60, 40), None, (400, 300), (70, 80, 120, 80)),  # twice the box
        ((100, 100, 200, 10), None, (400, 300), (0, 5, 400, 200)),  # no slit
        ((0, 0, 100, 100), None, (400, 300), (0, 0, 200, 200)),  # moved into the image
        ((380, 280, 8, 8), None, (400, 300), (336, 236, LEAST_SIDE, LEAST_SIDE)),
        ((0, 0, 40, 40), None, (50, 30), (0, 0, 50, 30)),  # larger than the image
        ((0, 0, 0, 0), (10, 200), (400, 300), (0, 168, 64, 64)),  # no mask
        ((0, 0, 0, 0), (1000, 900), (2000, 1000), (850, 700, 300, 300)),
        ((0, 0, 0, 0), None, (400, 300), (168, 118, 64, 64)),  # nor a click
    ],
)
def test_windows(
    box: Window, click: tuple[float, float] | None, size: tuple[int, int], expected: Window
) -> None:
    assert window_around(box, click, *size) == expected


def filled(path: str, height: int, width: int, fine: int = 4) -> np.ndarray:
    """The pixels of an SVG path's rings by the rule even-odd, at the centres of pixels."""
    rings = [
        np.array([[float(v) for v in corner.split()] for corner in ring.split("L")]) * fine
        for ring in path.removesuffix("Z").removeprefix("M").split("ZM")
    ]
    drawn = np.zeros((height * fine, width * fine), np.uint8)
    for ring in rings:
        one = np.zeros_like(drawn)
        cv2.fillPoly(one, [(ring - 0.5).round().astype(np.int32)], 1)
        drawn ^= one
    return drawn[fine // 2 :: fine, fine // 2 :: fine].astype(bool)


def test_outlines_follow_the_mask_with_its_holes_and_parts() -> None:
    mask = np.zeros((200, 300), bool)
    mask[20:90, 30:100] = True
    mask[40:60, 50:80] = False
    mask[100:130, 40:52] = True
    (path,) = paths([encode(mask)], 200, 300, (20, 10, 120, 140))
    assert (filled(path, 200, 300) == mask).mean() > 0.997 and path.count("M") == 3
    # Only what is in the window; "" for a mask that isn't.
    other = np.zeros((200, 300), bool)
    other[150:190, 200:290] = True
    found, none = paths([encode(mask), encode(other)], 200, 300, (90, 10, 60, 60))
    left = min(float(one.split()[0]) for one in found[1:-1].split("L"))
    assert none == "" and left == pytest.approx(90, abs=0.2)


def test_large_windows_are_traced_coarser_and_stay_in_place() -> None:
    mask = np.zeros((3000, 4000), np.uint8)
    cv2.circle(mask, (2100, 1500), 900, 1, -1)
    (path,) = paths([encode(mask.view(bool))], 3000, 4000, (0, 0, 4000, 3000))
    assert len(path) < 20_000
    drawn = filled(path, 3000, 4000, fine=1)
    both, either = (drawn & mask.view(bool)).sum(), (drawn | mask.view(bool)).sum()
    assert both / either > 0.99
    assert EXACT_UP_TO < 3000
