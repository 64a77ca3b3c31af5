"""DVC's remotes from within: a real try of one, objects sent and fetched with progress.

With flows/dvc/repo.py the only use of DVC's Python internals (tests/flows/test_dvc_remote.py guards them). What is
done here beside `dvc push` and `pull`: progress in lines, the objects of all entries of the run-cache (`dvc push
--run-cache` sends the entries alone, promises that nobody could keep), and entries that are there aren't sent again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvc.config import Config, NoRemoteError
from dvc.exceptions import DvcException
from dvc.fs import generic, get_cloud_fs
from dvc.repo import Repo, lock_repo
from dvc_data.hashfile.db import get_index
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.transfer import transfer
from fsspec.callbacks import Callback

from flows.dvc.damage import check_objects
from flows.dvc.remote_config import RemoteError
from flows.dvc.remote_errors import explain, is_passing
from flows.dvc.repo import DvcRepo, PipelineError

PROBE = "points2model-probe-"
PROGRESS_SECONDS = 10.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Probe:
    """What a try of a remote came to. `error` is what stops its use, `warning` what doesn't."""

    readable: bool
    writable: bool
    error: str | None = None
    warning: str | None = None
    passing: bool = False
    seconds: float = 0.0


@dataclass
class Transfer:
    """What was sent or fetched: files and bytes, entries of the run-cache; hashes that lie on neither side; which came;
    what is wrong with those that came damaged, and were taken out of the cache again."""

    files: int = 0
    bytes: int = 0
    runs: int = 0
    missing: set[str] = field(default_factory=set)
    came: set[HashInfo] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)


