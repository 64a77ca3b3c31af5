"""Finds missing results that were computed before, here or elsewhere, and can be fetched instead of computed.

The outputs of a stage that matches dvc.lock may be absent. A changed stage may have run elsewhere with the same inputs:
then DVC's run-cache has an entry. All objects are fetched by their hash, so a wrong guess costs a download and never
changes a result: DVC decides afterwards which stages are up to date.

`runs_of` uses private functions of DVC: it has no public way to find a stage's entries in the run-cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import lock_repo
from dvc.stage import PipelineStage, Stage
from dvc.stage.cache import _can_hash, _get_cache_hash, _get_stage_hash
from dvc_data.hashfile.hash_info import HashInfo

from flows.dvc.objects import shown_path
from flows.dvc.repo import DvcRepo, check_recorded


def find_missing(repo: DvcRepo, names: list[str]) -> dict[str, HashInfo]:
    """Outputs of unchanged stages, and data under DVC that stages read, that are neither in the workspace nor in the
    cache: by path, the object to fetch.

    Args:
        repo: the repository.
        names: stages, each after its upstream stages (see `DvcRepo.graph`).
    """
    missing: dict[str, HashInfo] = {}
    unchanged: dict[str, Any] = {}  # output to its hash
    with lock_repo(repo.dvc):
        for stage in repo.with_data(names):
            if isinstance(stage, PipelineStage) and _changed(stage, unchanged):
                continue
            for out in stage.outs:
                unchanged[out.fs_path] = out.hash_info
                if out.hash_info and out.use_cache and not out.exists and out.changed_cache():
                    missing[shown_path(repo.dvc, Path(out.fs_path))] = out.hash_info
    return missing


def check_out_missing(repo: DvcRepo, paths: list[str]) -> list[str]:
    """Checks those outputs out of the cache that aren't in the workspace; returns their paths."""
    missing = [path for path in paths if not (repo.root / path).exists()]
    if missing:
        repo.dvc.checkout(targets=[str(repo.root / path) for path in missing], force=False)
    return missing


def runs_of(repo: DvcRepo, name: str, say: Callable[[str], None]) -> set[HashInfo]:
    """The objects that `dvc repro` would restore in place of running this stage; its inputs must be present.

    They are those of an earlier run with the same inputs, by the run-cache, and those of dvc.lock if the stage is
    unchanged. An entry of the run-cache whose content doesn't match its name is removed: it could name any object as
    the stage's output.
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
                    f"{path} is damaged: an entry of DVC's run-cache with another content than its name says; removed"
                )
        with contextlib.suppress(OSError):
            folder.rmdir()  # if it is empty, since DVC fails on an empty folder
        entry = cache._load(stage)
        if entry:
            run = cache._create_stage(entry, wdir=stage.wdir)
            check_recorded(run)
            made |= {out.hash_info for out in run.outs if out.hash_info}
    return made


def _changed(stage: Stage, unchanged: dict[str, Any]) -> bool:
    """Whether a stage differs from dvc.lock; absent inputs count as unchanged if they can be fetched."""
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
            elif not _is_unchanged_output(dep, unchanged):
                return True
    return False


def _is_unchanged_output(dep: Any, unchanged: dict[str, Any]) -> bool:
    """Whether an absent input is an output of an unchanged stage, or a part of one."""
    if dep.fs_path in unchanged:
        return bool(unchanged[dep.fs_path] == dep.hash_info)
    return any(Path(dep.fs_path).is_relative_to(path) for path in unchanged)
