"""Tables that fruit is put on: wood, cloth, stone or paint, with stains and crumbs."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Floats = npt.NDArray[np.float32]


def draw_ground(rng: Rng, size: int, distractors: int) -> Floats:
    """A table [size, size, 3], 0 to 255, with up to so many stains and crumbs, under light of uneven strength."""
    kind = (_wood, _cloth, _stone, _paint)[int(rng.integers(4))]
    turn = rng.uniform(0, 2 * np.pi)
    v, u = np.mgrid[:size, :size].astype(np.float32) - size / 2
    ground = kind(rng, u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn), size)
    for _ in range(int(rng.integers(distractors + 1))):
        mark = _stain(rng, size) if rng.random() < 0.5 else _crumb(rng, size)
        ground += (_colour(rng) - ground) * mark[..., None]
    ground *= (1 + 0.2 * _noise(rng, (size, size), size / 2))[..., None]
    return np.asarray(np.clip(ground, 5, 250), dtype=np.float32)


def _colour(rng: Rng) -> Floats:
    """Any colour of middling strength and lightness."""
    grey, strength = rng.uniform(60, 210), rng.uniform(0, 45)
    hue = rng.uniform(0, 2 * np.pi) + np.asarray([0.0, -2.0, 2.0]) * np.pi / 3
    return np.asarray(grey + strength * np.cos(hue), dtype=np.float32).clip(15, 240)


def _noise(rng: Rng, shape: tuple[int, int], cell: float) -> Floats:
    """Noise [height, width] in about [-1, 1] with features of ``cell`` pixels."""
    rows, columns = (int(np.ceil(side / cell)) + 2 for side in shape)
    coarse = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    fine = cv2.resize(coarse, (int(columns * cell) + 1, int(rows * cell) + 1), interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine[: shape[0], : shape[1]], dtype=np.float32)


def _lines(rng: Rng, u: Floats, cell: float) -> Floats:
    """Noise in [-1, 1] that varies along u only."""
    values = rng.uniform(-1, 1, int(np.ceil(np.ptp(u) / cell)) + 3)
    return np.interp(u, u.min() + cell * (np.arange(len(values)) - 1), values).astype(np.float32)


def _wood(rng: Rng, u: Floats, v: Floats, size: int) -> Floats:
    """Planks along v with grain."""
    base = np.asarray([(150, 105, 65), (185, 145, 100), (95, 65, 45), (205, 180, 145)][int(rng.integers(4))])
    base = base + rng.normal(0, 12, 3)
    wavy = u + 3 * _noise(rng, (size, size), size / 3)
    grain = 0.5 * _lines(rng, wavy, 5) + 0.5 * _lines(rng, wavy, 1.7)
    plank = (u + rng.uniform(0, size)) / (width := rng.uniform(0.22, 0.5) * size)
    tone = rng.normal(0, 0.07, 64)[np.floor(plank).astype(np.int64) % 64]
    gap = np.where(np.abs(plank - np.round(plank)) * width < 0.7, 0.6, 1.0)
    return np.asarray(base * ((1 + 0.13 * grain + tone) * gap)[..., None], dtype=np.float32)


def _cloth(rng: Rng, u: Floats, v: Floats, size: int) -> Floats:
    """Checks or stripes of two colours, woven."""
    one, two = _colour(rng), _colour(rng) if rng.random() < 0.5 else np.full(3, 225, dtype=np.float32)
    width = rng.uniform(0.05, 0.14) * size
    share = (np.floor(u / width) % 2 + (np.floor(v / width) % 2 if rng.random() < 0.6 else 0)) / 2
    woven = 1 + 0.05 * np.sin(u * 2.4) * np.sin(v * 2.4) + 0.07 * _noise(rng, (size, size), size / 5)
    return np.asarray((one + (two - one) * share[..., None]) * woven[..., None], dtype=np.float32)


def _stone(rng: Rng, u: Floats, v: Floats, size: int) -> Floats:
    """Speckles of a few sizes, and veins."""
    cloud = 0.5 * _noise(rng, (size, size), size / 4) + 0.5 * _noise(rng, (size, size), size / 12)
    veins = np.clip(1 - np.abs(np.sin(u / size * rng.uniform(4, 9) + 2.5 * cloud)) * 9, 0, 1)
    speckles = 0.6 * _noise(rng, (size, size), 2.0) + 0.4 * _noise(rng, (size, size), 4.5)
    tone = 1 + 0.12 * cloud + rng.uniform(0.05, 0.2) * speckles + rng.uniform(-0.3, 0.3) * veins
    return np.asarray(_colour(rng) * tone[..., None], dtype=np.float32)


def _paint(rng: Rng, u: Floats, v: Floats, size: int) -> Floats:
    """One colour with brush strokes along v."""
    strokes = _lines(rng, u + 2 * _noise(rng, (size, size), size / 2), 2.5)
    tone = 1 + 0.07 * strokes + 0.05 * _noise(rng, (size, size), size / 6)
    return np.asarray(_colour(rng) * tone[..., None], dtype=np.float32)


def _stain(rng: Rng, size: int) -> Floats:
    """A ring that a cup left, or a blurred spot [size, size] in [0, 1]."""
    v, u = np.mgrid[:size, :size].astype(np.float32)
    x, y = rng.uniform(0, size, 2)
    away, radius = np.hypot(u - x, v - y), rng.uniform(0.08, 0.22) * size
    if rng.random() < 0.5:
        return np.asarray(0.45 * np.exp(-(((away - radius) / (0.015 * size)) ** 2)), dtype=np.float32)
    return np.asarray(0.4 * np.exp(-((away / radius) ** 2)), dtype=np.float32)


def _crumb(rng: Rng, size: int) -> Floats:
    """Crumbs [size, size] in [0, 1], around a place."""
    mark = np.zeros((size, size), dtype=np.float32)
    spots = rng.uniform(0, size, 2) + rng.normal(0, 0.1 * size, (int(rng.integers(3, 12)), 2))
    for x, y in spots:
        # Coordinates in 1/16 pixel: OpenCV's shift is 4.
        radius = rng.uniform(0.006, 0.016) * size
        cv2.circle(mark, (int(x * 16), int(y * 16)), int(radius * 16), 0.8, -1, cv2.LINE_AA, 4)
    return mark
