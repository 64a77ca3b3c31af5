"""Clicks sampled from masks, for experiments: where an annotator might have clicked on an object.

Points are x, y in pixels; (0, 0) is the outer corner of the top-left pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from data.masks import rle

ClickKind = Literal["centre", "random", "jittered"]
CLICK_KINDS: tuple[ClickKind, ...] = get_args(ClickKind)

DRAWS = 32
"""Draws of a jittered click before it is moved onto the object."""


def draw_click(
    counts: bytes, height: int, kind: ClickKind, jitter: float, rng: np.random.Generator
) -> tuple[float, float] | None:
    """A point x, y on the object; None for an empty mask.

    - centre: the centre of mass, or if that isn't on the object (a C, a ring) the centre of the nearest pixel of the
      object;
    - random: the centre of a pixel of the object, uniformly drawn;
    - jittered: the centre plus a Gaussian whose deviation is `jitter` times the object's size, the square root of its
      box's area; a draw that misses the object is repeated, at most `DRAWS` times.

    Args:
        counts: compressed RLE of the mask.
        height: of the image, pixels.
        jitter: not used by the other kinds.
    """
    rows, columns = rle.object_pixels(counts, height)
    if not rows.size:
        return None
    if kind == "random":
        n = int(rng.integers(rows.size))
        return float(columns[n]) + 0.5, float(rows[n]) + 0.5
    flat = columns * height + rows  # ascending

    def contains(x: float, y: float) -> bool:
        column, row = math.floor(x), math.floor(y)
        at = int(np.searchsorted(flat, column * height + row))
        return 0 <= row < height and at < flat.size and int(flat[at]) == column * height + row

    def nearest(x: float, y: float) -> tuple[float, float]:
        n = int(np.argmin((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2))
        return float(columns[n]) + 0.5, float(rows[n]) + 0.5

    centre = float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
    if not contains(*centre):
        centre = nearest(*centre)
    if kind == "centre":
        return centre
    size = math.sqrt((np.ptp(columns) + 1) * (np.ptp(rows) + 1))
    tries = np.asarray(centre) + rng.normal(scale=jitter * size, size=(DRAWS, 2))
    return next((point for point in map(tuple, tries.tolist()) if contains(*point)), nearest(*tries[0]))


def random_inner_point(mask: rle.BoolArray, rng: np.random.Generator) -> tuple[float, float]:
    """A point x, y, uniform over the object's area: the centre of a pixel, moved by up to half a pixel.

    Raises:
        ValueError: the mask is empty.
    """
    inner = np.flatnonzero(mask)
    if inner.size == 0:
        raise ValueError("an empty mask has no inner point")
    row, column = divmod(int(inner[rng.integers(inner.size)]), mask.shape[1])
    dx, dy = rng.random(2)
    return column + float(dx), row + float(dy)


def click_rng(seed: int, annotation_id: int) -> np.random.Generator:
    """The random stream of one object's click; it depends on no other object, so it is the same in every split."""
    digest = hashlib.sha256(f"click:{seed}:{annotation_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))


def click_record(annotation: Mapping[str, Any], x: float, y: float) -> dict[str, Any]:
    """A click in the format of the COCO point importer, with the id, image and class of its object."""
    click = {name: annotation[name] for name in ("id", "image_id", "category_id")}
    # Rounded down, so that it stays in its pixel.
    return click | {"point": [math.floor(x * 1000) / 1000, math.floor(y * 1000) / 1000]}
