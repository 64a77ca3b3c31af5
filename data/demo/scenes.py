"""Synthetic scenes: shapes on a textured ground, with the exact visible mask of each.

A shape is a signed distance function in pixels, negative inside. A pixel belongs to the last drawn object whose shape
contains its centre; colours are anti-aliased at the edges. The class is visible in the outline: texture, shading, size
and place have the same distribution for every class. So has colour, except for the share ``colour_cue`` of the objects,
whose colour is near that of their class, as cars are more often red than trees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

MIN_VISIBLE_PIXELS = 12
MIN_VISIBLE_SHARE = 0.4  # below it an annotator couldn't recognise the shape
PLACING_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Appearance of scenes; lengths in pixels, strengths as shares of the range 0-255."""

    image_size: int  # side of the square image
    shapes: tuple[str, ...]  # classes, names in SHAPES
    objects_min: int
    objects_max: int
    size_min: float  # largest extent of an object; log-uniform between the two
    size_max: float
    overlap: float  # share of objects placed on the edge of an earlier one
    contrast: float  # typical distance of an object's colour from that of the ground below it
    colour_cue: float  # share of the objects with about the colour of their class
    texture: float  # strength of the ground's and the objects' textures
    noise: float  # standard deviation of the pixel noise
    distractors: int  # largest number of marks on the ground that are no objects: smudges and scribbles


class Scene(NamedTuple):
    """An image, uint8 RGB [S, S, 3]; K visible masks, bool [K, S, S]; class index into shapes [K]."""

    image: npt.NDArray[np.uint8]
    masks: Bools
    classes: list[int]


# Shapes: signed distance [h, w] from a radius r (half the largest extent) and pixel coordinates u, v [h, w] relative to
# the centre.


def disc(rng: Rng, r: float, u: Floats, v: Floats) -> Floats:
    """A filled ellipse, up to 1.4 times as long as wide."""
    short = rng.uniform(0.7, 1.0)
    return (np.hypot(u, v / short) - r) * short


def ring(rng: Rng, r: float, u: Floats, v: Floats) -> Floats:
    """An ellipse with a hole."""
    short = rng.uniform(0.75, 1.0)
    inner = rng.uniform(0.4, 0.6) * r
    distance = np.hypot(u, v / short)
    return np.maximum(distance - r, inner - distance) * short


def star(rng: Rng, r: float, u: Floats, v: Floats) -> Floats:
    """A star of 4 to 6 points."""
    points = int(rng.integers(4, 7))
    angles = np.arange(2 * points) * np.pi / points
    radii = np.where(np.arange(2 * points) % 2, rng.uniform(0.35, 0.5) * r, r)
    return _polygon(radii * np.cos(angles), radii * np.sin(angles), u, v)


def bar(rng: Rng, r: float, u: Floats, v: Floats) -> Floats:
    """A thin rod with round ends, 5 to 10 times as long as wide, straight or a little bent."""
    half_width = max(rng.uniform(0.1, 0.2) * r, 1.0)
    half_length = max(r - half_width, 0.0)
    bend = rng.uniform(-0.25, 0.25) / max(half_length, 1.0)
    along = np.clip(u, -half_length, half_length)
    return np.hypot(u - along, v - bend * (along**2 - half_length**2 / 2)) - half_width


def block(rng: Rng, r: float, u: Floats, v: Floats) -> Floats:
    """A triangle or a quadrangle with straight edges."""
    corners = int(rng.integers(3, 5))
    angles = (np.arange(corners) + rng.uniform(-0.12, 0.12, corners)) * 2 * np.pi / corners
    radii = r * rng.uniform(0.85, 1.0, corners)
    return _polygon(radii * np.cos(angles), radii * np.sin(angles) * rng.uniform(0.7, 1.0), u, v)


SHAPES: dict[str, Callable[[Rng, float, Floats, Floats], Floats]] = {
    shape.__name__: shape for shape in (disc, ring, star, bar, block)
}


