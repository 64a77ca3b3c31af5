"""COCO segmentations as run-length codes: polygons, drawn as pycocotools does, and both kinds of RLE.

A polygon part is a flat list x0, y0, x1, y1, ... in pixels; (0, 0) is the outer corner of the top-left pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from data.masks.rle import FloatArray, check_rle, from_runs

MAX_OUTLINE = 10_000_000  # pixels along a polygon part; the rasteriser takes 40 bytes per pixel
REACH = 3  # largest distance of a vertex from 0, in sides of the image


def from_segmentation(segmentation: Any, height: int, width: int) -> bytes:
    """Compressed RLE of a COCO ``segmentation``: polygons, uncompressed RLE or compressed RLE.

    Raises:
        ValueError: what is wrong with it.
    """
    if isinstance(segmentation, list):
        return from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("neither polygons nor an RLE with size and counts")
    if segmentation["size"] not in ([height, width], (height, width)):
        raise ValueError(f"an RLE of size {segmentation['size']}, for [height, width] = [{height}, {width}]")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return from_runs(counts, height, width)
    if isinstance(counts, str):
        try:
            counts = counts.encode("ascii")
        except UnicodeEncodeError:
            raise ValueError("an RLE with characters outside '0'..'o'") from None
    if not isinstance(counts, bytes):
        raise ValueError(f"RLE counts of type {type(counts).__name__}")
    check_rle(counts, height, width)
    return counts


def from_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> bytes:
    """Compressed RLE of the union of polygon parts.

    Raises:
        ValueError: see `check_polygons`.
    """
    check_polygons(polygons, height, width)
    return draw_polygons([np.array(part, dtype=np.float64) for part in polygons], height, width)


def draw_polygons(parts: Sequence[FloatArray], height: int, width: int) -> bytes:
    """Compressed RLE of the union of parts that `check_polygons` accepts."""
    drawn = coco_mask.frPyObjects(parts, height, width)
    counts: bytes = (drawn[0] if len(drawn) == 1 else coco_mask.merge(drawn))["counts"]
    return counts


def check_polygons(polygons: Any, height: int, width: int) -> None:
    """Check COCO polygons: a list of parts, each of 3 or more vertices not far outside of the image.

    Raises:
        ValueError: what is wrong with them.
    """
    if not isinstance(polygons, list) or not polygons:
        raise ValueError("no polygon")
    for n, part in enumerate(polygons):
        if not isinstance(part, list) or len(part) % 2 or len(part) < 6:
            size = len(part) if isinstance(part, list) else type(part).__name__
            raise ValueError(f"part {n} with {size} numbers, not 3 or more pairs x, y")
        try:
            values = np.asarray(part)
        except (OverflowError, ValueError):  # such as lists of different lengths
            values = np.asarray(None)
        if values.ndim != 1 or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            raise ValueError(f"part {n} with a value that is not a finite number")
        # Annotators' polygons reach a little over the border. The rasteriser walks along edges pixel by pixel: one
        # absurd vertex would cost minutes and gigabytes.
        if np.abs(values).max() > REACH * max(height, width):
            raise ValueError(f"part {n} with a vertex far outside the {width} x {height} image")
        if len(part) * 2 * max(height, width) > MAX_OUTLINE and _outline(values) > MAX_OUTLINE:
            raise ValueError(
                f"part {n} with an outline of {_outline(values):.0f} pixels, above {MAX_OUTLINE}"
            )


def _outline(part: npt.NDArray[Any]) -> float:
    """Pixels that the rasteriser steps through along a closed part."""
    points = part.reshape(-1, 2).astype(np.float64)
    return float(np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum())
