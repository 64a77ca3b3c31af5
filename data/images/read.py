"""Image files: read as 8-bit RGB, checked, hashed.

EXIF orientation is applied: pixels, size and labels are those of the image as shown. The format is detected from the
first bytes, not from the suffix. Files are not trusted: only the decoders of `FORMATS` read them, and only after the
header's size was found to be within `MAX_PIXELS`.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from data.errors import DataError, Fault
from data.images.content import Opener, open_image_file, read_content, refuse

if TYPE_CHECKING:
    from data.tables import Split

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""Pillow's names. It calls a JPEG with an appended preview MPO; the preview is not read."""
MAX_PIXELS = 2**29
"""Per image. More is a mistake, or an attempt to exhaust memory. Pillow's own limit is a third of this and would
refuse large scans."""
_EXIF_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_FLIPPED = {  # up-down, left-right; after transposing
    1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False),
    5: (False, False), 6: (False, True), 7: (True, True), 8: (True, False),
}  # fmt: skip
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L"}
_LARGE = 2**25  # pixels: threads decode such images one at a time, to bound the memory
_one_large = threading.Lock()
_FLAGS = {  # by reduction: colour, grey
    1: (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE),
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
}

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", module=r"PIL\.")  # about metadata, which is not used
cv2.utils.logging.setLogLevel(0)  # instead of OpenCV's lines on stderr an error names the file


class CheckedImage(NamedTuple):
    """An image that can be read: size in pixels as shown, EXIF orientation, SHA-256 (hex) of the file."""

    width: int
    height: int
    orientation: int
    sha256: str


class _Header(NamedTuple):
    format: str
    mode: str
    width: int  # as shown
    height: int
    orientation: int


