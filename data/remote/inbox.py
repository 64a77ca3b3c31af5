"""An inbox: a folder, or a prefix in S3, where other programs put files: what lies there, and since when unchanged.

Only whole files should be taken from it, and nothing tells that a writer is done. So a file counts as complete when it
hasn't changed for a while, by the clock of whoever stores it, and while it has the name that it is meant to keep.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from data import storage
from data.errors import DataError, Fault
from data.remote.fetch import RemoteFolder, fetch
from data.remote.s3 import S3Error, S3Object, explain, make_client
from data.storage import is_file_name, is_s3, split_s3

CLOCK_BACK_S = 3600.0
"""A file that is this far in the future was written before the clock was set back; servers' clocks differ by less."""
UNFINISHED = (
    ".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", ".download", ".swp", "~",
)  # fmt: skip
"""Endings (in any case) that programs give to files which they still write, and editors to their copies."""


class InboxFile(NamedTuple):
    """A file as a listing tells it.

    Attributes:
        name: its path below the inbox, with slashes.
        size: bytes.
        age: seconds since it was last written, renamed or replaced.
        identity: changes when the file does.
        etag: of an object in S3, which names its content wherever it is listed; None for local files.
    """

    name: str
    size: int
    age: float
    identity: str
    etag: str | None


class Listing(NamedTuple):
    """All files of an inbox by name, and names that can't be those of files below a folder, which are never taken."""

    files: dict[str, InboxFile]
    unsafe: list[str]


class Inbox:
    """The files below `source`, a folder or s3://bucket/prefix, to any depth."""

    def __init__(self, source: str) -> None:
        """
        Raises:
            DataError: s3://... isn't an address in S3.
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
        """What lies there now, but hidden and unfinished names; an empty prefix in S3 is an empty inbox.

        Raises:
            DataError: no such folder, or (an S3Error) the server can't be used.
        """
        found = self._objects() if self.is_s3 else self._paths()
        named = {one.name: one for one in found if not is_unfinished(one.name)}
        unsafe = sorted(name for name in named if not is_file_name(name))
        return Listing({name: named[name] for name in sorted(named.keys() - set(unsafe))}, unsafe)

    def bring(self, files: Iterable[InboxFile], cache: Path, into: Path) -> dict[str, str]:
        """Copies files, as they were listed, into a new folder `into`; S3's are verified.

        Args:
            files: of a listing of this inbox.
            cache: a folder for what comes from S3, which isn't downloaded again while it is there.
            into: replaced as a whole.

        Returns:
            Why a file isn't in `into`, for each that isn't: it changed or went meanwhile, say.

        Raises:
            DataError: the disk is full, say, or (an S3Error) the server can't be used.
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
                    if (problem := self._copy(one, target)) is not None:
                        target.unlink(missing_ok=True)
                        lost[one.name] = problem
        except OSError as error:
            found = f"{error.strerror or error} at {error.filename or into}"
            raise DataError(
                Fault(self.source, "inbox", found, "room and rights to write here", "mend it and run again")
            ) from None
        return lost

    def digest(self, one: InboxFile) -> str | None:
        """SHA-256 (hex) of a local file's bytes as listed; None where it isn't local, has changed or can't be read."""
        if self.is_s3:
            return None
        try:
            with (Path(self.source) / one.name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return digest if _identity(os.fstat(file.fileno())) == one.identity else None
        except OSError:
            return None

    def _copy(self, one: InboxFile, target: Path) -> str | None:
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
                except OSError:  # gone, or a link to nothing
                    continue
                name = (at.relative_to(root) / entry.name).as_posix()
                # Not the time of modification: copies keep their original's, and unpacking sets any.
                age = now - stat.st_ctime
                if age < -CLOCK_BACK_S:
                    age = -age  # else it would be settling until the clock is there again
                yield InboxFile(name, stat.st_size, age, _identity(stat), None)

    def _objects(self) -> Iterable[InboxFile]:
        import botocore.exceptions

        below = self._key("")
        try:
            pages = (
                self._connect().get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=below)
            )
            for page in pages:
                now = _answered_at(page)
                for row in page.get("Contents", []):
                    if row["Key"].endswith("/"):
                        continue
                    # A server without ETags: the time of writing stands for the content.
                    etag = row.get("ETag", "").strip('"') or f"{row['Key']} {row['LastModified'].isoformat()}"
                    changed: datetime = row["LastModified"]
                    age = now - changed.timestamp()
                    yield InboxFile(
                        row["Key"][len(below) :], int(row["Size"]), age, f"{etag} {row['Size']}", etag
                    )
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            raise S3Error(explain(error, self.source)) from None

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


def _answered_at(page: dict[str, Any]) -> float:
    """The server's own clock (s since 1970): ours may be minutes off. Ours where it doesn't tell."""
    date = page.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return parsedate_to_datetime(date).timestamp() if date else time.time()
    except ValueError:
        return time.time()
