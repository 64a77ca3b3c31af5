"""Errors of a disk that is full or can't be written, with the folder and its free space."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

TIGHT = 16 << 20
"""Bytes: a folder with less free space is reported together with any other error."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BARRED = (errno.EROFS, errno.EACCES, errno.EPERM)
_MORE = "free some there, or move the folder to another disk, then run again: what is done is kept"
_RIGHTS = (
    "make it writable for this user, or run in a clone of your own, then run again: what is done is kept"
)


def explain(error: BaseException, *folders: Path) -> str | None:
    """Why a file couldn't be written, with the folder and its free space; None for any other error.

    Where the error names no file, the folder is the one with the least free space of `folders`, the current and the
    temporary folder.
    """
    one: BaseException | None = error
    while one is not None:
        number = _number(one)
        if number is not None:
            named = getattr(one, "filename", None)
            some = [_folder(path) for path in ([named] if named else (*folders, Path(), _temporary()))]
            where = min(some, key=lambda folder: shutil.disk_usage(folder).free)
            problem = os.strerror(number)
            if number in _BARRED:
                return f"{where}: {problem}. Next: {_RIGHTS}."
            return f"{where}: {problem} ({_free(where)}). Next: {_MORE}."
        one = one.__cause__ or one.__context__
    return None


def tight(*folders: Path) -> list[str]:
    """A line for each of these folders, and the temporary one, that is full or can't be written."""
    lines: dict[str, None] = {}
    for folder in (*folders, _temporary()):
        where = _folder(folder)
        try:
            usage = shutil.disk_usage(where)
            inodes = os.statvfs(where)
        except OSError:
            continue
        if usage.free < min(TIGHT, usage.total // 2) or (inodes.f_files and not inodes.f_favail):
            lines[f"{where}: {_free(where)}. Next: {_MORE}."] = None
        elif inodes.f_flag & os.ST_RDONLY or not os.access(where, os.W_OK):
            lines[f"{where}: can't be written. Next: {_RIGHTS}."] = None
    return list(lines)


def _number(error: BaseException) -> int | None:
    """The errno of a write error. Libraries that don't pass it on repeat the system's message."""
    number = getattr(error, "errno", None)
    if number in _FULL or (number in _BARRED and getattr(error, "filename", None)):
        return int(number)
    return next((one for one in _FULL if os.strerror(one) in str(error)), None)


def _folder(path: str | bytes | os.PathLike[str]) -> Path:
    """The folder of a file, or the nearest folder above it that exists."""
    try:
        folder = Path(os.fsdecode(path)).absolute()
    except FileNotFoundError:  # the current folder is gone
        return Path("/")
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _free(folder: Path) -> str:
    usage = shutil.disk_usage(folder)
    inodes = os.statvfs(folder)
    if inodes.f_files and not inodes.f_favail:
        return f"no free inodes, so no file can be made there, {usage.free / 2**20:,.1f} MiB free"
    return f"{usage.free / 2**20:,.1f} MiB free of {usage.total / 2**20:,.1f}"


def _temporary() -> Path:
    # Not gettempdir(): where the first choice is full it silently returns another, and raises where none is left.
    return Path(os.environ.get("TMPDIR") or tempfile.tempdir or "/tmp")  # noqa: S108
