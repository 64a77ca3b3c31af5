"""Masks as a person draws them: rings of a polygon and pixels of a brush, to and from run-length codes.

Places are x, y in pixels of the image; (0, 0) is the outer corner of its top left pixel. An area is x, y, width, height
in whole pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from data.masks.outlines import outlines
from data.masks.polygons import from_polygons
from data.masks.rle import BoolArray, decode, encode

Area = tuple[int, int, int, int]
Ring = Sequence[tuple[float, float]]

TOLERANCE = 0.4
"""Pixels by which a ring that is shown may deviate from the pixels' edges."""
MOST_RINGS = 1000


def rings_of(counts: bytes, height: int, width: int, tolerance: float = TOLERANCE) -> list[list[list[float]]]:
    """The rings around a mask of an image of height x width pixels, and around its holes: [rings, corners, 2]."""
    return [ring.round(2).tolist() for ring in outlines(decode(counts, height, width), tolerance)]


def from_rings(rings: Sequence[Ring], height: int, width: int) -> bytes:
    """Compressed RLE of what is inside an odd number of the rings: one within another is a hole.

    Raises:
        ValueError: a ring of less than 3 corners, or with a corner far outside of the image; too many rings.
    """
    if len(rings) > MOST_RINGS:
        raise ValueError(f"found {len(rings)} rings, expected at most {MOST_RINGS}")
    mask = np.zeros((height, width), np.bool_)
    for n, ring in enumerate(rings):
        try:
            code = from_polygons([[float(value) for corner in ring for value in corner]], height, width)
        except ValueError as error:
            raise ValueError(f"ring {n}: {error}") from None
        mask ^= decode(code, height, width)
    return encode(mask)


def to_png(counts: bytes, height: int, width: int, area: Area) -> bytes:
    """The pixels of a mask in an area as a grey PNG: 255 is the object, 0 is not."""
    x, y, w, h = area
    pixels = decode(counts, height, width)[y : y + h, x : x + w]
    done, code = cv2.imencode(".png", np.ascontiguousarray(pixels).view(np.uint8) * np.uint8(255))
    if not done:
        raise ValueError(f"a mask of shape {pixels.shape} can't be encoded as PNG")
    return code.tobytes()


def from_png(png: bytes, area: Area, height: int, width: int, outside: bytes | None) -> bytes:
    """Compressed RLE of a mask whose pixels in an area a PNG has: 128 and more is the object.

    Args:
        outside: a mask that holds outside of the area; None: there is nothing.

    Raises:
        ValueError: not a PNG of the area's size.
    """
    x, y, w, h = area
    # The size is read before memory is taken for it.
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise ValueError(f"found {png[:8]!r}, expected a PNG")
    size = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    if size != (w, h):
        raise ValueError(f"found {size[0]} x {size[1]} pixels, expected {w} x {h}, the area's")
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None or pixels.shape != (h, w):
        raise ValueError("a damaged PNG")
    mask: BoolArray = (
        np.zeros((height, width), np.bool_) if outside is None else decode(outside, height, width)
    )
    mask[y : y + h, x : x + w] = pixels >= 128
    return encode(mask)
