"""Fruit, as signed distances and colours.

Each function has the coordinates u, v [h, w] relative to the centre, in units of half the fruit's largest extent, and
returns the signed distance [h, w] to the outline, in the same unit and negative inside, and the colours [h, w, 3],
0 to 255, without light and shadow.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Floats = npt.NDArray[np.float32]


def apple(rng: Rng, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Round, with dents at stem and blossom; red, green or yellow, often with a blush."""
    skin = _pick(rng, ((190, 35, 40), (150, 25, 45), (130, 175, 60), (215, 185, 70)))
    blush = _near(rng, (200, 60, 45), 15)
    around = np.arctan2(v, -u)  # 0 towards the stem, which is at negative u
    dent, foot = np.exp(-((around / 0.38) ** 2)), np.exp(-(((np.abs(around) - np.pi) / 0.35) ** 2))
    radius = 0.88 - 0.2 * dent - 0.06 * foot
    distance = (np.hypot(u, v * rng.uniform(1.0, 1.08)) - radius) * 0.9
    red = np.clip(0.5 + 0.9 * (v * rng.choice([-1, 1]) + _streaks(rng, u, v)), 0, 1)
    colour = _mix(skin, blush, red * rng.uniform(0, 0.8))
    return _with_stem(distance, colour, u, v, -0.95, -0.55, rng.uniform(-0.1, 0.1))


