"""Local files: listing, reading below a root, and atomic writing.

Files in S3 are downloaded first: see ``data.remote.fetch``.
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
# Upper case and underscores: old buckets and servers other than Amazon's allow them.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def is_s3(source: str) -> bool:
    """Whether a source is an address in S3, not a local path."""
    return source.lower().startswith(S3)


def split_s3(source: str) -> tuple[str, str]:
    """Bucket, and prefix without outer slashes, of ``s3://BUCKET/PREFIX``.

    Raises:
        ValueError: another form. The message doesn't repeat the address, which may contain a password.
    """
    bucket, _, prefix = source[len(S3) :].partition("/")
    if not is_s3(source) or not _BUCKET.fullmatch(bucket):
        raise ValueError(
            "an address in S3 is s3://BUCKET/PREFIX; credentials and endpoint are not part of it: boto3 reads them "
            "from AWS_PROFILE, AWS_ENDPOINT_URL, ~/.aws and so on"
        )
    return bucket, prefix.strip("/")


def _partial_name(path: Path) -> Path:
    # In the same folder, so that the rename stays on one file system and is atomic.
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path for a file, and move the file to ``path`` when the block succeeds.

    Readers see the old file or the new one, never a part of one. If the block raises, or writes no file, ``path`` is
    unchanged and the temporary file is removed. Missing parent folders are made.
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
    """Yield a temporary folder, which replaces ``path`` when the block succeeds.

    All files of an existing folder at ``path`` are removed. If the block raises, ``path`` is unchanged.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_name(target)
    partial.mkdir()
    try:
        yield partial
        if target.exists():
            # A folder can't be renamed onto a non-empty one: move the old one away first, remove it last.
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
    """Remove unfinished files and folders that killed processes left in a folder: of the target `name`, or all.

    Not safe while another process writes there.
    """
    for path in folder.glob(f".{name}.*.partial"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def walk(root: str | os.PathLike[str]) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Each folder at or below ``root`` with its files by name; hidden and unreadable folders are left out.

    Links to folders are followed, after all folders that are reached without links. Each folder comes once: links may
    form a loop, or lead to a folder that is listed already.
    """
    visited: set[tuple[int, int]] = set()
    here, links = [Path(root)], deque[Path]()
    while here or links:
        at = here.pop() if here else links.popleft()
        try:
            status = at.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
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
        root: a folder; searched to any depth, links to other folders followed. Files behind a link to a folder outside
            of ``root`` are listed, so that images there are rejected by `join` and not overlooked.
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
    """Open a file to read its bytes.

    Args:
        path: the file.
        opener: see the built-in `open`, and `opener_inside`.

    Raises:
        OSError: missing, unreadable, or a named pipe or a device, where reading could block for ever.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError("not a regular file")
    # The file may have been replaced since: opening doesn't block, and the opened file is checked again.
    file = open(path, "rb", opener=lambda at, flags: opener(at, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("not a regular file")
    return file


def is_safe(relative: str) -> bool:
    """Whether a path from an annotation file is text and stays below the folder that it will be joined to."""
    if not is_text(relative) or "\0" in relative:
        return False
    posix, windows = PurePosixPath(relative), PureWindowsPath(relative)
    absolute = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    return not absolute and ".." not in posix.parts and ".." not in windows.parts


def is_file_name(name: str) -> bool:
    """Whether a name in S3 can be that of a file below a folder: printable, in normal form, no part too long."""
    return (
        is_safe(name)
        and PurePosixPath(name).as_posix() == name
        and name.isprintable()
        and max(len(part.encode()) for part in name.split("/")) <= 255
    )


def join(root: str | os.PathLike[str], relative: str) -> Path:
    """``root / relative``. Paths in annotation files are not trusted.

    Raises:
        DataError: the path leaves ``root``: it is absolute, has a ``..``, or passes a link that leads out.
    """
    path = Path(root) / relative
    try:
        inside = is_safe(relative) and path.resolve().is_relative_to(Path(root).resolve())
    except (OSError, RuntimeError):  # links that form a loop
        inside = False
    if not inside and relative and not is_text(relative):
        raise DataError(
            Fault(clean(str(root)), f"path {relative!r}", "a name that is not UTF-8", TEXT, "rename the file")
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
    """An `opener` for `open` that raises OSError for files outside of ``root``.

    It follows no link that is made after the check.
    """

    def opener(path: str, flags: int) -> int:
        top = Path(root).resolve()
        try:
            *folders, name = Path(path).resolve().relative_to(top).parts
        except (ValueError, RuntimeError):  # outside, or links that form a loop
            raise PermissionError(errno.EPERM, "outside of the image root") from None
        # A part that is a link by now makes the opening fail.
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
