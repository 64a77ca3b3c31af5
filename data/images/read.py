"""Image files: reading as 8-bit RGB, checking that they can be read, content hash.

EXIF orientation is applied: pixels, size and labels are all those of the image as it is shown.
What a file is, its first bytes say; its suffix is not believed. Files are not trusted: only the
decoders of `FORMATS` ever see them, and only once the header's size is within `MAX_PIXELS`.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from data.errors import DataError, Fault
from data.storage import open_regular

FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
"""As Pillow names them. It calls a JPEG with an appended preview MPO; the preview is not read."""
MAX_PIXELS = 2**29
"""Of an image. More is a mistake, or meant to exhaust memory. Pillow's own limit, a third of this, would
refuse large scans."""
MAX_BYTES = 2**31
MAX_SCANS = 500
"""Of a progressive JPEG."""

_EXIF_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_FLIPPED = {  # up-down, left-right; after transposing
    1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False),
    5: (False, False), 6: (False, True), 7: (True, True), 8: (True, False),
}  # fmt: skip
_JPEG_MARK = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # not a stuffed, a restart or a fill byte
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L"}
_LARGE = 2**25  # pixels: decoded one at a time, so that a pool of threads needs no pool of gigabytes
_one_large = threading.Lock()
_as_ingested: set[int] = set()
"""Files whose content was checked in this process, by the hash it must have, size, time and place: an epoch later they
needn't be hashed again, unless they were written to."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata, which we don't use
cv2.utils.logging.setLogLevel(0)  # what it would print to stderr is told as a fault, with the file's name


class ImageError(DataError):
    """An image file that can't be used; `reason` is one word for counting, such as "truncated"."""

    def __init__(self, fault: Fault | str, reason: str = "") -> None:
        super().__init__(fault)
        self.reason = reason


class CheckedImage(NamedTuple):
    """An image that can be read: its size in pixels as shown, its EXIF orientation, its bytes' SHA-256 (hex)."""

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


def refuse(path: str | os.PathLike[str], reason: str, found: str, expected: str = "") -> NoReturn:
    """Raises ImageError for an image file."""
    expected = expected or "a whole image file"
    raise ImageError(
        Fault(str(path), "image", found, expected, "restore the file, or remove its records"), reason
    )


Opener = Callable[[str, int], int]
"""As `open` takes it: opens a path with flags; see `data.storage.opener_inside`."""


@contextmanager
def _file(path: str | os.PathLike[str], opener: Opener = os.open) -> Iterator[BinaryIO]:
    """The file, once it is known to be one that can be read whole."""
    try:
        with open_regular(path, opener) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                refuse(path, "too_large", f"{size} bytes", f"at most {MAX_BYTES} bytes")
            if size == 0:
                refuse(path, "empty", "an empty file")
            yield file
    except FileNotFoundError:
        refuse(path, "missing", "no such file")
    except OSError as error:
        refuse(path, "unreadable", f"unreadable ({error.strerror or error})")


def _bytes(path: str | os.PathLike[str], opener: Opener = os.open, digest: str | None = None) -> bytes:
    """The file's content, whose SHA-256 is `digest` if one is given."""
    with _file(path, opener) as file:
        # By its size: `read` reserves as much memory as it is given.
        content = file.read(min(MAX_BYTES, os.fstat(file.fileno()).st_size))
        facts = os.fstat(file.fileno())
    if digest:
        seen = hash((digest, len(content), facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_dev))
        if seen not in _as_ingested:
            if hashlib.sha256(content).hexdigest() != digest:
                raise ImageError(
                    Fault(
                        str(path),
                        "image",
                        "another content",
                        "that of its ingest",
                        "run the ingest stage again",
                    ),
                    "changed",
                )
            _as_ingested.add(seen)
    scans = _scans(content) if content.startswith(b"\xff\xd8") else 0
    if scans is None or _is_truncated(content):
        refuse(path, "truncated", "a truncated file")
    if scans > MAX_SCANS:
        # Each goes over the whole image: a few kilobytes of them take hours.
        refuse(
            path,
            "too_large",
            f"a JPEG of more than {MAX_SCANS} scans",
            f"at most {MAX_SCANS}; others have ten",
        )
    return content