def banana(rng: Rng, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """A tapered crescent with dark ends; yellow to green, with brown flecks."""
    skin = _pick(rng, ((235, 205, 70), (225, 190, 50), (185, 190, 70)))
    thick, half = rng.uniform(0.2, 0.26), rng.uniform(0.55, 0.85)
    # The middle line: an arc of `half` radians to each side, from u = -0.86 to 0.86, around (0, middle).
    side, radius = rng.choice([-1, 1]), 0.86 / np.sin(half)
    middle = side * radius * (1 + np.cos(half)) / 2
    angle = np.arctan2(u, side * (middle - v))
    beyond = angle - np.clip(angle, -half, half)
    away = np.hypot(u, v - middle) - radius
    ends = np.minimum(np.abs(angle) / half, 1)
    distance = np.hypot(away, beyond * radius) - thick * (1 - 0.65 * ends**3)
    ridge = 0.85 + 0.15 * np.clip(away / thick + 0.6, 0, 1)
    colour = _mix(
        skin * ridge[..., None], _near(rng, (95, 65, 30), 10), _speckles(rng, u, v, rng.uniform(0, 0.35))
    )
    tips = np.clip((np.abs(angle) / half - 0.97) * 12, 0, 1)
    return distance.astype(np.float32), _mix(colour, _near(rng, (80, 60, 35), 10), tips)


def pear(rng: Rng, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """A narrow neck on a round belly; green, yellow or brown, with pores."""
    skin = _pick(rng, ((150, 170, 60), (200, 185, 80), (160, 125, 65), (105, 150, 55)))
    belly, neck = rng.uniform(0.52, 0.6), rng.uniform(0.24, 0.32)
    # From the neck's end at u = -0.8 to the belly's at 0.97, with a waist.
    distance = _cone(0.97 - belly - u, v, belly, 1.77 - belly - neck, neck)
    distance += rng.uniform(0.05, 0.12) * np.exp(-(((u + 0.25) / 0.3) ** 2), dtype=np.float32)
    colour = _mix(skin, skin * 0.7, _speckles(rng, u, v, 0.25))
    return _with_stem(distance, colour, u, v, -0.97, -0.7, rng.uniform(-0.2, 0.2))


def strawberry(rng: Rng, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """A red cone with seeds, and a green calyx at its wide end."""
    skin = _pick(rng, ((205, 30, 40), (220, 55, 50), (175, 20, 35)))
    wide, tip = rng.uniform(0.5, 0.58), rng.uniform(0.14, 0.2)
    body = _cone(u + 0.8 - wide, v, wide, 1.76 - wide - tip, tip)
    rows = np.sin(u * 14 + rng.uniform(0, 6)) * np.sin(v * 14 + np.floor((u * 14) / np.pi) * np.pi / 2)
    colour = _mix(skin, _near(rng, (235, 200, 110), 10), np.clip((rows - 0.72) * 5, 0, 1))
    leaves = int(rng.integers(6, 9))
    around = np.arctan2(v, u + 0.66)
    calyx = (np.hypot(u + 0.66, v) - (0.24 + 0.11 * np.cos(leaves * around + rng.uniform(0, 6)))) * 0.75
    colour = _mix(colour, _near(rng, (70, 130, 45), 15), np.clip(0.5 - calyx / 0.06, 0, 1))
    return np.minimum(body, calyx).astype(np.float32), colour


FRUIT: dict[str, Callable[[Rng, Floats, Floats], tuple[Floats, Floats]]] = {
    fruit.__name__: fruit for fruit in (apple, banana, pear, strawberry)
}


def _near(rng: Rng, colour: tuple[int, int, int], spread: float) -> Floats:
    return np.asarray(colour + rng.normal(0, spread, 3), dtype=np.float32).clip(5, 250)


def _pick(rng: Rng, colours: tuple[tuple[int, int, int], ...]) -> Floats:
    return _near(rng, colours[int(rng.integers(len(colours)))], 14)


def _mix(one: Floats, other: Floats, share: Floats) -> Floats:
    """Colours [h, w, 3]: `share` [h, w] of the other."""
    return np.asarray(one + (other - one) * share[..., None], dtype=np.float32)


def _with_stem(
    distance: Floats, colour: Floats, u: Floats, v: Floats, start: float, stop: float, bend: float
) -> tuple[Floats, Floats]:
    """The fruit with a brown stem along u from `start` to `stop`."""
    along = np.clip(u, start, stop)
    stem = np.hypot(u - along, v - bend * (stop - along)) - 0.055
    brown = np.asarray([95, 65, 40], dtype=np.float32)
    return np.minimum(distance, stem).astype(np.float32), _mix(
        colour, brown, np.clip(0.5 - stem / 0.05, 0, 1)
    )


def _cone(u: Floats, v: Floats, wide: float, length: float, tip: float) -> Floats:
    """The hull of a circle of radius `wide` at the origin and one of radius `tip` at (length, 0)."""
    slope = (wide - tip) / length
    flank = np.sqrt(1 - slope**2)
    side = np.abs(v)
    k = u * flank - side * slope  # along the flank
    return np.asarray(
        np.where(
            k < 0, np.hypot(u, v) - wide,
            np.where(k > length * flank, np.hypot(u - length, v) - tip, side * flank + u * slope - wide),
        ),
        dtype=np.float32,
    )  # fmt: skip


def _coarse(rng: Rng, cells: tuple[int, int], u: Floats, v: Floats) -> Floats:
    """Smooth noise in [-1, 1] over -1 <= u, v <= 1, with so many cells along each."""
    grid = rng.uniform(-1, 1, (cells[1] + 2, cells[0] + 2)).astype(np.float32)
    x, y = ((one + 1) / 2 * count + 0.5 for one, count in ((u, cells[0]), (v, cells[1])))
    x, y = x.astype(np.float32), y.astype(np.float32)
    noise = cv2.remap(grid, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(noise, dtype=np.float32)


def _streaks(rng: Rng, u: Floats, v: Floats) -> Floats:
    """Noise that is long along u."""
    return 0.5 * _coarse(rng, (2, 14), u, v) + 0.5 * _coarse(rng, (2, 3), u, v)


def _speckles(rng: Rng, u: Floats, v: Floats, strength: float) -> Floats:
    """Small dots, as a share of another colour."""
    return np.clip((_coarse(rng, (20, 20), u, v) - 0.35) * 3, 0, 1) * np.float32(strength)
