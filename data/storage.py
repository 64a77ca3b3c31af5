"""Where files lie: listing, reading under a root, and writing whole or not at all.

Files in S3 are brought here first: see ``data.remote.fetch``.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from data.errors import DataError, Fault
from data.text import TEXT, clean, is_text

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

S3 = "s3://"
# Letters of either case and underscores, which old buckets and other servers than Amazon's have.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def is_s3(source: str) -> bool:
    """Whether a source is an address in S3, not a local path."""
    return source.lower().startswith(S3)


def split_s3(source: str) -> tuple[str, str]:
    """Bucket, and prefix without slashes at its ends, of ``s3://BUCKET/PREFIX``.

    Raises:
        ValueError: not such an address. The text doesn't repeat it: it may hold a password.
    """
    bucket, _, prefix = source[len(S3) :].partition("/")
    if not is_s3(source) or not _BUCKET.fullmatch(bucket):
        raise ValueError(
            "an address in S3 is s3://BUCKET/PREFIX; credentials and endpoint are not part of it, boto3 finds them "
            "in AWS_PROFILE, AWS_ENDPOINT_URL, ~/.aws and so on"
        )
    return bucket, prefix.strip("/")


def _partial_name(path: Path) -> Path:
    # In the same folder, so that the rename stays on one file system and is atomic.
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write a file at; move it to ``path`` when the block ends well.

    Readers see the old file or the new one, never half of one. If the block raises, or leaves no
    file, ``path`` is untouched and the temporary file is gone. Missing parent folders are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_name(target)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder to fill; it replaces ``path`` when the block ends well.

    An existing folder at ``path`` is replaced as a whole, files that the new one lacks included.
    If the block raises, ``path`` is untouched.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_name(target)
    partial.mkdir()
    try:
        yield partial
        if target.exists():
            # A folder can't be renamed onto a full one: step aside, swap, then remove the old one.
            old = _partial_name(target)
            target.replace(old)
            try:
                partial.replace(target)
            except OSError:
                old.replace(target)
                raise
            shutil.rmtree(old)
        else:
            partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def discard_partials(folder: Path, name: str = "*") -> None:
    """Removes what killed processes left half-written in a folder, of `name` or of anything. Not while another one may
    be writing there."""
    for path in folder.glob(f".{name}.*.partial"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def walk(root: str | os.PathLike[str]) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Each folder at or below ``root`` with its files by name; hidden and unreadable folders are left out.

    Links to folders are followed, after everything that lies here without them. No folder comes twice, whatever leads
    to it: links may lead in a circle, or to what is listed already.
    """
    seen: set[tuple[int, int]] = set()
    here, links = [Path(root)], deque[Path]()
    while here or links:
        at = here.pop() if here else links.popleft()
        try:
            facts = at.stat()
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(at) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        files: list[os.DirEntry[str]] = []
        folders: list[Path] = []
        for entry in entries:
            if not _is_folder(entry):
                files.append(entry)
            elif not entry.name.startswith("."):
                (links if entry.is_symlink() else folders).append(Path(entry.path))
        here += reversed(folders)
        yield at, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def list_files(root: str | os.PathLike[str], suffixes: tuple[str, ...] | None = None) -> list[str]:
    """All files under ``root``, as sorted posix paths relative to it.

    Args:
        root: a folder; searched to any depth, links to other folders followed. What lies behind one leaves ``root``:
            `join` refuses it, so that images there are rejected and not overlooked.
        suffixes: keep only these endings (lower case, with the dot); None keeps every file.
            Hidden files and folders are always left out.

    Raises:
        DataError: ``root`` is not a folder.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise DataError(
            Fault(str(root), "folder", "no such folder", "a folder", "correct the path in params.yaml")
        )
    files = []
    for at, entries in walk(folder):
        below = at.relative_to(folder)
        for entry in entries:
            if not entry.name.startswith(".") and (not suffixes or entry.name.lower().endswith(suffixes)):
                files.append((below / entry.name).as_posix())
    return sorted(files)


def open_regular(path: str | os.PathLike[str], opener: Callable[[str, int], int] = os.open) -> BinaryIO:
    """Opens a file to read its bytes.

    Args:
        path: the file.
        opener: as `open` takes it; see `opener_inside`.

    Raises:
        OSError: it isn't there or can't be read; or it is a named pipe or a device, at which one would wait for ever.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError("not a regular file")
    # It may be another one by now: what is opened isn't waited for, and is looked at again.
    file = open(path, "rb", opener=lambda at, flags: opener(at, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("not a regular file")
    return file


def is_safe(relative: str) -> bool:
    """Whether a path from an annotation file stays under the folder that it will be joined to, and is a text."""
    if not is_text(relative) or "\0" in relative:
        return False
    posix, windows = PurePosixPath(relative), PureWindowsPath(relative)
    absolute = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    return not absolute and ".." not in posix.parts and ".." not in windows.parts


def is_file_name(name: str) -> bool:
    """Whether a key's name can be a file's, the same one that annotation files would name: below the folder, of
    characters that can be written down, no part too long."""
    return (
        is_safe(name)
        and PurePosixPath(name).as_posix() == name
        and name.isprintable()
        and max(len(part.encode()) for part in name.split("/")) <= 255
    )


def join(root: str | os.PathLike[str], relative: str) -> Path:
    """``root / relative``, refusing what leaves ``root``: absolute paths, ``..``, links that lead out.

    Paths in annotation files are data, not trusted.

    Raises:
        DataError: the path leaves ``root``.
    """
    path = Path(root) / relative
    try:
        inside = is_safe(relative) and path.resolve().is_relative_to(Path(root).resolve())
    except (OSError, RuntimeError):  # links that lead in a circle
        inside = False
    if not inside and relative and not is_text(relative):
        raise DataError(
            Fault(clean(str(root)), f"path {relative!r}", "a name that is no UTF-8", TEXT, "rename the file")
        )
    if not inside:
        raise DataError(
            Fault(
                str(root),
                f"path {relative!r}",
                "a path that leaves the image root",
                "a path relative to the image root, without '..'",
                "correct file_name in the annotation file, or set the image root above these files",
            )
        )
    return path


def opener_inside(root: str | os.PathLike[str]) -> Callable[[str, int], int]:
    """An `opener` for `open`, of files below ``root`` alone: it follows no link that is laid after the check.

    It raises OSError for what leads out.
    """

    def opener(path: str, flags: int) -> int:
        top = Path(root).resolve()
        try:
            *folders, name = Path(path).resolve().relative_to(top).parts
        except (ValueError, RuntimeError):  # outside, a circle
            raise PermissionError(errno.EPERM, "it leads out of the image root") from None
        # From here on every part is what it is called, or the opening fails.
        at = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                inner = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = inner
            return os.open(name, flags | os.O_NOFOLLOW, dir_fd=at)
        finally:
            os.close(at)

    return opener
