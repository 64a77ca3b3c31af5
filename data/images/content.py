"""The content of image files: read at once, bounded in size, complete, with the expected hash."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

from data.errors import DataError, Fault
from data.storage import open_regular

MAX_BYTES = 2**31
MAX_SCANS = 500
"""Per progressive JPEG. Each scan covers the whole image: a few kilobytes of scans take hours to decode."""

_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # not stuffed, restart or fill bytes
_verified: set[int] = set()
"""Files whose content this process has hashed, by expected hash, size, modification time and inode: training doesn't
hash them again at each epoch, unless they are written to."""


class ImageError(DataError):
    """An image file that can't be used; `reason` is one word to count by, such as "truncated"."""

    def __init__(self, fault: Fault | str, reason: str = "") -> None:
        super().__init__(fault)
        self.reason = reason


def refuse(path: str | os.PathLike[str], reason: str, found: str, expected: str = "") -> NoReturn:
    """Raises ImageError for an image file."""
    expected = expected or "a whole image file"
    raise ImageError(
        Fault(str(path), "image", found, expected, "restore the file, or remove its records"), reason
    )


Opener = Callable[[str, int], int]
"""The `opener` of `open`; see `data.storage.opener_inside`."""


@contextmanager
def open_image_file(path: str | os.PathLike[str], opener: Opener) -> Iterator[BinaryIO]:
    """Opens a regular file that is neither empty nor larger than MAX_BYTES."""
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


def read_content(path: str | os.PathLike[str], opener: Opener, digest: str | None) -> bytes:
    """The file's content, whose SHA-256 is `digest` if one is given."""
    with open_image_file(path, opener) as file:
        # With the file's size: `read` allocates as much memory as its argument.
        content = file.read(min(MAX_BYTES, os.fstat(file.fileno()).st_size))
        stat = os.fstat(file.fileno())
    if digest:
        key = hash((digest, len(content), stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev))
        if key not in _verified:
            if hashlib.sha256(content).hexdigest() != digest:
                fault = Fault(
                    str(path), "image", "another content", "that of its ingest", "run the ingest stage again"
                )
                raise ImageError(fault, "changed")
            _verified.add(key)
    scans = _scans(content) if content.startswith(b"\xff\xd8") else 0
    if scans is None or _is_truncated(content):
        refuse(path, "truncated", "a truncated file")
    if scans > MAX_SCANS:
        expected = f"at most {MAX_SCANS}; others have ten"
        refuse(path, "too_large", f"a JPEG of more than {MAX_SCANS} scans", expected)
    return content


def _is_truncated(content: bytes) -> bool:
    """Whether the end of a PNG or WebP is missing; older OpenCV versions fill the rest with grey and only warn."""
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
    """The number of scans of a JPEG before its end marker; None without an end marker.

    Cameras append data and phones whole films, which may contain any marker. So segments are skipped by their length,
    up to the first end marker.
    """
    at, scans = 2, 0
    while (marker := _JPEG_MARKER.search(content, at)) is not None:
        at = marker.end()
        if marker[0] == b"\xff\xd9":
            return scans
        scans += marker[0] == b"\xff\xda"
        if marker[0] not in (b"\xff\x01", b"\xff\xd8"):  # those have no length
            at += int.from_bytes(content[at : at + 2], "big")
    return None


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file.

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
