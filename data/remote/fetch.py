"""Files of a folder in S3 brought here: in parallel, verified, each content once.

A cache folder keeps every content under its hash, whatever its key, and trees of hard links to it are what others
read: an object that is renamed, copied, or in two sources is not downloaded again, and a killed download goes on.
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
    """Why one file could not be brought here; `reason` is one word for counting."""

    reason: str
    found: str
    expected: str


@dataclass(frozen=True)
class RemoteFolder:
    """A folder in S3, as listed at one moment.

    Attributes:
        source: its address, s3://BUCKET/PREFIX.
        objects: by name, the key's part below the folder.
        unsafe: keys whose names can't be those of files below a folder: with `..`, an empty part, a control character.
    """

    source: str
    bucket: str
    objects: Mapping[str, S3Object]
    unsafe: tuple[str, ...]
    client: Any = field(repr=False)


def open_remote(source: str) -> RemoteFolder:
    """Lists `s3://BUCKET/PREFIX`: all objects below it, or the one object of that key.

    Raises:
        S3Error: no such bucket, nothing there, no credentials, no network, and the like.
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
        step = "correct the address, or AWS_ENDPOINT_URL where the server isn't Amazon's"
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
    """Makes the folder `into` of the named files of `remote`, whole or not at all.

    Args:
        remote: from `open_remote`.
        names: relative to it; each may be there or not.
        cache: the folder of contents; may be shared by all sources, and by processes: they take turns.
        into: replaced as a whole.
        on_object: called in this thread with each object's size in bytes, once it is here.

    Returns:
        Why a name isn't in `into`, for each that isn't.

    Raises:
        S3Error: the server can't be used; what has come stays in the cache.
        DataError: the disk is full, say.
    """
    wanted = {name: remote.objects[name] for name in sorted(set(names)) if name in remote.objects}
    refused = {
        name: Refused("missing", "no such object", f"an object below {remote.source}")
        for name in sorted(set(names) - wanted.keys())
    }
    try:
        with _locked(cache):
            discard_partials(into.parent)
            contents, lost = _contents(remote, list(wanted.values()), cache, on_object)
            refused |= {name: lost[one.identity] for name, one in wanted.items() if one.identity in lost}
            with atomic_dir(into) as folder:
                for name, one in wanted.items():
                    if one.identity in contents:
                        problem = _link(contents[one.identity], folder / name)
                        refused |= {name: problem} if problem else {}
    except OSError as error:
        there = next(path for path in (cache.absolute(), *cache.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free / 2**20
        found = f"{error.strerror or error} at {error.filename or cache}, {free:,.1f} MiB free"
        raise DataError(
            Fault(remote.source, "download", found, "room and rights to write here", "mend it and run again")
        ) from None
    return refused


def local_copy(source: str, cache: Path) -> Path:
    """Where the files of a source lie here: a local path as it is, or a copy of all files of s3://BUCKET/PREFIX.

    The one object, where the address is an object's.

    Raises:
        S3Error: as `open_remote` and `fetch`, or objects that can't be had; all of them.
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
            Fault(remote.source, key, one.found, one.expected, "mend or remove the object, then run again")
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
    """The file in the cache of each object, by identity, and why those that aren't there aren't."""
    known = {path.name.partition("-")[0]: path for path in (cache / "objects").glob("??/*-*")}
    partial = cache / "partial"
    partial.mkdir(exist_ok=True)
    stopped = threading.Event()

    def bring(one: S3Object) -> Path:
        there = known.get(one.identity)
        if there is not None:
            # Verified anew: hard links share their bytes, and someone may have written to one.
            if file_digest(there, "sha256") == there.name.partition("-")[2]:
                return there
            there.unlink()
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
            waiting = {pool.submit(bring, one): one for one in first.values()}
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
    """Gives a content in the cache its name in a tree."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        found = f"an object {path.parent.name!r} beside objects below {path.parent.name + '/'!r}"
        return Refused("name_clash", found, "a name that is either a file's or a folder's")
    try:
        os.link(content, path)
    except IsADirectoryError:
        return Refused("name_clash", "a file and a folder of one name", "different names")
    except OSError:  # a file system without links, or of another device
        shutil.copyfile(content, path)
    return None
