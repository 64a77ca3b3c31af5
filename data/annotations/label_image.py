"""Label maps: PNG and TIFF whose pixels are numbers of objects or classes, read with their size checked first."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.errors import DataError, Fault
from data.masks import rle

MAX_PIXELS = 89_000_000
SUFFIXES = (".png", ".tif", ".tiff")
NOISE = 0.5
"""Share of neighbouring pixels that differ, from which an image is a photograph or noise rather than a label map."""
_EXPORT = "export label maps with one number an object, or remove this file"


def read_label_image(path: Path) -> npt.NDArray[Any]:
    """The numbers [H, W] of a file of one channel: 1, 8, 16 or 32 bits, a palette's indices, or whole floats.

    Raises:
        DataError: unreadable, too large, several pages, colours, numbers below 0 or that aren't whole.
    """
    pixels = open_label_image(path)
    if pixels.ndim == 3:
        colours = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1]
        if not (colours == colours[..., :1]).all():
            raise _fault(path, "a colour image", "one channel of numbers")
        pixels = colours[..., 0]
    whole = pixels.dtype.kind != "f" or (
        np.isfinite(pixels).all()
        and (pixels == np.round(pixels)).all()
        and np.abs(pixels).max(initial=0) < 2**31
    )
    if not whole:
        raise _fault(path, "numbers that aren't whole", "numbers of objects")
    numbers = (
        pixels
        if pixels.dtype.kind in "iu"
        else pixels.astype(np.uint8 if pixels.dtype.kind == "b" else np.int64)
    )
    if numbers.min(initial=0) < 0:
        raise _fault(
            path, f"numbers below 0, down to {numbers.min()}", "0 for the background, from 1 for objects"
        )
    return numbers


def open_label_image(path: Path) -> npt.NDArray[Any]:
    """The pixels [H, W] or [H, W, channels] of a PNG or TIFF; a palette gives its indices.

    Raises:
        DataError: unreadable, too large, or of several pages.
    """
    expected = f"a PNG or TIFF of one page and at most {MAX_PIXELS:,} pixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked below
            with Image.open(path, formats=("PNG", "TIFF")) as image:
                if image.width * image.height > MAX_PIXELS:
                    found = f"{image.width} x {image.height} pixels"
                elif (pages := getattr(image, "n_frames", 1)) > 1:
                    found = f"{pages} pages"
                else:
                    return np.asarray(image)
    except (OSError, ValueError, SyntaxError, TypeError, EOFError, Image.DecompressionBombError) as error:
        found = f"not readable ({type(error).__name__}: {str(error)[:100]})"
    raise _fault(path, found, expected)


def objects_of(path: Path, numbers: npt.NDArray[Any]) -> dict[int, bytes]:
    """The compressed RLE of each number above 0 of a label map.

    Raises:
        DataError: too many numbers, or a photograph.
    """
    changes = np.count_nonzero(numbers[:, 1:] != numbers[:, :-1])
    if numbers.size > 64 and changes > NOISE * numbers.size:
        found = f"an image whose neighbouring pixels differ ({100 * changes / numbers.size:.0f}%), as in a photograph"
        raise _fault(path, found, "a label map: one number for all pixels of an object")
    try:
        return rle.encode_labels(numbers)
    except ValueError as error:
        raise _fault(path, str(error), f"a label map of up to {rle.MAX_LABELS:,} objects") from None


def _fault(path: Path, found: str, expected: str) -> DataError:
    return DataError(Fault(str(path), "pixels", found, expected, _EXPORT))
