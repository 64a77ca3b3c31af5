"""Objects of DVC's cache, checked against the hashes in their names.

DVC trusts its cache: it never hashes a read-only object again. Here the bytes are read whenever objects are restored,
fetched or sent. A damaged object is removed, so that DVC finds it missing: it is then restored or fetched, or its stage
runs. Damaged data and promoted models can't be computed again, so they are kept in `.dvc/tmp`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dvc.fs import localfs
from dvc.repo import Repo
from dvc_data.hashfile.hash import hash_file
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from flows.dvc.repo import PipelineError, is_hash

KEPT = "damaged"
"""Folder in `.dvc/tmp` with damaged data and models."""
Say = Callable[[str], None]
_LEGACY = "md5-dos2unix"


class DamageError(PipelineError):
    """Something damaged can't be replaced or computed again; the text names it, its place, and the next step."""


@dataclass(frozen=True)
class Damaged:
    """An object of DVC's cache with another content than its name says; `text`: what was done with it."""

    hash: str
    fault: str
    text: str

    def __str__(self) -> str:
        return self.text


def check_objects(repo: Repo, objects: Iterable[HashInfo], *, keep: bool = False) -> list[Damaged]:
    """Hashes those objects that the cache has, and the files of folders among them; removes the damaged ones.

    Args:
        repo: DVC's own.
        objects: hashes from dvc.lock, .dvc files or the run-cache.
        keep: whether to move damaged objects to `KEPT` in place of deleting them.

    Raises:
        DamageError: a damaged object can't be removed, or a folder's list names files outside of the folder.
    """
    found: list[Damaged] = []
    checked: set[HashInfo] = set()
    pending = [one for one in objects if one]
    while pending:
        one = pending.pop()
        path = object_path(repo, one)
        if one in checked or not os.path.lexists(path):
            continue
        checked.add(one)
        fault = _fault(path, one)
        if fault is None:
            pending += _listed(repo, one) if one.isdir else []
            continue
        where = shown_path(repo, path)
        done = take_away(repo, path, str(one.value), f"{where}: {fault}", keep)
        text = (
            f"{where} in DVC's cache is damaged: {fault}, expected hash {one.value}, as its name says; {done}"
        )
        found.append(Damaged(str(one.value), fault, text))
    return found


def object_path(repo: Repo, one: HashInfo) -> Path:
    """The path of an object in the cache; the object may be absent."""
    odb = repo.cache.legacy if one.name == _LEGACY else repo.cache.local
    return Path(odb.oid_to_path(one.value))


def files_of(repo: Repo, objects: Iterable[HashInfo]) -> set[HashInfo]:
    """The files of those objects that are folders and whose lists are in the cache.

    Raises:
        DamageError: a list can't be read, or names files outside of its folder.
    """
    folders = (one for one in objects if one.isdir and object_path(repo, one).is_file())
    return {file for one in folders for file in _listed(repo, one)}


def absent(repo: Repo, objects: Iterable[HashInfo]) -> set[HashInfo]:
    """Those of these objects that the cache lacks, or lacks files of."""
    return {
        one
        for one in objects
        if not all(object_path(repo, part).is_file() for part in (one, *files_of(repo, [one])))
    }


def take_away(repo: Repo, path: Path, name: str, what: str, keep: bool) -> str:
    """Deletes a file, link or folder, or moves it to `KEPT`; returns which of both, in words."""
    try:
        if not keep:
            _remove(path)
            return "removed"
        target = Path(repo.tmp_dir) / KEPT / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(target)
        shutil.move(path, target)
        return f"moved to {shown_path(repo, target)}"
    except OSError as error:
        raise DamageError(
            f"{what}; and it can't be removed ({error.strerror or error}). Remove {path} by hand, then run again"
        ) from None


def shown_path(repo: Repo, path: Path) -> str:
    """Relative to the project's folder if it is inside."""
    root = Path(repo.root_dir)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


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


def _listed(repo: Repo, folder: HashInfo) -> list[HashInfo]:
    """The files of a folder whose list is in the cache."""
    path = object_path(repo, folder)
    try:
        rows = list(Tree.load(repo.cache.legacy if folder.name == _LEGACY else repo.cache.local, folder))
    except Exception as error:  # its hash is right, but its content is up to whoever made it
        raise DamageError(f"{path}: not a list of files ({error})") from None
    for key, _, file in rows:
        if not all(_is_name(part) for part in key) or not file or not is_hash(str(file.value)):
            raise DamageError(
                f"{path}: a folder's list names {'/'.join(key)!r} with hash {file and file.value!r}, expected a path "
                "below the folder and an MD5; nothing of it is used. Check who made it"
            )
    return [file for _, _, file in rows]


def _is_name(part: str) -> bool:
    """Whether it is a file name by the rules of POSIX: `dvc add` accepts all of them."""
    return part not in ("", ".", "..") and not {"/", "\0"} & {*part}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