def probe(
    root: Path, name: str, options: dict[str, str] | None, seconds: float, *, write: bool = True
) -> Probe:
    """Writes a small file to a remote, reads, lists and deletes it, as DVC would with the same settings.

    Args:
        root: the project's folder.
        name: of the remote; need not be in DVC's configuration where `options` are given.
        options: `url` and so on, laid over the configuration; None: as configured.
        seconds: how long to wait for it all. Clients try again for many minutes where a server is silent.
        write: false: only list it.
    """
    results: list[Probe] = []
    started = time.monotonic()
    thread = threading.Thread(target=lambda: results.append(_probe(root, name, options, write)), daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        return Probe(False, False, f"no answer in {seconds:.0f} s", None, True, seconds)
    (result,) = results
    took = round(time.monotonic() - started, 1)
    return Probe(result.readable, result.writable, result.error, result.warning, result.passing, took)


def _probe(root: Path, name: str, options: dict[str, str] | None, write: bool) -> Probe:
    config = None if options is None else {"remote": {name: options}}
    readable, writable, doing = False, False, "be set up"
    try:
        cls, settings, folder = get_cloud_fs(Config(str(root / ".dvc"), config=config), name=name)
        fs = cls(**settings)
        path, content = fs.join(folder, PROBE + uuid.uuid4().hex), uuid.uuid4().bytes
        if write:
            doing = "be written"
            fs.makedirs(folder, exist_ok=True)
            fs.pipe_file(path, content)
            writable, doing = True, "be read"
            if fs.cat_file(path) != content:
                return Probe(False, True, "can't be used: what was read isn't what was written")
        doing = "be read"
        _list(fs, folder)
        readable = True
    except Exception as error:
        passing = is_passing(error)
        if doing == "be written" and not passing:
            readable = _lists(fs, folder)
        return Probe(readable, writable, f"can't {doing}: {explain(error)}", None, passing)
    if not write:
        return Probe(True, False)
    try:
        fs.remove(path)
    except Exception as error:
        left = f"can't delete ({explain(error)}): {path} stays there, and `dvc gc --cloud` won't work"
        return Probe(True, True, None, left)
    return Probe(True, True)


def _lists(fs: Any, folder: str) -> bool:
    try:
        _list(fs, folder)
    except Exception:
        return False
    return True


def _list(fs: Any, folder: str) -> None:
    """Asks for what lies there. A prefix that nothing has yet is as good as any; a bucket that isn't there isn't."""
    try:
        fs.ls(folder, detail=False)
    except FileNotFoundError:
        if fs.protocol == "s3":
            fs.ls(folder.split("/", maxsplit=1)[0], detail=False)
        else:
            raise


def send(root: Path, say: Say, repo: Repo | None = None) -> Transfer:
    """Sends what dvc.lock and .dvc files name, and the run-cache with the objects of all its entries.

    What is there isn't sent again; an interrupted call leaves whole objects alone, and the next one goes on.

    Raises:
        RemoteError: some objects didn't arrive; all reasons, once each.
    """
    # DVC warns of each output that wasn't made yet: after `run --target` that is as it should be.
    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        repo = repo or DvcRepo(root).dvc
        with lock_repo(repo):
            objects = _used(repo) | _of_runs(repo, None)
    except (PipelineError, DvcException) as error:
        told = explain(error)
        told += "; `git checkout dvc.lock`, or remove it" * ("dvc.lock' validation" in told)
        raise RemoteError(told, is_passing(error)) from None
    result = _transfer(repo, objects, say, sending=True)
    try:
        # Last, since an entry without its objects is of no use; and objects of other kinds (cloud-versioned ones).
        result.runs = len(_copy_runs(repo, sending=True))
        repo.push()
    except Exception as error:
        raise RemoteError(explain(error), is_passing(error)) from None
    return result


def fetch(repo: Repo, objects: Iterable[HashInfo], say: Say) -> Transfer:
    """Brings objects into the cache, and hashes them there. Those that the remote lacks are in `missing`.

    Raises:
        RemoteError: it can't be reached, or objects that it has didn't come.
    """
    wanted = set(objects)
    lists = _fetch_lists(repo, wanted)
    bad = {one.hash: one for one in check_objects(repo, lists)}
    result = _transfer(repo, {one for one in wanted if one.value not in bad}, say, sending=False)
    result.came |= lists
    bad |= {one.hash: one for one in check_objects(repo, result.came)}
    came = {one.value for one in result.came}
    for digest, one in bad.items():
        if digest in came:
            result.damaged[digest] = one.fault
        else:  # a file of a folder that lay here before
            say(str(one))
    if result.damaged:
        get_index(repo.cloud.get_remote_odb(None, "pull")).clear()  # it takes them for sound
    return result


def address(repo: Repo, digest: str) -> str:
    """Where the default remote keeps an object."""
    remote = repo.cloud.get_remote_odb(None, "pull")
    return str(remote.fs.unstrip_protocol(remote.oid_to_path(digest)))


def _fetch_lists(repo: Repo, objects: set[HashInfo]) -> set[HashInfo]:
    """Brings the lists of folders that the cache lacks, as they are: DVC's transfer breaks on one that is no list.
    Returns which came; why one doesn't, `_transfer` tells."""
    here = repo.cache.local
    lists = [one for one in objects if one.isdir and not here.exists(one.value)]
    with contextlib.suppress(Exception):
        remote = repo.cloud.get_remote_odb(None, "pull")
        digests = [str(one.value) for one in lists]
        here.add([remote.oid_to_path(one) for one in digests], remote.fs, digests, on_error=lambda *_: None)
    return {one for one in lists if here.exists(one.value)}


def fetch_runs(repo: Repo) -> int:
    """Brings the run-cache's entries that aren't here; returns how many. Their objects come when one is needed.

    Raises:
        RemoteError: the remote can't be reached.
    """
    try:
        return len(_copy_runs(repo, sending=False))
    except Exception as error:
        raise RemoteError(explain(error), is_passing(error)) from None


def _used(repo: Repo) -> set[HashInfo]:
    """What dvc.lock and .dvc files name; of outputs that have a remote of their own, nothing."""
    used = repo.index.used_objs(push=True, force=True)
    return {one for odb, objects in used.items() if odb is None for one in objects}


def _of_runs(repo: Repo, only: set[tuple[str, str]] | None) -> set[HashInfo]:
    """The objects of the run-cache's entries, those that are in the cache whole."""
    cache = repo.stage_cache
    folder = Path(cache.cache_dir)
    entries = only if only is not None else {(p.parent.name, p.name) for p in folder.glob("*/*/*")}
    found: set[HashInfo] = set()
    for entry in sorted(entries):
        with contextlib.suppress(
            DvcException, FileNotFoundError
        ):  # its folder's list was collected as garbage
            for objects in cache.get_used_objs([entry]).values():
                found |= objects
    here = repo.cache.local
    return {one for one in found if here.exists(one.value)}


def _transfer(repo: Repo, objects: set[HashInfo], say: Say, *, sending: bool) -> Transfer:
    result = Transfer()
    if not objects:
        return result
    with _Failures() as failures:
        try:
            remote = repo.cloud.get_remote_odb(None, "push" if sending else "pull")
            here = repo.cache.local
            source, target = (here, remote) if sending else (remote, here)
            index = get_index(remote)

            def note(status: Any) -> None:
                result.missing |= {one.value for one in status.missing}
                bad = check_objects(repo, status.new) if sending else []
                if bad:
                    told = "\n".join(f"  {one}" for one in bad)
                    raise RemoteError(
                        f"nothing was sent, as colleagues would use it:\n{told}\nMake it anew by `points2model run`, "
                        "then push again"
                    )

            done = transfer(
                source,
                target,
                objects,
                verify=not sending and remote.verify,
                validate_status=note,
                src_index=None if sending else index,
                dest_index=index if sending else None,
                cache_odb=here,
                callback=_Lines(say, "sent" if sending else "fetched"),
            )
            result.came = done.transferred
            result.files = len(done.transferred)
            result.bytes = sum(_size(here, one) for one in done.transferred)
        except NoRemoteError:
            raise RemoteError("no remote is set; set one up with `points2model remote URL`") from None
        except RemoteError:
            raise
        except Exception as error:
            raise RemoteError(explain(error), is_passing(error)) from None
    if done.failed:
        told = "; ".join(sorted({explain(one) for one in failures.errors})) or "no reason was told"
        way = "reach the remote" if sending else "come from the remote"
        passing = all(is_passing(one) for one in failures.errors)
        raise RemoteError(
            f"{len(done.failed)} of {len(done.failed) + result.files} files didn't {way}: {told}", passing
        )
    return result


def _size(here: Any, one: HashInfo) -> int:
    with contextlib.suppress(OSError):
        return Path(here.oid_to_path(one.value)).stat().st_size
    return 0


def _copy_runs(repo: Repo, *, sending: bool) -> list[str]:
    """Copies the entries that the other side lacks: each is named by its content, so none is ever different."""
    here = repo.cache.legacy
    remote = repo.cloud.get_remote_odb(None, "push --run-cache", hash_name="md5-dos2unix")
    source, target = (here, remote) if sending else (remote, here)
    there = set(_entries(target))
    copied = []
    for entry in _entries(source):
        if entry not in there:
            at = source.fs.join(source.path, "runs", *entry.split("/"))
            to = target.fs.join(target.path, "runs", *entry.split("/"))
            target.fs.makedirs(target.fs.parent(to), exist_ok=True)
            generic.copy(source.fs, at, target.fs, to)
            copied.append(entry)
    return copied


def _entries(odb: Any) -> Iterator[str]:
    folder = odb.fs.join(odb.path, "runs")
    if odb.fs.exists(folder):
        for path in odb.fs.find(folder):
            parts = odb.fs.parts(path)[-3:]
            if len(parts[-1]) == 64:  # not a file that is being written
                yield "/".join(parts)


class _Failures(logging.Handler):
    """Collects why objects failed: DVC logs it and returns only which."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []
        self._logger = logging.getLogger("dvc_data.hashfile.transfer")

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.append(record.exc_info[1])

    def __enter__(self) -> _Failures:
        self._logger.addHandler(self)
        self._propagated, self._logger.propagate = self._logger.propagate, False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated


class _Lines(Callback):
    """Progress as a line every ten seconds, and one at the end."""

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
