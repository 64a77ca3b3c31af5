"""Objects sent to DVC's remote and fetched from it, with progress and checks.

`dvc push --run-cache` can't do this: it sends the run-cache's entries without their objects, so they can't be restored.
It sends each entry again: 200 entries and nothing new took 5.2 s with an S3 server on this machine, against 1.0 s here;
`dvc fetch --run-cache` took 6.5 s against 1.6 s. Both show progress on a terminal only, and check no bytes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvc.config import NoRemoteError
from dvc.exceptions import DvcException
from dvc.fs import generic
from dvc.repo import Repo, lock_repo
from dvc_data.hashfile.db import get_index
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.transfer import transfer
from fsspec.callbacks import Callback

from flows.dvc.objects import Say, check_objects, object_path
from flows.dvc.put_back import lost, put_back
from flows.dvc.remote_config import RemoteError
from flows.dvc.remote_errors import explain, is_passing
from flows.dvc.repo import DvcRepo, PipelineError

PROGRESS_SECONDS = 10.0


@dataclass
class Transfer:
    """What was sent or fetched.

    Attributes:
        files: number of objects.
        bytes: their size.
        runs: number of entries of the run-cache.
        missing: hashes of the objects that are on neither side.
        objects: those that were sent or fetched.
        damaged: the fault of each fetched object that was damaged and is removed again, by hash.
        lost: the .dvc file of data and models that are on neither side, by path.
    """

    files: int = 0
    bytes: int = 0
    runs: int = 0
    missing: set[str] = field(default_factory=set)
    objects: set[HashInfo] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)


def send(root: Path, say: Say) -> Transfer:
    """Sends what dvc.lock and .dvc files name, and the run-cache with the objects of all its entries.

    Objects that the remote has aren't sent again; after an interruption, the next call continues.

    Raises:
        RemoteError: some objects weren't sent; the text has each reason once.
    """
    # DVC warns of each output that wasn't made yet, which is normal after `run --target`.
    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        repo = DvcRepo(root).dvc
        with lock_repo(repo):
            put_back(repo, say)
            used = repo.index.used_objs(push=True, force=True)
            objects = used.pop(None, set()) | _run_objects(repo)
    except (PipelineError, DvcException) as error:
        text = explain(error)
        text += "; `git checkout dvc.lock`, or remove it" * ("dvc.lock' validation" in text)
        raise RemoteError(text, is_passing(error)) from None
    result = _transfer(repo, objects, say, sending=True)
    try:
        # After their objects, without which they are useless.
        result.runs = len(_copy_runs(repo, sending=True))
        if used:  # outputs with a remote of their own
            repo.push()
        with lock_repo(repo):
            result.lost = lost(repo, result.missing)
    except Exception as error:
        raise RemoteError(explain(error), is_passing(error)) from None
    return result


def fetch(repo: Repo, objects: Iterable[HashInfo], say: Say) -> Transfer:
    """Fetches objects into the cache and hashes them there. `missing` are those that the remote lacks.

    Raises:
        RemoteError: the remote can't be reached, or objects that it has weren't fetched.
    """
    wanted = set(objects)
    lists = _fetch_lists(repo, wanted)
    bad = {one.hash: one for one in check_objects(repo, lists)}
    result = _transfer(repo, {one for one in wanted if one.value not in bad}, say, sending=False)
    result.objects |= lists
    bad |= {one.hash: one for one in check_objects(repo, result.objects)}
    fetched = {one.value for one in result.objects}
    for digest, one in bad.items():
        if digest in fetched:
            result.damaged[digest] = one.fault
        else:  # a file of a folder, which was in the cache before
            say(str(one))
    if result.damaged:
        get_index(repo.cloud.get_remote_odb(None, "pull")).clear()  # DVC's index lists them as present
    return result


def address(repo: Repo, digest: str) -> str:
    """The address of an object in the default remote."""
    remote = repo.cloud.get_remote_odb(None, "pull")
    return str(remote.fs.unstrip_protocol(remote.oid_to_path(digest)))


def _fetch_lists(repo: Repo, objects: set[HashInfo]) -> set[HashInfo]:
    """Fetches the lists of folders that the cache lacks as plain files: DVC's transfer fails on a damaged list.

    Returns those that were fetched. `_transfer` reports why others weren't.
    """
    cache = repo.cache.local
    lists = [one for one in objects if one.isdir and not cache.exists(one.value)]
    with contextlib.suppress(Exception):
        remote = repo.cloud.get_remote_odb(None, "pull")
        digests = [str(one.value) for one in lists]
        cache.add([remote.oid_to_path(one) for one in digests], remote.fs, digests, on_error=lambda *_: None)
    return {one for one in lists if cache.exists(one.value)}


def fetch_runs(repo: Repo) -> None:
    """Fetches the entries of the run-cache that this machine lacks, without their objects.

    Raises:
        RemoteError: the remote can't be reached.
    """
    try:
        _copy_runs(repo, sending=False)
    except Exception as error:
        raise RemoteError(explain(error), is_passing(error)) from None


def _run_objects(repo: Repo) -> set[HashInfo]:
    """The objects of the run-cache's entries that the cache has."""
    found: set[HashInfo] = set()
    for path in sorted(Path(repo.stage_cache.cache_dir).glob("*/*/*")):
        # An error: the list of a folder isn't in the cache any more.
        with contextlib.suppress(DvcException, FileNotFoundError):
            for objects in repo.stage_cache.get_used_objs([(path.parent.name, path.name)]).values():
                found |= objects
    return {one for one in found if repo.cache.local.exists(one.value)}


