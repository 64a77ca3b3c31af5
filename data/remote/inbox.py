"""An inbox: a folder, or a prefix in S3, where other programs put files. It is listed with the age of each file.

Only complete files may be taken from it, but nothing signals the end of writing. So a file counts as complete if it
hasn't changed for some time, by the clock of its storage, and doesn't have the name of an unfinished file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from data import storage
from data.errors import DataError, Fault
from data.remote.fetch import RemoteFolder, fetch
from data.remote.s3 import S3Object, list_objects, make_client
from data.storage import is_file_name, is_s3, split_s3

CLOCK_BACK_S = 3600.0
"""A file this far in the future was written before the clock was set back; clocks of servers differ by less."""
UNFINISHED = (
    ".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", ".download", ".swp", "~",
)  # fmt: skip
"""Suffixes (in any case) of files that programs are still writing, and of editors' copies."""


class InboxFile(NamedTuple):
    """A file in a listing.

    Attributes:
        name: its path below the inbox, with slashes.
        size: bytes.
        age: seconds since it was last written, renamed or replaced.
        identity: changes with the file.
        etag: of an object in S3; None for local files.
    """

    name: str
    size: int
    age: float
    identity: str
    etag: str | None


class Listing(NamedTuple):
    """All files of an inbox by name; `unsafe` are names that can't be those of files below a folder."""

    files: dict[str, InboxFile]
    unsafe: list[str]


class Inbox:
    """The files below `source`, a folder or s3://bucket/prefix, to any depth."""

    def __init__(self, source: str) -> None:
        """
        Raises:
            DataError: an invalid address in S3.
        """
        self.source = source
        self.is_s3 = is_s3(source)
        self._client: Any = None
        if self.is_s3:
            try:
                self._bucket, self._prefix = split_s3(source)
            except ValueError as error:
                fault = Fault(
                    "params.yaml", "operate.inbox.source", "another address", str(error), "correct it"
                )
                raise DataError(fault) from None

    def list(self) -> Listing:
        """The current files, without hidden and unfinished ones; an empty prefix in S3 is an empty inbox.

        Raises:
            DataError: a missing folder, or (an S3Error) the server can't be used.
        """
        found = self._objects() if self.is_s3 else self._paths()
        named = {one.name: one for one in found if not is_unfinished(one.name)}
        unsafe = sorted(name for name in named if not is_file_name(name))
        return Listing({name: named[name] for name in sorted(named.keys() - set(unsafe))}, unsafe)

    def copy(self, files: Iterable[InboxFile], cache: Path, into: Path) -> dict[str, str]:
        """Copy files, as they were listed, into a new folder `into`; downloads from S3 are verified.

        Args:
            files: of a listing of this inbox.
            cache: a folder for downloads, which are not repeated while they are in it.
            into: replaced as a whole.

        Returns:
            Why a file isn't in `into`, for each that isn't, such as one that has changed since.

        Raises:
            DataError: files can't be written, for example on a full disk, or (an S3Error) the server can't be used.
        """
        if self.is_s3:
            objects = {
                one.name: S3Object(self._key(one.name), one.size, one.etag or one.identity) for one in files
            }
            remote = RemoteFolder(self.source, self._bucket, objects, (), self._connect())
            refused = fetch(remote, objects, cache, into)
            return {name: f"{one.found}; expected {one.expected}" for name, one in refused.items()}
        lost: dict[str, str] = {}
        try:
            with storage.atomic_dir(into) as folder:
                for one in files:
                    target = folder / one.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if (problem := self._copy_file(one, target)) is not None:
                        target.unlink(missing_ok=True)
                        lost[one.name] = problem
        except OSError as error:
            found = f"{error.strerror or error} at {error.filename or into}"
            raise DataError(
                Fault(
                    self.source,
                    "inbox",
                    found,
                    "disk space and write permission here",
                    "fix it and run again",
                )
            ) from None
        return lost

    def digest(self, one: InboxFile) -> str | None:
        """SHA-256 (hex) of a local file as listed; None if it is in S3, has changed or can't be read."""
        if self.is_s3:
            return None
        try:
            with (Path(self.source) / one.name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return digest if _identity(os.fstat(file.fileno())) == one.identity else None
        except OSError:
            return None

    def _copy_file(self, one: InboxFile, target: Path) -> str | None:
        try:
            source = (Path(self.source) / one.name).open("rb")
        except OSError as error:
            return f"found {error.strerror or error}; expected a file that can be read"
        with source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
            if _identity(os.fstat(source.fileno())) != one.identity:
                return "found a file that changed meanwhile; expected one that is complete"
        return None

    def _paths(self) -> Iterable[InboxFile]:
        root, now = Path(self.source), time.time()
        if not root.is_dir():
            step = "make it, or correct operate.inbox.source in params.yaml"
            raise DataError(
                Fault(self.source, "inbox", "no such folder", "a folder of new point files", step)
            )
        for at, entries in storage.walk(root):
            for entry in entries:
                try:
                    stat = entry.stat()
                except OSError:  # removed since, or a broken link
                    continue
                name = (at.relative_to(root) / entry.name).as_posix()
                # Not the time of modification, which copying and unpacking may preserve.
                age = now - stat.st_ctime
                if age < -CLOCK_BACK_S:
                    age = -age  # else it would be too young until the clock reaches that time again
                yield InboxFile(name, stat.st_size, age, _identity(stat), None)

    def _objects(self) -> Iterable[InboxFile]:
        below = self._key("")
        for one in list_objects(self._connect(), self._bucket, below):
            identity = f"{one.etag} {one.size}"
            yield InboxFile(one.key[len(below) :], one.size, one.age, identity, one.etag)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _connect(self) -> Any:
        if self._client is None:
            self._client = make_client()
        return self._client


def is_unfinished(name: str) -> bool:
    """Whether a name is hidden, in a hidden folder, or one of a file that is still being written."""
    parts = [part for part in PurePosixPath(name).parts if part != ".."]
    return any(part.startswith((".", "~$")) for part in parts) or name.lower().endswith(UNFINISHED)


def _identity(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
