"""Drawn scenes: fruit on a table, seen from above, with the exact visible mask of each piece.

A pixel belongs to the last drawn piece whose outline contains its centre; colours are anti-aliased at the edges. The
class is visible in the outline and the colours; size, place, direction and ground have the same distribution for every
class. Fruit are drawn by data/demo/fruit.py, tables by data/demo/grounds.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from data.demo.fruit import FRUIT
from data.demo.grounds import draw_ground

Rng = np.random.Generator
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

MIN_VISIBLE_PIXELS = 12
MIN_VISIBLE_SHARE = 0.5  # below it an annotator couldn't recognise the fruit
PLACING_TRIES = 20
AMBIENT = 0.55  # brightness of a fruit's side that the light doesn't reach
SHADOW = 0.4  # share of the light that a shadow takes


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """Appearance of scenes; lengths in pixels, strengths as shares of the range 0-255."""

    image_size: int  # side of the square image
    classes: tuple[str, ...]  # names in FRUIT
    objects_min: int
    objects_max: int
    size_min: float  # largest extent of an object; log-uniform between the two
    size_max: float
    overlap: float  # share of objects placed on the edge of an earlier one
    noise: float  # standard deviation of the pixel noise
    distractors: int  # largest number of stains and crumbs on the table


class Scene(NamedTuple):
    """An image, uint8 RGB [S, S, 3]; K visible masks, bool [K, S, S]; index into `SceneConfig.classes` [K]."""

    image: npt.NDArray[np.uint8]
    masks: Bools
    classes: list[int]


def draw_scene(rng: Rng, config: SceneConfig) -> Scene:
    """Draw one scene; all randomness comes from ``rng``.

    An object is left out if no place is found where it and all earlier ones are recognisable, with at least
    ``MIN_VISIBLE_PIXELS`` and ``MIN_VISIBLE_SHARE`` of each visible. So no object of the image is unlabelled.
    """
    size = config.image_size
    canvas = draw_ground(rng, size, config.distractors)
    towards = rng.uniform(0, 2 * np.pi)
    light = np.asarray([np.cos(towards), np.sin(towards)], dtype=np.float32)

    masks: list[Bools] = []
    full_areas: list[int] = []
    classes: list[int] = []
    placed: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(config.objects_min, config.objects_max + 1))):
        chosen = int(rng.integers(len(config.classes)))
        radius = float(np.exp(rng.uniform(np.log(config.size_min), np.log(config.size_max)))) / 2
        angle = rng.uniform(0, 2 * np.pi)
        form = int(rng.integers(2**32))  # seed of outline and colours, the same at each try
        for _ in range(PLACING_TRIES):
            x, y = _place(rng, radius, placed, config)
            # The whole piece, so that pixels beyond the border count as hidden.
            reach = int(np.ceil(radius)) + 2
            left, top = int(x) - reach, int(y) - reach
            v, u = np.mgrid[: 2 * reach + 1, : 2 * reach + 1].astype(np.float32) + 0.5
            u, v = (u + left - x) / radius, (v + top - y) / radius
            distance, colour = FRUIT[config.classes[chosen]](
                np.random.default_rng(form),
                u * np.cos(angle) + v * np.sin(angle),
                v * np.cos(angle) - u * np.sin(angle),
            )
            rows, columns = (slice(max(at, 0), min(at + 2 * reach + 1, size)) for at in (top, left))
            inside = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            mask = np.zeros((size, size), dtype=np.bool_)
            mask[rows, columns] = distance[inside] < 0
            full = int(np.count_nonzero(distance < 0))
            remaining = [earlier & ~mask for earlier in masks]
            if all(_is_visible(m, f) for m, f in zip([*remaining, mask], [*full_areas, full], strict=True)):
                masks, full_areas = [*remaining, mask], [*full_areas, full]
                classes.append(chosen)
                placed.append((x, y, radius))
                _shade(canvas, distance * radius, radius, (left, top), light)
                lit = _lit(distance * radius, colour, radius, light)
                cover = np.clip(0.5 - distance * radius, 0, 1)[inside][..., None]
                canvas[rows, columns] += (lit[inside] - canvas[rows, columns]) * cover
                break

    blurred = cv2.GaussianBlur(canvas, (0, 0), sigmaX=rng.uniform(0.3, 0.6))
    noise = rng.normal(0, 255 * config.noise * rng.uniform(0.5, 1.0), canvas.shape)
    image = np.clip(np.round(blurred + noise), 0, 255).astype(np.uint8)
    stacked = np.stack(masks) if masks else np.zeros((0, size, size), dtype=np.bool_)
    return Scene(image, stacked, classes)


def _shade(canvas: Floats, distance: Floats, radius: float, at: tuple[int, int], light: Floats) -> None:
    """Darken the table, or what lies on it, on the side away from the light."""
    shadow = np.clip(0.5 - distance / (0.25 * radius + 1), 0, 1)
    # From the patch's pixels to the canvas's.
    shift = np.asarray(at, dtype=np.float32) - light * (0.22 * radius + 1)
    move = np.asarray([[1, 0, shift[0]], [0, 1, shift[1]]], dtype=np.float32)
    canvas *= (1 - SHADOW * cv2.warpAffine(shadow, move, canvas.shape[1::-1]))[..., None]


def _lit(distance: Floats, colour: Floats, radius: float, light: Floats) -> Floats:
    """The colours [h, w, 3] of a round body under the light, with a highlight."""
    depth = np.clip(-distance / (0.55 * radius), 0, 1)  # 0 at the outline, 1 where the surface is level
    slope_y, slope_x = np.gradient(cv2.GaussianBlur(distance, (0, 0), sigmaX=max(0.06 * radius, 0.5)))
    side = (1 - depth) * (slope_x * light[0] + slope_y * light[1])
    level = np.sqrt(np.clip(1 - (1 - depth) ** 2, 0, 1))
    diffuse = np.clip(0.75 * level + 0.6 * side, 0, 1.2)
    shine = np.clip(0.8 * level + 0.6 * side, 0, 1) ** 16
    return np.asarray(
        colour * (AMBIENT + (1 - AMBIENT) * diffuse)[..., None] + 60 * shine[..., None], dtype=np.float32
    )


def _place(
    rng: Rng, radius: float, placed: list[tuple[float, float, float]], config: SceneConfig
) -> tuple[float, float]:
    """A centre x, y: anywhere in the image, or for the share ``overlap`` near the edge of an earlier object."""
    low, high = 0.5 * radius, config.image_size - 0.5 * radius
    x, y = rng.uniform(low, high, 2)
    if placed and rng.random() < config.overlap:
        other_x, other_y, other_radius = placed[int(rng.integers(len(placed)))]
        angle = rng.uniform(0, 2 * np.pi)
        away = (radius + other_radius) * rng.uniform(0.5, 0.9)
        x, y = other_x + away * np.cos(angle), other_y + away * np.sin(angle)
    return float(np.clip(x, low, high)), float(np.clip(y, low, high))


def _is_visible(mask: Bools, full_area: int) -> bool:
    visible = int(np.count_nonzero(mask))
    return visible >= max(MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE * full_area)