@contextmanager
def _opened(file: BinaryIO, path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The image with its header read, its pixels not."""
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        refuse(path, "too_large", f"more than {2 * MAX_PIXELS} pixels", f"at most {MAX_PIXELS} pixels")
    except UnidentifiedImageError:
        file.seek(0)
        found = f"not an image ({_kind(file.read(12))})"
        refuse(path, "not_an_image", found, f"one of {', '.join(FORMATS)}")
    except Exception as error:  # Pillow raises struct.error, KeyError and others on damaged headers
        refuse(path, "undecodable", f"no image header ({type(error).__name__})")
    with image:
        yield image


def _kind(content: bytes) -> str:
    """A description of a file by its first bytes, for messages."""
    for start, name in (
        (b"GIF8", "a GIF"), (b"%PDF", "a PDF"), (b"PK\3\4", "a zip archive"), (b"\x1f\x8b", "a gzip archive"),
        (b"<", "markup, such as a web page or SVG"),
    ):  # fmt: skip
        if content.startswith(start):
            return name
    if content[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        return "HEIC or AVIF"
    return f"it begins with {content[:8]!r}"


def _header(image: Image.Image, path: str | os.PathLike[str]) -> _Header:
    """Format, mode, size and orientation of an opened file; raises all errors that need no decoding."""
    width, height = image.size
    try:
        orientation = _orientation(image)
        frames = image.format != "MPO" and _has_more_frames(image)
    except Exception:  # as in `_opened`; damaged metadata doesn't affect the pixels
        orientation, frames = 1, False
    # Pillow returns the size as stored, but of TIFF files the size as shown.
    if image.format != "TIFF" and orientation in _TRANSPOSED:
        width, height = height, width
    if width * height > MAX_PIXELS:
        refuse(path, "too_large", f"{width} x {height} pixels", f"at most {MAX_PIXELS} pixels")
    if frames:
        refuse(path, "frames", "several frames or pages", "one picture a file")
    if image.mode not in _MODES and (image.format, image.mode) != ("PNG", "I"):
        refuse(
            path, "samples", f"pixels of kind {image.mode!r}", "grey, palette, RGB or CMYK of 8 or 16 bits"
        )
    return _Header(image.format or "", image.mode, width, height, orientation)


def _orientation(image: Image.Image) -> int:
    """1 to 8, from the EXIF segment of a JPEG or WebP, the eXIf chunk of a PNG, the tag of a TIFF.

    XMP and ImageMagick's profiles in PNG, which Pillow falls back to, don't count: browsers and annotation tools ignore
    them.
    """
    if image.format == "TIFF":
        value = image.tag_v2.get(_EXIF_ORIENTATION)  # type: ignore[attr-defined]
    else:
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        value = exif.get(_EXIF_ORIENTATION)
    return value if value in range(1, 9) else 1


def _has_more_frames(image: Image.Image) -> bool:
    if image.format != "TIFF":
        return bool(getattr(image, "is_animated", False))
    try:
        image.seek(1)  # n_frames would walk through all frames
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


class _Decoded(NamedTuple):
    pixels: npt.NDArray[np.uint8]
    """BGR [h, w, 3] or grey [h, w], as shown"""
    header: _Header
    content: bytes


def _decode(
    path: str | os.PathLike[str],
    *,
    reduction: int = 1,
    grey: bool = False,
    opener: Opener = os.open,
    digest: str | None = None,
) -> _Decoded:
    """Reads, checks and decodes a file; a JPEG at 1 / `reduction` of its sides and, if `grey`, as its luminance."""
    content = read_content(path, opener, digest)
    with _opened(io.BytesIO(content), path) as image:
        header = _header(image, path)
        scale = reduction if header.format in ("JPEG", "MPO") else 1
        with _one_large if header.width * header.height > _LARGE else nullcontext():
            if header.format == "TIFF":
                pixels = _decode_tiff(image, header, path)
            else:
                is_jpeg = header.format in ("JPEG", "MPO")
                pixels = _decode_opencv(content, _FLAGS[scale][grey and is_jpeg], header, path)
    height, width = pixels.shape[:2]
    if (height, width) != (-(-header.height // scale), -(-header.width // scale)):
        expected = f"{header.width} x {header.height}, as its header says"
        refuse(path, "undecodable", f"{width * scale} x {height * scale} pixels", expected)
    if grey and pixels.ndim == 3:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
    return _Decoded(pixels, header, content)


def _decode_opencv(
    content: bytes, flags: int, header: _Header, path: str | os.PathLike[str]
) -> npt.NDArray[np.uint8]:
    try:
        # OpenCV's versions differ in which formats they turn.
        pixels = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        refuse(path, "undecodable", f"undecodable ({error.err})")
    if pixels is None:
        refuse(path, "undecodable", "an image that can't be decoded: damaged or cut")
    if header.orientation in _TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    down, right = _FLIPPED[header.orientation]
    return np.asarray(pixels, np.uint8)[:: -1 if down else 1, :: -1 if right else 1]


def _decode_tiff(image: Image.Image, header: _Header, path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """By Pillow: OpenCV multiplies colours by alpha, and returns half an image if a strip is damaged."""
    try:
        if header.mode.startswith("I;16"):
            image.load()
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if header.mode in ("LA", "PA"):
            return np.ascontiguousarray(np.asarray(image.convert("RGBA"))[:, :, 2::-1])
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
    except Exception as error:  # of many types, from libtiff and Pillow
        refuse(path, "undecodable", f"undecodable ({type(error).__name__}: {error})")


def read_image(path: str | os.PathLike[str], digest: str | None = None) -> npt.NDArray[np.uint8]:
    """Decodes an image file as uint8 RGB [H, W, 3].

    Grey is repeated, a palette applied, CMYK converted, alpha dropped, 16 bits become 8 (the upper ones), EXIF
    orientation applied.

    Args:
        digest: the SHA-256 (hex) that the file must have; None or empty accepts any.

    Raises:
        ImageError: missing, empty, truncated, damaged, not an image of `FORMATS`, of several frames, of samples that
            aren't 8 or 16 bits, too large, or of another digest.
    """
    return np.ascontiguousarray(_decode(path, digest=digest).pixels[:, :, ::-1])


def read_ingested(split: Split, i: int) -> npt.NDArray[np.uint8]:
    """Image `i` of a split, uint8 RGB [H, W, 3]; its file must have the content and the size that ingest found.

    Raises:
        DataError: the file can't be read, is outside the image root, or has changed.
    """
    path = split.image_path(i)
    row = split.images.slice(i, 1)
    width, height, digest, image_id = (
        row[name][0].as_py() for name in ("width", "height", "sha256", "image_id")
    )
    image = read_image(path, digest)
    if image.shape[:2] != (height, width):
        found = f"{image.shape[1]} x {image.shape[0]} pixels"
        expected = f"{width} x {height} pixels, as when it was ingested"
        raise DataError(Fault(str(path), f"image {image_id}", found, expected, "run the ingest stage again"))
    return image


def read_grey(path: str | os.PathLike[str], reduction: int) -> npt.NDArray[np.uint8]:
    """Decodes an image file as uint8 grey [h, w], for comparisons; a JPEG at 1 / `reduction` (1, 2, 4, 8) of its sides.

    Raises:
        ImageError: as `read_image`.
    """
    return _decode(path, reduction=reduction, grey=True).pixels


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) in pixels as shown, from the header alone.

    Raises:
        ImageError: as `read_image`, for all errors that the header shows.
    """
    with open_image_file(path, os.open) as file, _opened(file, path) as image:
        header = _header(image, path)
    return header.width, header.height


def check_image(path: str | os.PathLike[str], opener: Opener = os.open) -> CheckedImage:
    """Checks that `read_image` can decode an image file, and hashes it; reads it once.

    A JPEG is decoded at an eighth of its sides: its code is read to the end all the same, which is what can fail, in a
    third of the time. Safe in many threads at once: the decoders release the GIL.

    Raises:
        ImageError: as `read_image`.
    """
    _, header, content = _decode(path, reduction=8, opener=opener)
    return CheckedImage(header.width, header.height, header.orientation, hashlib.sha256(content).hexdigest())
