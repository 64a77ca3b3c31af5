"""Outputs in the workspace, checked against dvc.lock and .dvc files.

DVC trusts what it has checked out: it stores the expected hash in its state, so that `dvc status` finds nothing even if
the bytes differ. Here each output is read once, and again when size, time or inode of a file changes (`RECORD`). A
damaged output is removed, as a damaged object is (flows/dvc/objects.py).
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dvc.fs import localfs
from dvc.output import Output
from dvc.repo import Repo, lock_repo
from dvc.stage import PipelineStage, Stage
from dvc_data.hashfile.build import build
from dvc_data.hashfile.state import StateNoop
from dvc_data.hashfile.tree import Tree

from data.storage import atomic_write
from flows.dvc.objects import KEPT, Damaged, DamageError, Say, check_objects, files_of, shown_path, take_away
from flows.dvc.repo import DvcRepo, check_recorded

RECORD = "points2model-checked.json"
"""In `.dvc/tmp`: output -> [its hash, a hash of its files' sizes, times and inodes], for outputs in the workspace that
were found whole. The file may be removed at any time."""


def remove_damaged(repo: DvcRepo, names: list[str], say: Say) -> list[str]:
    """Removes damaged outputs of these stages, and damaged data under DVC that they read, from the workspace.

    An output is damaged if DVC holds it for whole and its bytes differ: a copy of, or a link to, a damaged object. An
    output that a person has edited is not: DVC notices the change. What `RECORD` lists as whole isn't read again.

    Returns:
        the removed paths.

    Raises:
        DamageError: an output can't be read or removed.
    """
    record, removed = _Record(repo.dvc), []
    with lock_repo(repo.dvc):
        for stage, out in _changed_outputs(repo, names, record):
            is_trusted = _has_false_hash(out)
            damaged = check_objects(repo.dvc, {out.hash_info}, keep=is_data(stage))
            for one in damaged:
                say(str(one))
            if is_trusted or damaged:
                path, fault = Path(out.fs_path), _fault(repo, stage, out)
                say(f"{fault}; {take_away(repo.dvc, path, str(out.hash_info.value), fault, is_data(stage))}")
                removed.append(shown_path(repo.dvc, path))
    record.save()
    return removed


def damaged_outputs(repo: DvcRepo, names: list[str]) -> list[str]:
    """A line about each output that `remove_damaged` would remove; removes nothing.

    Raises:
        DamageError: an output can't be read.
    """
    with lock_repo(repo.dvc):
        return [
            _fault(repo, stage, out)
            for stage, out in _changed_outputs(repo, names, _Record(repo.dvc))
            if _has_false_hash(out)
        ]


def _changed_outputs(repo: DvcRepo, names: list[str], record: _Record) -> Iterator[tuple[Stage, Output]]:
    """The outputs in the workspace with another hash than dvc.lock or the .dvc file says; records the others as whole.

    Raises:
        DamageError: an output can't be read.
    """
    for stage in repo.with_data(names):
        for out in stage.outs:
            if is_cached_output(out) and os.path.lexists(out.fs_path) and not record.has(out):
                row = record.row(out)
                try:
                    whole = built(out).hash_info == out.hash_info
                except FileNotFoundError:
                    continue  # removed meanwhile, or a broken link: DVC notices it
                except OSError as error:
                    where, why = error.filename or out.fs_path, error.strerror or error
                    raise DamageError(
                        f"{shown_path(repo.dvc, Path(where))}: can't be read ({why}), so it can't be compared with the "
                        f"hash of {shown_path(repo.dvc, Path(out.fs_path))} in {_source(stage)}; check the disk and "
                        "the access rights, or remove it, and run again"
                    ) from None
                if whole:
                    record.add(out, row)
                else:
                    yield stage, out


def _fault(repo: DvcRepo, stage: Stage, out: Output) -> str:
    where = shown_path(repo.dvc, Path(out.fs_path))
    return f"{where} is damaged: its hash isn't {out.hash_info.value}, as {_source(stage)} says"


def check_cached(repo: DvcRepo, names: list[str], say: Say) -> dict[str, list[Damaged]]:
    """Hashes the objects of outputs that aren't in the workspace, before they are restored; removes the damaged ones.

    Returns:
        the damaged objects, by output.
    """
    found: dict[str, list[Damaged]] = {}
    with lock_repo(repo.dvc):
        for stage in repo.with_data(names):
            for out in stage.outs:
                if is_cached_output(out) and not os.path.lexists(out.fs_path):
                    damaged = check_objects(repo.dvc, {out.hash_info}, keep=is_data(stage))
                    for one in damaged:
                        say(str(one))
                    if damaged:
                        found[shown_path(repo.dvc, Path(out.fs_path))] = damaged
    return found


def check_pointer(root: Path, pointer: str) -> list[Damaged]:
    """Hashes the objects that a .dvc file names; moves damaged ones to `KEPT`.

    Raises:
        PipelineError: the file names no hash, or a damaged object can't be moved.
    """
    opened = DvcRepo(root)
    repo = opened.dvc
    with lock_repo(repo):
        stages = opened.pointed(pointer)
        for stage in stages:
            check_recorded(stage)
        objects = {out.hash_info for stage in stages for out in stage.outs if out.hash_info}
        return check_objects(repo, objects, keep=True)


def check_before_add(root: Path, folder: Path) -> list[Damaged]:
    """Removes damaged objects that have the hashes of a folder's files: `dvc add` would keep them."""
    repo = DvcRepo(root).dvc
    with lock_repo(repo):
        _, _, tree = build(_stateless(repo.cache.local), str(folder), localfs, "md5", dry_run=True)
        files = {file for _, _, file in tree if file} if isinstance(tree, Tree) else set()
        return check_objects(repo, {tree.hash_info, *files})


def set_aside(root: Path, folder: Path, name: str) -> str:
    """Moves a damaged folder to `KEPT`; returns where it is now, in words."""
    return take_away(DvcRepo(root).dvc, folder, name, f"{folder}: damaged", keep=True)


def note_whole(repo: DvcRepo, names: list[str], paths: Iterable[str]) -> None:
    """Records outputs as whole that were restored from objects which `check_objects` has just checked."""
    record, restored = _Record(repo.dvc), set(paths)
    with lock_repo(repo.dvc):
        for stage in repo.with_data(names):
            for out in stage.outs:
                if shown_path(repo.dvc, Path(out.fs_path)) in restored and os.path.lexists(out.fs_path):
                    record.add(out, record.row(out))
    record.save()


def lost_data(repo: DvcRepo, names: list[str]) -> dict[str, str]:
    """Data under DVC that these stages read, that are absent and that this or an earlier run found damaged.

    Returns:
        the .dvc file of each, by path.
    """
    kept = Path(repo.dvc.tmp_dir) / KEPT
    with lock_repo(repo.dvc):
        return {
            shown_path(repo.dvc, Path(out.fs_path)): _source(stage)
            for stage in repo.with_data(names)
            if is_data(stage)
            for out in stage.outs
            if is_cached_output(out) and not os.path.lexists(out.fs_path)
            if any(
                (kept / str(one.value)).exists()
                for one in (out.hash_info, *files_of(repo.dvc, [out.hash_info]))
            )
        }


def is_data(stage: Stage) -> bool:
    """Whether it is a .dvc file: no stage computes its outputs."""
    return not isinstance(stage, PipelineStage)


def is_cached_output(out: Output) -> bool:
    """Whether it is a local output with a hash, which DVC keeps in its cache."""
    return bool(out.hash_info and out.use_cache and out.protocol == "local")


def built(out: Output) -> Any:
    """The file or tree of files in the workspace with the hashes of its bytes, all of which are read."""
    odb = _stateless(out.cache)
    _, _, tree = build(odb, out.fs_path, out.fs, out.hash_name, ignore=out.dvcignore, dry_run=True)
    return tree


def _stateless(odb: Any) -> Any:
    """A copy without DVC's state of known hashes."""
    blank = copy.copy(odb)
    blank.state = StateNoop()
    return blank


def _has_false_hash(out: Output) -> bool:
    """Whether DVC's state has another hash for a file of this output than that of its bytes."""
    tree = built(out)
    files = (
        [(str(Path(out.fs_path, *key)), one) for key, _, one in tree]
        if isinstance(tree, Tree)
        else [(out.fs_path, tree.hash_info)]
    )
    known = ((out.cache.state.get(path, out.fs)[1], one) for path, one in files)
    return any(hash_info is not None and hash_info != one for hash_info, one in known)


def _source(stage: Stage) -> str:
    return str(stage.relpath) if is_data(stage) else "dvc.lock"


class _Record:
    """The outputs that were found whole; see `RECORD`."""

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
        """Records an output as whole; `row` is from before the output was read."""
        self._rows[self._key(out)] = row
        self._changed = True

    def save(self) -> None:
        if self._changed:
            with atomic_write(self._path) as partial:
                partial.write_text(json.dumps(self._rows, indent=1, sort_keys=True), encoding="utf-8")

    def row(self, out: Output) -> list[str]:
        digest = hashlib.sha256()
        for path, stat in sorted(_stats(Path(out.fs_path))):
            digest.update(f"{path}\0{stat}\n".encode("utf-8", "surrogateescape"))
        return [out.hash_info.value, digest.hexdigest()]

    def _key(self, out: Output) -> str:
        return shown_path(self._repo, Path(out.fs_path))


def _stats(path: Path) -> Iterator[tuple[str, str]]:
    """Each file with what changes when it is written, through its own path or a link to it."""
    if path.is_dir() and not path.is_symlink():
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _stats(Path(entry.path))
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
