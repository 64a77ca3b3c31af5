"""Downloads of folders in S3: in parallel, verified, each content once.

A cache folder has every content under its hash; readers use trees of hard links to it. So an object that is renamed,
copied, or in two sources is downloaded once, and a killed download is resumed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote

from data.errors import DataError, Fault
from data.remote.s3 import (
    CONNECTIONS,
    ObjectError,
    S3Error,
    S3Object,
    download,
    file_digest,
    list_objects,
    make_client,
)
from data.storage import atomic_dir, discard_partials, is_file_name, is_s3, split_s3


class Refused(NamedTuple):
    """Why a file could not be downloaded; `reason` is one word for counting."""

    reason: str
    found: str
    expected: str


@dataclass(frozen=True)
class RemoteFolder:
    """A folder in S3, as listed at one moment.

    Attributes:
        source: its address, s3://BUCKET/PREFIX.
        objects: by name, the part of the key below the folder.
        unsafe: keys that can't be names of files below a folder: with `..`, an empty part, a control character.
    """

    source: str
    bucket: str
    objects: Mapping[str, S3Object]
    unsafe: tuple[str, ...]
    client: Any = field(repr=False)


def open_remote(source: str) -> RemoteFolder:
    """List `s3://BUCKET/PREFIX`: all objects below it, or the one object of that key.

    Raises:
        S3Error: a missing bucket, no objects, no credentials, no network or similar.
    """
    try:
        bucket, prefix = split_s3(source)
    except ValueError as error:
        raise S3Error(
            Fault("params.yaml", "source", "another kind of address", str(error), "correct it")
        ) from None
    client = make_client()
    below = f"{prefix}/" if prefix else ""
    found = {one.key[len(below) :]: one for one in list_objects(client, bucket, below)}
    if not found and prefix:
        found = {
            PurePosixPath(one.key).name: one
            for one in list_objects(client, bucket, prefix)
            if one.key == prefix
        }
    if not found:
        step = "correct the address, or AWS_ENDPOINT_URL if the server isn't Amazon's"
        raise S3Error(Fault(source, "S3", "no object there", "objects below this prefix", step))
    safe = {name: one for name, one in found.items() if is_file_name(name)}
    unsafe = tuple(one.key for name, one in found.items() if name not in safe)
    return RemoteFolder(source, bucket, safe, unsafe, client)


def fetch(
    remote: RemoteFolder,
    names: Iterable[str],
    cache: Path,
    into: Path,
    on_object: Callable[[int], None] = lambda size: None,
) -> dict[str, Refused]:
    """Download the named files of `remote` into the folder `into`, atomically.

    Args:
        remote: from `open_remote`.
        names: relative to it; a name may be missing there.
        cache: the folder of contents; all sources may share it, and processes, of which one runs at a time.
        into: replaced as a whole.
        on_object: called in this thread with the size in bytes of each finished object.

    Returns:
        Why a name isn't in `into`, for each that isn't.

    Raises:
        S3Error: the server can't be used; finished downloads stay in the cache.
        DataError: files can't be written, for example on a full disk.
    """
    requested = {name: remote.objects[name] for name in sorted(set(names)) if name in remote.objects}
    refused = {
        name: Refused("missing", "no such object", f"an object below {remote.source}")
        for name in sorted(set(names) - requested.keys())
    }
    try:
        with _locked(cache):
            discard_partials(into.parent)
            contents, lost = _contents(remote, list(requested.values()), cache, on_object)
            refused |= {name: lost[one.identity] for name, one in requested.items() if one.identity in lost}
            with atomic_dir(into) as folder:
                for name, one in requested.items():
                    if one.identity in contents:
                        problem = _link(contents[one.identity], folder / name)
                        refused |= {name: problem} if problem else {}
    except OSError as error:
        there = next(path for path in (cache.absolute(), *cache.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free / 2**20
        found = f"{error.strerror or error} at {error.filename or cache}, {free:,.1f} MiB free"
        raise DataError(
            Fault(
                remote.source,
                "download",
                found,
                "disk space and write permission here",
                "fix it and run again",
            )
        ) from None
    return refused


def local_copy(source: str, cache: Path) -> Path:
    """The local path of a source: a local path itself, or a download of all files of s3://BUCKET/PREFIX.

    If the address is that of an object, the path is that of its file.

    Raises:
        S3Error: see `open_remote` and `fetch`; also if any object can't be downloaded, with all of them.
    """
    if not is_s3(source):
        return Path(source)
    remote = open_remote(source)
    into = cache / "trees" / quote("/".join(split_s3(source)), safe="")
    refused = fetch(remote, remote.objects, cache, into)
    refused |= {
        key: Refused("unsafe_path", f"key {key!r}", "a name without '..', empty parts and control characters")
        for key in remote.unsafe
    }
    if refused:
        raise S3Error(
            Fault(remote.source, key, one.found, one.expected, "fix or remove the object, then run again")
            for key, one in sorted(refused.items())
        )
    only = list(remote.objects.items())
    return into / only[0][0] if len(only) == 1 and only[0][1].key == split_s3(source)[1] else into


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _contents(
    remote: RemoteFolder, objects: list[S3Object], cache: Path, on_object: Callable[[int], None]
) -> tuple[dict[str, Path], dict[str, Refused]]:
    """The file in the cache of each object by identity; and for those that could not be downloaded, why."""
    known = {path.name.partition("-")[0]: path for path in (cache / "objects").glob("??/*-*")}
    partial = cache / "partial"
    partial.mkdir(exist_ok=True)
    stopped = threading.Event()

    def get(one: S3Object) -> Path:
        cached = known.get(one.identity)
        if cached is not None:
            # Verified again: hard links share their bytes, and a program may have written to one.
            if file_digest(cached, "sha256") == cached.name.partition("-")[2]:
                return cached
            cached.unlink()
        digest = download(remote.client, remote.bucket, one, partial / one.identity, stopped)
        path = cache / "objects" / one.identity[:2] / f"{one.identity}-{digest}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return (partial / one.identity).replace(path)

    contents: dict[str, Path] = {}
    lost: dict[str, Refused] = {}
    first = {one.identity: one for one in objects}
    keys = Counter(one.identity for one in objects)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        try:
            waiting = {pool.submit(get, one): one for one in first.values()}
            for done in as_completed(waiting):
                one = waiting[done]
                try:
                    contents[one.identity] = done.result()
                except ObjectError as error:
                    (partial / one.identity).unlink(missing_ok=True)
                    lost[one.identity] = Refused("download", *map(str, error.args))
                for _ in range(keys[one.identity]):
                    on_object(one.size)
        except BaseException:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    return contents, lost


def _link(content: Path, path: Path) -> Refused | None:
    """Link a content of the cache into a tree."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        found = f"an object {path.parent.name!r} and objects below {path.parent.name + '/'!r}"
        return Refused("name_clash", found, "a name that is either a file's or a folder's")
    try:
        os.link(content, path)
    except IsADirectoryError:
        return Refused("name_clash", "a file and a folder of one name", "different names")
    except OSError:  # a file system without hard links, or another device
        shutil.copyfile(content, path)
    return None
