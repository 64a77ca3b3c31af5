"""Outputs that are whole in the workspace, put back into DVC's cache before a push if the cache lacks them.

`dvc gc`, a full disk or a deleted folder can remove objects from the cache while the promoted model or data under
`dvc add` are still in the workspace. `dvc push` skips such objects and reports success.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import Stage

from flows.dvc.damage import built, is_cached_output, is_data
from flows.dvc.objects import Say, absent, check_objects, files_of, object_path, shown_path
from flows.dvc.repo import check_recorded


def put_back(repo: Repo, say: Say) -> None:
    """Adds outputs to the cache that it lacks and that are in the workspace with the hash of dvc.lock or a .dvc file.

    The caller holds DVC's lock.

    Raises:
        PipelineError: dvc.lock or a .dvc file names no hash.
    """
    for _, out in _outputs(repo):
        if not os.path.lexists(out.fs_path) or not absent(repo, [out.hash_info]):
            continue
        try:
            if built(out).hash_info != out.hash_info:
                continue
            out.commit(relink=False)
        except (OSError, DvcException) as error:
            say(f"{shown_path(repo, Path(out.fs_path))}: can't be put back into DVC's cache ({error})")
            continue
        check_objects(repo, [out.hash_info])  # DVC may have hashed by its state in place of the bytes
        if not absent(repo, [out.hash_info]):
            say(f"{shown_path(repo, Path(out.fs_path))}: put back into DVC's cache, which lacked it")


def lost(repo: Repo, missing: set[str]) -> dict[str, str]:
    """Data under DVC, promoted models among them, that aren't whole in the cache or in the remote.

    Args:
        repo: DVC's own.
        missing: hashes of the objects that neither of both has.

    Returns:
        the .dvc file of each, by path.
    """
    found = {}
    for stage, out in _outputs(repo):
        if is_data(stage) and not stage.is_import and out.can_push and not out.remote:
            one = out.hash_info
            parts = {str(part.value) for part in (one, *files_of(repo, [one]))}
            if parts & missing or (one.isdir and not object_path(repo, one).is_file()):
                found[shown_path(repo, Path(out.fs_path))] = str(stage.relpath)
    return found


def _outputs(repo: Repo) -> Iterator[tuple[Stage, Output]]:
    for stage in repo.index.stages:
        check_recorded(stage)
        yield from ((stage, out) for out in stage.outs if is_cached_output(out))