@contextmanager
def _opened(file: BinaryIO, path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The file in Pillow, header read, pixels not."""
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        refuse(path, "too_large", f"more than {2 * MAX_PIXELS} pixels", f"at most {MAX_PIXELS} pixels")
    except UnidentifiedImageError:
        file.seek(0)
        found = f"not an image ({_kind(file.read(12))})"
        refuse(path, "not_an_image", found, f"one of {', '.join(FORMATS)}")
    except (
        Exception
    ) as error:  # Pillow's parsers raise all sorts on damaged headers: struct.error, KeyError ...
        refuse(path, "undecodable", f"no image header ({type(error).__name__})")
    with image:
        yield image


def _kind(content: bytes) -> str:
    """What the first bytes are, to be told."""
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
    """Size, kind and orientation of an opened file, all that can be refused without decoding refused."""
    width, height = image.size
    try:
        orientation = _orientation(image)
        frames = image.format != "MPO" and _has_more_frames(image)
    except Exception:  # as above; damaged metadata doesn't harm the pixels
        orientation, frames = 1, False
    # Pillow gives the size as stored, but for TIFF the size as shown.
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
    """1 to 8, by the EXIF segment of a JPEG or WebP, a PNG's eXIf chunk, a TIFF's tag.

    Not by what Pillow falls back to, XMP and ImageMagick's profiles in PNG: browsers and annotation tools don't.
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
        image.seek(1)  # not n_frames, which would count a million of them
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def _is_truncated(content: bytes) -> bool:
    """Whether the end of a PNG or WebP is missing; older OpenCV fills what is missing with grey and only warns."""
    if content.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(content):  # chunks: length, name, content, checksum
            if content[at + 4 : at + 8] == b"IEND":
                return False
            at += 12 + int.from_bytes(content[at : at + 4], "big")
        return True
    if content.startswith(b"RIFF"):
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    return False


def _scans(content: bytes) -> int | None:
    """How many scans a JPEG has before its end mark; None where that is missing.

    Cameras append data, phones whole films, in which any mark may stand: so from segment to segment, each skipped by
    its length, to the first end mark.
    """
    at, scans = 2, 0
    while (mark := _JPEG_MARK.search(content, at)) is not None:
        at = mark.end()
        if mark[0] == b"\xff\xd9":
            return scans
        scans += mark[0] == b"\xff\xda"
        if mark[0] not in (b"\xff\x01", b"\xff\xd8"):  # those have no length
            at += int.from_bytes(content[at : at + 2], "big")
    return None


def _turned(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """[h, w, 3] as stored -> [H, W, 3] as shown."""
    if orientation in _TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    down, right = _FLIPPED[orientation]
    return pixels[:: -1 if down else 1, :: -1 if right else 1]


def _decode(
    content: bytes, image: Image.Image, header: _Header, path: str | os.PathLike[str], flags: int
) -> npt.NDArray[np.uint8]:
    """uint8 BGR [H, W, 3] as shown."""
    if header.format == "TIFF":
        return _decode_tiff(image, header, path)
    try:
        # We turn it ourselves: which images OpenCV turns differs between its versions and formats.
        pixels = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        refuse(path, "undecodable", f"undecodable ({error.err})")
    if pixels is None:
        refuse(path, "undecodable", "an image that can't be decoded: damaged or cut")
    return _turned(np.asarray(pixels, dtype=np.uint8), header.orientation)


def _decode_tiff(image: Image.Image, header: _Header, path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Through Pillow: OpenCV multiplies colours by alpha, and returns a half where a strip is damaged."""
    try:
        if header.mode.startswith("I;16"):
            image.load()
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if header.mode in ("LA", "PA"):
            return np.ascontiguousarray(np.asarray(image.convert("RGBA"))[:, :, 2::-1])
        return np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])
    except Exception as error:  # libtiff's and Pillow's, of many types
        refuse(path, "undecodable", f"undecodable ({type(error).__name__}: {error})")


def read_image(path: str | os.PathLike[str], digest: str | None = None) -> npt.NDArray[np.uint8]:
    """Decode an image file as uint8 RGB [H, W, 3].

    Args:
        path: the file.
        digest: the SHA-256 (hex) that its bytes must have; None or empty takes any.

    Grey is repeated, a palette looked up, CMYK converted, alpha dropped, 16 bits scaled to 8 (the upper
    eight are kept), EXIF orientation applied.

    Raises:
        ImageError: missing, empty, truncated, damaged, not an image of `FORMATS`, of several frames, of
            samples that aren't 8 or 16 bits, too large, or of other bytes.
    """
    content = _bytes(path, digest=digest)
    with _opened(io.BytesIO(content), path) as image:
        header = _header(image, path)
        bgr = _decode(content, image, header, path, cv2.IMREAD_COLOR)
    if bgr.shape[:2] != (header.height, header.width):
        refuse(path, "undecodable", f"{bgr.shape[1]} x {bgr.shape[0]} pixels", _size_said(header))
    return np.ascontiguousarray(bgr[:, :, ::-1])


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) in pixels as shown, from the header alone.

    Raises:
        ImageError: as `read_image`, as far as the header tells.
    """
    with _file(path) as file, _opened(file, path) as image:
        header = _header(image, path)
    return header.width, header.height


def check_image(path: str | os.PathLike[str], opener: Opener = os.open) -> CheckedImage:
    """Reads an image file once, makes sure that `read_image` can decode it, and hashes its bytes.

    A JPEG is decoded at an eighth of its size: its code is read to the end all the same, which is what can
    fail, in a third of the time. For many threads at once: the decoders release Python's lock.

    Raises:
        ImageError: as `read_image`.
    """
    content = _bytes(path, opener)
    with _opened(io.BytesIO(content), path) as image:
        header = _header(image, path)
        is_jpeg = header.format in ("JPEG", "MPO")
        flags = cv2.IMREAD_REDUCED_COLOR_8 if is_jpeg else cv2.IMREAD_COLOR
        if header.width * header.height > _LARGE:
            with _one_large:
                shape = _decode(content, image, header, path, flags).shape[:2]
        else:
            shape = _decode(content, image, header, path, flags).shape[:2]
    scale = 8 if is_jpeg else 1
    if shape != (-(-header.height // scale), -(-header.width // scale)):
        refuse(path, "undecodable", f"{shape[1] * scale} x {shape[0] * scale} pixels", _size_said(header))
    return CheckedImage(header.width, header.height, header.orientation, hashlib.sha256(content).hexdigest())


def _size_said(header: _Header) -> str:
    return f"{header.width} x {header.height}, as its header says"


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's bytes.

    Raises:
        ImageError: the file is missing or unreadable.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        refuse(path, "missing", "no such file")
    except OSError as error:
        refuse(path, "unreadable", f"unreadable ({error.strerror})")
