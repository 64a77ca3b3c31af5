"""Image files: reading as 8-bit RGB, size without decoding, content hash.

EXIF orientation is applied: pixels, size and labels are all those of the image as it is shown.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from data.errors import DataError, Fault

_EXIF_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def _refuse(path: str | os.PathLike[str], found: str) -> NoReturn:
    raise DataError(
        Fault(str(path), "image", found, "a whole image file", "restore the file, or remove its records")
    )


def _bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        _refuse(path, "no such file")
    except OSError as error:
        _refuse(path, f"unreadable ({error})")
    if not content:
        _refuse(path, "an empty file")
    return content


def _is_truncated(content: bytes) -> bool:
    """Whether the end mark is missing; OpenCV fills what is missing with grey and only warns."""
    if content.startswith(b"\x89PNG"):
        return b"IEND" not in content[-64:]
    if content.startswith(b"\xff\xd8"):
        # Some cameras append data: look for the end mark anywhere after the last scan's start.
        return content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda")
    return False


def read_image(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Decode an image file as uint8 RGB [H, W, 3].

    Grey is repeated, alpha dropped, 16 bits scaled to 8, EXIF orientation applied.

    Raises:
        DataError: missing, empty, truncated, or not an image.
    """
    content = _bytes(path)
    if _is_truncated(content):
        _refuse(path, "a truncated file")
    try:
        bgr = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        _refuse(path, f"undecodable ({error})")
    if bgr is None:
        _refuse(path, "not an image that OpenCV reads")
    return np.ascontiguousarray(bgr[:, :, ::-1])


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) in pixels as shown, from the header alone.

    Raises:
        DataError: missing, empty, or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Pillow gives the size as stored, but for TIFF the size as shown.
            if image.format != "TIFF" and image.getexif().get(_EXIF_ORIENTATION) in _TRANSPOSED:
                width, height = height, width
    except FileNotFoundError:
        _refuse(path, "no such file")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        _refuse(path, f"no image header ({type(error).__name__})")
    return width, height


def verify(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of an image file's bytes, once they are seen to be there to the end.

    Raises:
        DataError: the file is missing, unreadable, empty or truncated.
    """
    content = _bytes(path)
    if _is_truncated(content):
        _refuse(path, "a truncated file")
    return hashlib.sha256(content).hexdigest()


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's bytes.

    Raises:
        DataError: the file is missing or unreadable.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        _refuse(path, "no such file" if isinstance(error, FileNotFoundError) else f"unreadable ({error})")
