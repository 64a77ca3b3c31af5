"""Images as users have them: files, arrays, Pillow's."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.images.read import read_image

if TYPE_CHECKING:
    from PIL.Image import Image

    Pixels = NDArray[np.uint8]
    """uint8 RGB [H, W, 3]"""
    Picture = str | PathLike[str] | NDArray[np.uint8] | Image
    """A file; uint8 RGB [H, W, 3], or grey [H, W]; or an image of Pillow."""
    Several = list[Picture] | tuple[Picture, ...]


def pixels_of(image: Picture) -> NDArray[np.uint8]:
    """uint8 RGB [H, W, 3]; EXIF orientation is applied to files and to Pillow's images.

    Raises:
        DataError: a file is missing or can't be read.
        TypeError, ValueError: an array of another type or shape; Pillow's of other samples than 8 or 16 bits.
    """
    if isinstance(image, str | PathLike):
        return read_image(image)
    if not isinstance(image, np.ndarray):
        from PIL import ImageOps

        shown = ImageOps.exif_transpose(image) or image
        # Pillow would cut 16 bits off at 255; of files the upper eight are read. Older versions open a PNG as "I".
        if shown.mode.startswith("I;16") or (image.format, shown.mode) == ("PNG", "I"):
            image = (np.asarray(shown) >> 8).astype(np.uint8)
        elif shown.mode in ("I", "F"):
            raise ValueError(
                f"image: found pixels of kind {shown.mode!r}, expected 8 or 16 bits; scale them to 0..255"
            )
        else:
            image = np.array(shown.convert("RGB"))
    if image.dtype != np.uint8:
        raise TypeError(f"image: found an array of {image.dtype}, expected uint8; scale it to 0..255")
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"image: found shape {list(image.shape)}, expected RGB [H, W, 3] or grey [H, W], with pixels"
        )
    return np.ascontiguousarray(image)
