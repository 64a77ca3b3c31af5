"""Pictures of parts of images: a window around an object, and masks as outlines over it.

Windows are x, y, width, height in whole pixels of the image.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.images.jpeg import to_jpeg
from data.images.read import read_ingested
from data.masks.outlines import outlines
from data.masks.rle import decode_window
from data.tables import Split

Window = tuple[int, int, int, int]

TIMES = 2.0
"""A window's sides by those of the object's box."""
LEAST_SIDE = 64
WITHOUT_MASK = 0.15
"""A window's side by the image's longer one, around a click without a mask."""
JPEG_QUALITY = 92
MOST_BYTES = 256 << 20
"""Of decoded images that are kept in memory."""
EXACT_UP_TO = 384
"""Pixels of a window's longer side up to which outlines follow the edges of pixels."""
TOLERANCE = 0.75
"""Pixels of the trace by which outlines in larger windows may deviate: less than is seen, in a third of the corners."""
TRACED = 1024
"""Pixels a side on which masks are traced; larger windows are traced coarser."""


def window_around(box: Sequence[float], click: tuple[float, float] | None, width: int, height: int) -> Window:
    """The window of an object in an image of width x height pixels.

    Args:
        box: x, y, width, height of its mask; zeros without one.
        click: x, y.
    """
    x, y, w, h = box
    if w > 0 and h > 0:
        cx, cy, sides = x + w / 2, y + h / 2, [TIMES * w, TIMES * h]
    else:
        cx, cy = click or (width / 2, height / 2)
        sides = [WITHOUT_MASK * max(width, height)] * 2
    least = max(LEAST_SIDE, max(sides) / 2)  # no slits
    spans = []
    for centre, side, whole in ((cx, max(least, sides[0]), width), (cy, max(least, sides[1]), height)):
        size = min(whole, round(side))
        spans.append((min(max(0, round(centre - size / 2)), whole - size), size))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def paths(codes: Sequence[bytes], height: int, width: int, window: Window) -> list[str]:
    """SVG paths of masks of an image, as far as they are in the window, in pixels of the image; "" where nothing is.

    Args:
        codes: compressed RLEs of an image of height x width pixels.
    """
    x, y, w, h = window
    step = max(1, -(-max(w, h) // TRACED))
    columns, rows = (np.arange(begin + step // 2, begin + size, step) for begin, size in ((x, w), (y, h)))
    masks, which = decode_window(codes, height, width, rows, columns)
    found = [""] * len(codes)
    for mask, k in zip(masks, which.tolist(), strict=True):
        rings = outlines(mask, 0.0 if max(w, h) <= EXACT_UP_TO else TOLERANCE)
        found[k] = "".join(
            "M" + "L".join(f"{px * step + x:.6g} {py * step + y:.6g}" for px, py in ring.tolist()) + "Z"
            for ring in rings
        )
    return found


class Pictures:
    """Parts of the images of a split as JPEG; the latest decoded images are kept."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._held: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def jpeg(self, image: int, window: Window, longest: int) -> bytes:
        """A window of an image, by its row, with at most `longest` pixels a side.

        Raises:
            DataError: the file can't be read, or has changed since its ingest.
        """
        x, y, w, h = window
        return to_jpeg(self._image(image)[y : y + h, x : x + w], longest, JPEG_QUALITY)

    def _image(self, image: int) -> NDArray[np.uint8]:
        with self._lock:
            if image in self._held:
                self._held.move_to_end(image)
                return self._held[image]
        pixels = read_ingested(self._split, image)
        with self._lock:
            self._held[image] = pixels
            while len(self._held) > 1 and sum(one.nbytes for one in self._held.values()) > MOST_BYTES:
                self._held.popitem(last=False)
        return pixels
