from __future__ import annotations

import cv2
import numpy as np
import pytest

from data.demo.fruit import FRUIT

SIDE, RADIUS = 140, 60


def draw(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The mask [140, 140] and the colours [140, 140, 3] of a fruit 120 pixels long, its axis along x."""
    v, u = (np.mgrid[:SIDE, :SIDE].astype(np.float32) - (SIDE - 1) / 2) / RADIUS
    distance, colour = FRUIT[name](np.random.default_rng(seed), u, v)
    assert distance.shape == (SIDE, SIDE) and colour.shape == (SIDE, SIDE, 3)
    return distance < 0, colour


@pytest.mark.parametrize("name", FRUIT)
def test_a_fruit_is_one_piece_that_fills_its_size_and_no_more(name: str) -> None:
    for seed in range(30):
        mask, colour = draw(name, seed)
        contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        assert len(contours) == 1 and tree[0][0][3] == -1  # one outline, no hole
        rows, columns = np.nonzero(mask)
        reach = np.hypot(rows - (SIDE - 1) / 2, columns - (SIDE - 1) / 2).max()
        assert 0.85 * RADIUS <= reach <= 1.08 * RADIUS
        assert colour[mask].min() >= 0 and colour[mask].max() <= 255


@pytest.mark.parametrize(
    ("name", "thinnest", "widest"),
    [
        ("apple", 0.78, 1.0),
        ("pear", 0.5, 0.68),
        ("strawberry", 0.5, 0.75),
        ("banana", 0.25, 0.55),
    ],
)
def test_the_ratio_of_the_sides_is_the_fruit_s(name: str, thinnest: float, widest: float) -> None:
    for seed in range(30):
        (outline,), _ = cv2.findContours(
            draw(name, seed)[0].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        short, long = sorted(cv2.minAreaRect(outline)[1])
        assert thinnest <= short / long <= widest


def test_a_banana_is_bent_and_a_pear_has_a_waist() -> None:
    for seed in range(30):
        filled = []
        for name in ("banana", "pear", "apple"):
            mask = draw(name, seed)[0]
            (outline,), _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            filled.append(mask.sum() / cv2.contourArea(cv2.convexHull(outline)))
        banana, pear, apple = filled
        assert banana < 0.94 and pear < 0.985 and apple > 0.94


def test_colours_are_the_fruit_s() -> None:
    for seed in range(30):
        red, green, blue = (channel.T for channel in (draw("strawberry", seed)[1].transpose(2, 1, 0)))
        mask = draw("strawberry", seed)[0]
        assert np.mean((red > 2 * green)[mask]) > 0.5  # the berry
        assert np.mean((green > 1.2 * red)[mask]) > 0.03  # the calyx
        mask, colour = draw("banana", seed)
        red, green, blue = colour[mask].mean(axis=0)
        assert min(red, green) > 1.4 * blue
