"""What a checkout lacks that was made before, here or elsewhere: the objects to fetch instead of computing.

A stage that is unchanged, as far as dvc.lock and the files that are here tell, lacks its outputs; one that isn't may
have run elsewhere with the same inputs, which the run-cache tells. What is fetched is content by its hash, so a wrong
guess costs a download, never a wrong result: DVC decides afterwards what is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import lock_repo
from dvc.stage import PipelineStage, Stage
from dvc.stage.cache import _can_hash, _get_cache_hash, _get_stage_hash
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree

from flows.dvc.damage import object_path
from flows.dvc.repo import DvcRepo, check_vouched


@dataclass
class Lack:
    """What some stages lack: outputs by path with what to fetch for them; stages that aren't up to date."""

    outputs: dict[str, HashInfo] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)


def lacking(repo: DvcRepo, names: list[str]) -> Lack:
    """What these stages lack that is neither in the workspace nor in the cache.

    Args:
        repo: the repository.
        names: stages, each after those that it waits for (see `DvcRepo.graph`).
    """
    lack = Lack()
    unchanged: dict[str, Any] = {}  # output to its hash
    with lock_repo(repo.dvc):
        for stage in repo.with_data(names):
            if isinstance(stage, PipelineStage) and _changed(stage, unchanged):
                lack.changed.append(stage.name)
                continue
            for out in stage.outs:
                unchanged[out.fs_path] = out.hash_info
                if out.hash_info and out.use_cache and not out.exists and out.changed_cache():
                    lack.outputs[_shown(repo, out.fs_path)] = out.hash_info
    return lack


def check_out_missing(repo: DvcRepo, paths: list[str]) -> list[str]:
    """Lays outputs that are in the cache into the workspace, those that aren't there; returns them."""
    absent = [path for path in paths if not (repo.root / path).exists()]
    if absent:
        repo.dvc.checkout(targets=[str(repo.root / path) for path in absent], force=False)
    return absent


def runs_of(repo: DvcRepo, name: str, say: Callable[[str], None]) -> set[HashInfo]:
    """The objects that `dvc repro` would restore instead of running this stage: those of an earlier run with the same
    inputs, which the run-cache knows, and those of dvc.lock where the stage is as it says. The inputs must be there.

    An entry of the run-cache that isn't what its name says is removed: it would have any object pass for the stage's.
    """
    made: set[HashInfo] = set()
    with lock_repo(repo.dvc), contextlib.suppress(DvcException, OSError):
        (stage,) = repo.dvc.stage.collect(name)
        if not stage.changed_stage() and stage.deps_cached():
            made |= {out.hash_info for out in stage.outs if out.hash_info}
        cache = repo.dvc.stage_cache
        if not _can_hash(stage):
            return made
        stage.save_deps()
        key = _get_stage_hash(stage)
        folder = Path(cache._get_cache_dir(key))
        for path in sorted(folder.glob("*")):
            entry = cache._load_cache(key, path.name)
            if entry and _get_cache_hash(entry) != path.name:
                path.unlink()
                say(
                    f"{path} is damaged: an entry of DVC's run-cache whose content isn't what its name says; removed"
                )
        with contextlib.suppress(OSError):
            folder.rmdir()  # where it is empty: DVC breaks on that
        entry = cache._load(stage)
        if entry:
            run = cache._create_stage(entry, wdir=stage.wdir)
            check_vouched(run)
            made |= {out.hash_info for out in run.outs if out.hash_info}
    return made


def absent(repo: DvcRepo, objects: set[HashInfo]) -> set[HashInfo]:
    """Those of these objects that the cache hasn't, or not with all their files."""
    return {
        one
        for one in objects
        if not object_path(repo.dvc, one).is_file()
        or not all(object_path(repo.dvc, file).is_file() for file in files_of(repo, {one}))
    }


def files_of(repo: DvcRepo, objects: set[HashInfo]) -> set[HashInfo]:
    """The files of those objects that are folders and whose lists are in the cache."""
    files: set[HashInfo] = set()
    for one in objects:
        if one.isdir:
            with contextlib.suppress(FileNotFoundError):
                files |= {entry for _, _, entry in Tree.load(repo.dvc.cache.local, one) if entry}
    return files


def _changed(stage: Stage, unchanged: dict[str, Any]) -> bool:
    """Whether a stage isn't what dvc.lock says of it; inputs that aren't here count as what is to be fetched."""
    if stage.frozen:
        return False
    if not all(out.hash_info for out in stage.outs) or stage.cmd_changed:
        return True
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            if dep.status():
                return True
        elif dep.protocol == "local":
            if dep.exists:
                if dep.changed_checksum():
                    return True
            elif not _to_come(dep, unchanged):
                return True
    return False


def _to_come(dep: Any, unchanged: dict[str, Any]) -> bool:
    """Whether a missing input is what an unchanged stage made, or a part of it."""
    if dep.fs_path in unchanged:
        return bool(unchanged[dep.fs_path] == dep.hash_info)
    return any(Path(dep.fs_path).is_relative_to(path) for path in unchanged)


def _shown(repo: DvcRepo, path: str) -> str:
    return Path(path).relative_to(repo.root.resolve()).as_posix()