def _polygon(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], u: Floats, v: Floats) -> Floats:
    """Signed distance to a polygon: to the nearest edge, negative where a ray crosses an odd number of edges."""
    nearest = np.full(u.shape, np.inf)
    inside = np.zeros(u.shape, dtype=np.bool_)
    for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
        ex, ey = x1 - x0, y1 - y0
        t = np.clip(((u - x0) * ex + (v - y0) * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        nearest = np.minimum(nearest, np.hypot(u - x0 - t * ex, v - y0 - t * ey))
        spans = (y0 > v) != (y1 > v)
        inside ^= spans & (u < x0 + (v - y0) * ex / (ey if ey else 1.0))
    return np.where(inside, -nearest, nearest).astype(np.float32)


def _direction(rng: Rng) -> Floats:
    """A random direction in RGB, with the length of (1, 1, 1)."""
    colour = rng.normal(size=3)
    return (colour / np.linalg.norm(colour) * np.sqrt(3)).astype(np.float32)


def _smooth_noise(rng: Rng, height: int, width: int, cell: float) -> Floats:
    """Noise [height, width] in about [-1, 1] with features of ``cell`` pixels."""
    rows, columns = int(np.ceil(height / cell)) + 2, int(np.ceil(width / cell)) + 2
    coarse = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    fine = cv2.resize(coarse, (int(columns * cell) + 1, int(rows * cell) + 1), interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine[:height, :width], dtype=np.float32)


def _stripes(rng: Rng, u: Floats, v: Floats) -> Floats:
    """Stripes in [-1, 1] of random direction and spacing."""
    angle, spacing, phase = rng.uniform(0, np.pi), rng.uniform(3, 12), rng.uniform(0, 2 * np.pi)
    along = u * np.cos(angle) + v * np.sin(angle)
    return np.sin(along * (2 * np.pi / spacing) + phase).astype(np.float32)


def _texture(rng: Rng, height: int, width: int) -> Floats:
    """A texture [height, width, 3] in about [-1, 1]: blotches of a few sizes and, often, stripes."""
    v, u = np.mgrid[:height, :width].astype(np.float32)
    parts = [
        _smooth_noise(rng, height, width, cell)[..., None] * _direction(rng) * weight
        for cell, weight in ((24.0, 0.6), (9.0, 0.4), (3.0, 0.3))
    ]
    if rng.random() < 0.5:
        parts.append(_stripes(rng, u, v)[..., None] * _direction(rng) * 0.4)
    total: Floats = np.sum(parts, axis=0, dtype=np.float32)
    return total


def _ground(rng: Rng, config: SceneConfig) -> Floats:
    """The ground [S, S, 3]: a colour, a slow gradient, a texture, and distractors on it."""
    size = config.image_size
    ground = np.broadcast_to(rng.uniform(60, 195, 3).astype(np.float32), (size, size, 3)).copy()
    ground += _smooth_noise(rng, size, size, size / 2)[..., None] * _direction(rng) * 30
    ground += 255 * config.texture * _texture(rng, size, size)
    for _ in range(int(rng.integers(config.distractors + 1))):
        colour = _direction(rng) * 255 * config.contrast * rng.uniform(0.5, 1.5)
        mark = _smudge(rng, size) if rng.random() < 0.5 else _scribble(rng, size)
        ground += mark[..., None] * colour
    return ground


def _smudge(rng: Rng, size: int) -> Floats:
    """A blurred spot [size, size] in [0, 1], without an outline."""
    v, u = np.mgrid[:size, :size].astype(np.float32)
    x, y = rng.uniform(0, size, 2)
    width, height = rng.uniform(0.04, 0.15, 2) * size
    return np.exp(-(((u - x) / width) ** 2) - ((v - y) / height) ** 2).astype(np.float32)


def _scribble(rng: Rng, size: int) -> Floats:
    """A winding line [size, size] in [0, 1], longer and thinner than any bar."""
    steps, turn = int(rng.integers(12, 30)), rng.normal(0, 0.7, 30)
    heading = np.cumsum(turn)[:steps] + rng.uniform(0, 2 * np.pi)
    path = rng.uniform(0, size, 2) + np.cumsum(
        np.stack([np.cos(heading), np.sin(heading)], axis=1) * size / 20, axis=0
    )
    mark = np.zeros((size, size), dtype=np.uint8)
    # Coordinates in 1/16 pixel: OpenCV's shift is 4.
    cv2.polylines(mark, [np.round(path * 16).astype(np.int32)], False, 255, 1, cv2.LINE_AA, 4)
    return mark.astype(np.float32) / np.float32(255)


def _class_colour(rng: Rng, chosen: int, classes: int) -> Floats:
    """A colour near that of the class: evenly spaced hues, with a wide spread of hue and lightness."""
    hue = 2 * np.pi * (chosen + rng.normal(0, 0.15)) / classes
    chroma = np.cos(hue + np.asarray([0.0, -2.0, 2.0]) * np.pi / 3)
    return (128 + rng.normal(0, 25) + rng.uniform(45, 85) * chroma).astype(np.float32)


def _paint(
    rng: Rng, canvas: Floats, distance: Floats, radius: float, chosen: int, config: SceneConfig
) -> None:
    """Draw one object onto the canvas, given its signed distance over the whole canvas [S, S]."""
    rows, columns = np.nonzero(distance < 1.0)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    cover = np.clip(0.5 - distance[box], 0, 1)[..., None]
    patch = canvas[box]

    if rng.random() < 0.3:  # a soft shadow next to the object; it is part of the ground
        shift = (0.15 * radius + 1) * np.asarray([np.cos(a := rng.uniform(0, 2 * np.pi)), np.sin(a)])
        move = np.asarray([[1, 0, shift[0]], [0, 1, shift[1]]], dtype=np.float32)
        shadow = np.clip(0.5 - distance / (1 + 0.1 * radius), 0, 1)
        shadow = cv2.warpAffine(shadow, move, shadow.shape[::-1])
        canvas *= (1 - 0.25 * shadow)[..., None]

    beneath = (patch * cover).sum(axis=(0, 1)) / max(float(cover.sum()), 1e-6)
    step = _direction(rng) * 255 * config.contrast * rng.uniform(0.6, 1.6)
    if rng.random() < config.colour_cue:
        away = _class_colour(rng, chosen, len(config.shapes)) - beneath
        # At least as long as the random step, so that the contrast doesn't depend on the cue.
        length, least = (float(np.linalg.norm(x)) for x in (away, step))
        step = away * max(1.0, least / max(length, 1e-6))
    # Invert the step of a channel that would leave the range: clipping would reduce the contrast.
    step = np.where((beneath + step < 15) | (beneath + step > 240), -step, step)

    height, width = cover.shape[:2]
    colour = beneath + step + 255 * config.texture * rng.uniform(0.2, 1.0) * _texture(rng, height, width)
    v, u = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = (u - width / 2) * np.cos(angle) + (v - height / 2) * np.sin(angle)
    colour *= (1 + rng.uniform(0, 0.25) * light / max(height, width) * 2)[..., None]
    canvas[box] = patch * (1 - cover) + colour * cover


def draw_scene(rng: Rng, config: SceneConfig) -> Scene:
    """Draw one scene; all randomness comes from ``rng``.

    An object is left out if no place is found where it and all earlier ones are recognisable, with at least
    ``MIN_VISIBLE_PIXELS`` and ``MIN_VISIBLE_SHARE`` of each visible. So no object of the image is unlabelled.
    """
    size = config.image_size
    canvas = _ground(rng, config)
    # Full areas are counted on a wider canvas, so that pixels beyond the border count as hidden.
    margin = int(np.ceil(config.size_max))
    wide_v, wide_u = np.mgrid[-margin : size + margin, -margin : size + margin].astype(np.float32) + 0.5
    inner = np.s_[margin : margin + size, margin : margin + size]

    masks: list[Bools] = []
    full_areas: list[int] = []
    classes: list[int] = []
    placed: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(config.objects_min, config.objects_max + 1))):
        chosen = int(rng.integers(len(config.shapes)))
        radius = float(np.exp(rng.uniform(np.log(config.size_min), np.log(config.size_max)))) / 2
        angle = rng.uniform(0, 2 * np.pi)
        form = int(rng.integers(2**32))  # seed of the outline, the same at each try
        for _ in range(PLACING_TRIES):
            x, y = _place(rng, radius, placed, config)
            reach = radius + 2
            near = (
                slice(max(int(y - reach) + margin, 0), int(y + reach) + margin + 1),
                slice(max(int(x - reach) + margin, 0), int(x + reach) + margin + 1),
            )
            du, dv = wide_u[near] - x, wide_v[near] - y
            distance = np.full(wide_u.shape, np.inf, dtype=np.float32)
            distance[near] = SHAPES[config.shapes[chosen]](
                np.random.default_rng(form),
                radius,
                du * np.cos(angle) + dv * np.sin(angle),
                dv * np.cos(angle) - du * np.sin(angle),
            )
            mask = distance[inner] < 0
            full = int(np.count_nonzero(distance < 0))
            left = [earlier & ~mask for earlier in masks]
            if all(_is_visible(m, f) for m, f in zip([*left, mask], [*full_areas, full], strict=True)):
                masks, full_areas = [*left, mask], [*full_areas, full]
                classes.append(chosen)
                placed.append((x, y, radius))
                _paint(rng, canvas, distance[inner], radius, chosen, config)
                break

    blurred = cv2.GaussianBlur(canvas, (0, 0), sigmaX=rng.uniform(0.3, 0.7))
    noise = rng.normal(0, 255 * config.noise * rng.uniform(0.5, 1.0), canvas.shape)
    noisy = (blurred + noise).astype(np.float32)
    image = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
    stacked = np.stack(masks) if masks else np.zeros((0, size, size), dtype=np.bool_)
    return Scene(image, stacked, classes)


def _place(
    rng: Rng, radius: float, placed: list[tuple[float, float, float]], config: SceneConfig
) -> tuple[float, float]:
    """A centre x, y: anywhere in the image, or for the share ``overlap`` near the edge of an earlier object."""
    x, y = rng.uniform(0, config.image_size, 2)
    if placed and rng.random() < config.overlap:
        other_x, other_y, other_radius = placed[int(rng.integers(len(placed)))]
        angle = rng.uniform(0, 2 * np.pi)
        away = (radius + other_radius) * rng.uniform(0.4, 0.9)
        x, y = other_x + away * np.cos(angle), other_y + away * np.sin(angle)
    return float(np.clip(x, 0, config.image_size)), float(np.clip(y, 0, config.image_size))


def _is_visible(mask: Bools, full_area: int) -> bool:
    visible = int(np.count_nonzero(mask))
    return visible >= max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * full_area)
