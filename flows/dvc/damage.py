"""Bytes that come back are checked: objects of DVC's cache against their names, outputs against dvc.lock.

DVC itself takes both on trust. A file of its cache that is read-only is never hashed, and what a checkout lays into the
workspace is noted in DVC's state under the hash that it should have, so that `dvc status` finds nothing either. Here
the bytes are read: objects whenever they are restored, fetched or sent; outputs that lie in the workspace once, and
again when size, time or inode of a file changes (`RECORD`).

What is damaged is taken away, so that DVC finds it missing: then it is restored or fetched, or its stage runs. Outputs
of stages are deleted; data under `dvc add` and promoted models, which nothing can make anew, are kept in `.dvc/tmp`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.fs import localfs
from dvc.output import Output
from dvc.repo import Repo, lock_repo
from dvc.stage import PipelineStage, Stage
from dvc_data.hashfile.build import build
from dvc_data.hashfile.hash import hash_file
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.state import StateNoop
from dvc_data.hashfile.tree import Tree

from data.storage import atomic_write
from flows.dvc.repo import DvcRepo, PipelineError, check_vouched, is_hash

RECORD = "points2model-checked.json"
"""In DVC's folder for temporary files: output -> [its hash, a hash of its files' sizes, times and inodes] of those
outputs in the workspace that were found whole. It may be removed at any time."""
KEPT = "damaged"
"""The folder beside it with damaged data and models."""
Say = Callable[[str], None]
_LEGACY = "md5-dos2unix"


class DamageError(PipelineError):
    """Something damaged can't be replaced, nor made anew; the text says what, where it lies, and what to do next."""


@dataclass(frozen=True)
class Damaged:
    """An object of DVC's cache that isn't what its name says; the text says what became of it."""

    hash: str
    fault: str
    text: str

    def __str__(self) -> str:
        return self.text


def check_objects(repo: Repo, objects: Iterable[HashInfo], *, keep: bool = False) -> list[Damaged]:
    """Hashes objects, those that the cache has, and the files of those that are folders; takes damaged ones away.

    Args:
        repo: DVC's own.
        objects: by their hashes, as dvc.lock, .dvc files and the run-cache name them.
        keep: nothing can make them anew, so damaged ones are moved to `KEPT`, else deleted.

    Raises:
        DamageError: a damaged one can't be taken away, or a folder's list names files outside of the folder.
    """
    found: list[Damaged] = []
    seen: set[HashInfo] = set()
    waiting = [one for one in objects if one]
    while waiting:
        one = waiting.pop()
        path = object_path(repo, one)
        if one in seen or not os.path.lexists(path):
            continue
        seen.add(one)
        fault = _fault(path, one)
        if fault is None:
            waiting += _files(repo, one) if one.isdir else []
            continue
        where = _shown(repo, path)
        gone = _take_away(repo, path, str(one.value), f"{where}: {fault}", keep)
        text = f"{where} in DVC's cache is damaged: {fault}, expected hash {one.value}, which it is named by; {gone}"
        found.append(Damaged(str(one.value), fault, text))
    return found


def take_away_damaged(repo: DvcRepo, names: list[str], say: Say) -> list[str]:
    """Hashes outputs of stages, and data under DVC that they read, that lie in the workspace; takes damaged ones away.

    Damaged is what DVC believes to be whole and isn't: what came from a damaged object, be it a copy or a link. What a
    person edited since is not: DVC notices it. What is whole by `RECORD` isn't read again.

    Returns:
        the paths taken away.

    Raises:
        DamageError: one can't be read, or can't be taken away.
    """
    record, gone = _Record(repo.dvc), []
    with lock_repo(repo.dvc):
        for stage, out in _other_than_vouched(repo, names, record):
            lies = _believed(out)
            bad = check_objects(repo.dvc, {out.hash_info}, keep=is_data(stage))
            for one in bad:
                say(str(one))
            if lies or bad:
                path, fault = Path(out.fs_path), _not_as_vouched(repo, stage, out)
                say(f"{fault}; {_take_away(repo.dvc, path, str(out.hash_info.value), fault, is_data(stage))}")
                gone.append(_shown(repo.dvc, path))
    record.save()
    return gone


def damaged_outputs(repo: DvcRepo, names: list[str]) -> list[str]:
    """What `take_away_damaged` would take away, in words, but for outputs that DVC sees are changed; nothing is.

    Raises:
        DamageError: one can't be read.
    """
    with lock_repo(repo.dvc):
        return [
            _not_as_vouched(repo, stage, out)
            for stage, out in _other_than_vouched(repo, names, _Record(repo.dvc))
            if _believed(out)
        ]