def _transfer(repo: Repo, objects: set[HashInfo], say: Say, *, sending: bool) -> Transfer:
    result = Transfer()
    if not objects:
        return result

    def check(status: Any) -> None:
        result.missing |= {one.value for one in status.missing}
        if sending:
            _check_before_sending(repo, status.new)

    with _failures() as errors:
        try:
            remote, cache = repo.cloud.get_remote_odb(None, "push" if sending else "pull"), repo.cache.local
            source, target = (cache, remote) if sending else (remote, cache)
            index = get_index(remote)
            done = transfer(
                source,
                target,
                objects,
                verify=not sending and remote.verify,
                validate_status=check,
                src_index=None if sending else index,
                dest_index=index if sending else None,
                cache_odb=cache,
                callback=_ProgressLines(say, "sent" if sending else "fetched"),
            )
        except NoRemoteError:
            raise RemoteError("no remote is set; set one up with `points2model remote URL`") from None
        except RemoteError:
            raise
        except Exception as error:
            raise RemoteError(explain(error), is_passing(error)) from None
    result.objects, result.files = done.transferred, len(done.transferred)
    for one in done.transferred:
        with contextlib.suppress(OSError):
            result.bytes += object_path(repo, one).stat().st_size
    if done.failed:
        reasons = "; ".join(sorted({explain(one) for one in errors})) or "DVC gives no reason"
        count = f"{len(done.failed)} of {len(done.failed) + result.files} files"
        passing = all(is_passing(one) for one in errors)
        raise RemoteError(f"{count} weren't {'sent' if sending else 'fetched'}: {reasons}", passing)
    return result


def _check_before_sending(repo: Repo, objects: Iterable[HashInfo]) -> None:
    damaged = check_objects(repo, objects)
    if damaged:
        lines = "\n".join(f"  {one}" for one in damaged)
        raise RemoteError(
            f"nothing was sent, since others would fetch damaged files:\n{lines}\nRun `points2model run`, which "
            "computes them again, then push again"
        )


def _copy_runs(repo: Repo, *, sending: bool) -> list[str]:
    """Copies the entries of the run-cache that the other side lacks; equal names have equal contents."""
    cache = repo.cache.legacy
    remote = repo.cloud.get_remote_odb(None, "push --run-cache", hash_name="md5-dos2unix")
    source, target = (cache, remote) if sending else (remote, cache)
    copied = sorted(set(_entries(source)) - set(_entries(target)))
    for entry in copied:
        origin = source.fs.join(source.path, "runs", *entry.split("/"))
        copy = target.fs.join(target.path, "runs", *entry.split("/"))
        target.fs.makedirs(target.fs.parent(copy), exist_ok=True)
        generic.copy(source.fs, origin, target.fs, copy)
    return copied


def _entries(odb: Any) -> Iterator[str]:
    folder = odb.fs.join(odb.path, "runs")
    if odb.fs.exists(folder):
        for path in odb.fs.find(folder):
            parts = odb.fs.parts(path)[-3:]
            if len(parts[-1]) == 64:  # other names: files that are being written
                yield "/".join(parts)


@contextlib.contextmanager
def _failures() -> Iterator[list[BaseException]]:
    """Collects the errors of a transfer: DVC logs them and returns only the failed objects."""
    errors: list[BaseException] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            errors.append(record.exc_info[1])
        return False

    logger = logging.getLogger("dvc_data.hashfile.transfer")
    logger.addFilter(collect)
    try:
        yield errors
    finally:
        logger.removeFilter(collect)


class _ProgressLines(Callback):
    """A line of progress every PROGRESS_SECONDS."""

    def __init__(self, say: Say, done: str) -> None:
        super().__init__()
        self._say, self._done = say, done
        self._next = time.monotonic() + PROGRESS_SECONDS

    def branched(self, *_: object, **__: object) -> Callback:
        return Callback()

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_SECONDS
            self._say(f"{self._done} {self.value} of {self.size} files")