def _other_than_vouched(repo: DvcRepo, names: list[str], record: _Record) -> Iterator[tuple[Stage, Output]]:
    """The outputs in the workspace whose bytes aren't those of dvc.lock or the .dvc file; notes those that are.

    Raises:
        DamageError: one can't be read, so nobody can say.
    """
    for stage in repo.with_data(names):
        for out in stage.outs:
            if _is_ours(out) and os.path.lexists(out.fs_path) and not record.has(out):
                row = record.row(out)
                try:
                    whole = _built(out).hash_info == out.hash_info
                except FileNotFoundError:
                    continue  # gone, or a link to what is gone: DVC notices it
                except OSError as error:
                    where, why = error.filename or out.fs_path, error.strerror or error
                    raise DamageError(
                        f"{_shown(repo.dvc, Path(where))}: can't be read ({why}), so that it can't be compared with "
                        f"what {_source(stage)} says of {_shown(repo.dvc, Path(out.fs_path))}; look at the disk and "
                        "the rights, or remove it, and run again"
                    ) from None
                if whole:
                    record.add(out, row)
                else:
                    yield stage, out


def _not_as_vouched(repo: DvcRepo, stage: Stage, out: Output) -> str:
    where = _shown(repo.dvc, Path(out.fs_path))
    return f"{where} is damaged: it isn't of hash {out.hash_info.value}, as {_source(stage)} says"


def check_cached(repo: DvcRepo, names: list[str], say: Say) -> dict[str, list[Damaged]]:
    """Hashes the cache's objects of outputs that aren't in the workspace, before they are restored from it.

    Returns:
        the damaged ones, by output; they are taken away.
    """
    found: dict[str, list[Damaged]] = {}
    with lock_repo(repo.dvc):
        for stage in repo.with_data(names):
            for out in stage.outs:
                if _is_ours(out) and not os.path.lexists(out.fs_path):
                    bad = check_objects(repo.dvc, {out.hash_info}, keep=is_data(stage))
                    for one in bad:
                        say(str(one))
                    if bad:
                        found[_shown(repo.dvc, Path(out.fs_path))] = bad
    return found


def check_pointer(root: Path, pointer: str) -> list[Damaged]:
    """Hashes the cache's objects of what a .dvc file names; takes damaged ones away, and keeps them in `KEPT`.

    Raises:
        PipelineError: the file names no hash, or a damaged one can't be taken away.
    """
    opened = DvcRepo(root)
    repo = opened.dvc
    with lock_repo(repo):
        stages = opened.pointed(pointer)
        for stage in stages:
            check_vouched(stage)
        wanted = {out.hash_info for stage in stages for out in stage.outs if out.hash_info}
        return check_objects(repo, wanted, keep=True)


def check_before_add(root: Path, folder: Path) -> list[Damaged]:
    """Takes damaged objects of the same names as the files of a folder away: `dvc add` would keep them in its place."""
    repo = DvcRepo(root).dvc
    with lock_repo(repo):
        _, _, tree = build(_stateless(repo.cache.local), str(folder), localfs, "md5", dry_run=True)
        files = {file for _, _, file in tree if file} if isinstance(tree, Tree) else set()
        return check_objects(repo, {tree.hash_info, *files})


def set_aside(root: Path, folder: Path, name: str) -> str:
    """Moves a folder that isn't what it should be to `KEPT`; says where it is."""
    return _take_away(DvcRepo(root).dvc, folder, name, f"{folder}: damaged", keep=True)


def note_whole(repo: DvcRepo, names: list[str], paths: Iterable[str]) -> None:
    """Notes outputs as whole that were restored from objects which `check_objects` has just read."""
    record, wanted = _Record(repo.dvc), set(paths)
    with lock_repo(repo.dvc):
        for stage in repo.with_data(names):
            for out in stage.outs:
                if _shown(repo.dvc, Path(out.fs_path)) in wanted and os.path.lexists(out.fs_path):
                    record.add(out, record.row(out))
    record.save()


def lost_data(repo: DvcRepo, names: list[str]) -> dict[str, str]:
    """Data under DVC that these stages read, that were found damaged, now or in an earlier run, and aren't in the
    workspace: the .dvc file of each, by path."""
    kept = Path(repo.dvc.tmp_dir) / KEPT
    with lock_repo(repo.dvc):
        return {
            _shown(repo.dvc, Path(out.fs_path)): _source(stage)
            for stage in repo.with_data(names)
            if is_data(stage)
            for out in stage.outs
            if _is_ours(out) and not os.path.lexists(out.fs_path)
            if any(
                (kept / str(one.value)).exists() for one in [out.hash_info, *_listed(repo.dvc, out.hash_info)]
            )
        }


def is_data(stage: Stage) -> bool:
    """Whether a .dvc file stands behind it: nothing makes its outputs anew."""
    return not isinstance(stage, PipelineStage)


def object_path(repo: Repo, one: HashInfo) -> Path:
    """Where the cache keeps an object, whether it has it or not."""
    odb = repo.cache.legacy if one.name == _LEGACY else repo.cache.local
    return Path(odb.oid_to_path(one.value))


def _fault(path: Path, one: HashInfo) -> str | None:
    try:
        if path.is_symlink():
            return "found a link"
        if not path.is_file():
            return "found no file"
        _, found = hash_file(str(path), localfs, str(one.name), None)
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
    if found.value == str(one.value).removesuffix(".dir"):
        return None
    return f"found {path.stat().st_size} bytes of hash {found.value}"


def _files(repo: Repo, one: HashInfo) -> list[HashInfo]:
    """The files of a folder whose list in the cache is whole."""
    try:
        rows = list(Tree.load(repo.cache.legacy if one.name == _LEGACY else repo.cache.local, one))
    except Exception as error:  # whoever made it named it by its hash: anything may be in it
        raise DamageError(f"{object_path(repo, one)}: not a list of files ({error})") from None
    for key, _, file in rows:
        if not all(_is_part(part) for part in key) or not file or not is_hash(str(file.value)):
            raise DamageError(
                f"{object_path(repo, one)}: a folder's list names {'/'.join(key)!r} with hash {file and file.value!r}, "
                "expected a path below the folder and an MD5; nothing of it is used: do you trust who made it?"
            )
    return [file for _, _, file in rows]


def _is_part(part: str) -> bool:
    """Whether it is a name below a folder: as POSIX has them, since any may be under `dvc add`."""
    return part not in ("", ".", "..") and not {"/", "\0"} & {*part}


def _listed(repo: Repo, one: HashInfo) -> list[HashInfo]:
    """The files of a folder; none where it is a file, or its list isn't in the cache."""
    return _files(repo, one) if one.isdir and object_path(repo, one).is_file() else []


def _is_ours(out: Output) -> bool:
    return bool(out.hash_info and out.use_cache and out.protocol == "local")


def _built(out: Output) -> Any:
    """What lies there: a file or a tree of files with their hashes, all read."""
    odb = _stateless(out.cache)
    _, _, built = build(odb, out.fs_path, out.fs, out.hash_name, ignore=out.dvcignore, dry_run=True)
    return built


def _stateless(odb: Any) -> Any:
    """The same without DVC's state of known hashes."""
    blank = copy.copy(odb)
    blank.state = StateNoop()
    return blank


def _believed(out: Output) -> list[str]:
    """Files for which DVC's state has another hash than their own."""
    built = _built(out)
    files = (
        [(str(Path(out.fs_path, *key)), one) for key, _, one in built]
        if isinstance(built, Tree)
        else [(out.fs_path, built.hash_info)]
    )
    beliefs = ((path, out.cache.state.get(path, out.fs)[1], one) for path, one in files)
    return [path for path, belief, one in beliefs if belief is not None and belief != one]


def _take_away(repo: Repo, path: Path, name: str, what: str, keep: bool) -> str:
    """Deletes or moves a file, link or folder; says which."""
    try:
        if not keep:
            _remove(path)
            return "removed"
        target = Path(repo.tmp_dir) / KEPT / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(target)
        shutil.move(path, target)
        return f"moved to {_shown(repo, target)}"
    except OSError as error:
        raise DamageError(
            f"{what}; and it can't be taken away ({error.strerror or error}). Remove {path} yourself, then run again"
        ) from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _source(stage: Stage) -> str:
    return "dvc.lock" if isinstance(stage, PipelineStage) else str(stage.relpath)


def _shown(repo: Repo, path: Path) -> str:
    root = Path(repo.root_dir)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


class _Record:
    """Which outputs were found whole; see `RECORD`."""

    def __init__(self, repo: Repo) -> None:
        self._repo, self._path = repo, Path(repo.tmp_dir) / RECORD
        self._changed = False
        try:
            read = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            read = {}
        self._rows: dict[str, Any] = read if isinstance(read, dict) else {}

    def has(self, out: Output) -> bool:
        return bool(self._rows.get(self._key(out)) == self.row(out))

    def add(self, out: Output, row: list[str]) -> None:
        """Notes an output as whole that had this row before it was read."""
        self._rows[self._key(out)] = row
        self._changed = True

    def save(self) -> None:
        if self._changed:
            with atomic_write(self._path) as partial:
                partial.write_text(json.dumps(self._rows, indent=1, sort_keys=True), encoding="utf-8")

    def row(self, out: Output) -> list[str]:
        digest = hashlib.sha256()
        for path, facts in sorted(_facts(Path(out.fs_path))):
            digest.update(f"{path}\0{facts}\n".encode("utf-8", "surrogateescape"))
        return [out.hash_info.value, digest.hexdigest()]

    def _key(self, out: Output) -> str:
        return _shown(self._repo, Path(out.fs_path))


def _facts(path: Path) -> Iterator[tuple[str, str]]:
    """Each file with what changes when it is written, be it by its own path or by that of a link to it."""
    if path.is_dir() and not path.is_symlink():
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _facts(Path(entry.path))
                else:
                    yield entry.path, _stat(entry)
    else:
        yield str(path), _stat(path)


def _stat(file: Path | os.DirEntry[str]) -> str:
    try:
        s = file.stat()
    except OSError as error:
        return str(error.errno)
    return f"{s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_mode}"
