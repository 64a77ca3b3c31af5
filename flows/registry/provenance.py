"""Where a model came from, for its entry in the registry: data, params and code, from dvc.lock and Git; who."""

from __future__ import annotations

import getpass
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from flows.dvc.lock import read_lock
from flows.registry.git import GitError, run_git
from tasks.common.code_identity import PACKAGES
from tasks.promotion.registry import Code

_CODE = "workspace/code/"
_HASHES = ("md5", "etag", "checksum")
"""Keys of a dependency's hash in dvc.lock: of a path, of an object in S3, of other remotes."""


class Inputs(NamedTuple):
    """What the stages read, by dvc.lock."""

    data: dict[str, str | None]
    params: dict[str, Any]
    sources: str


def inputs_of(root: Path, stages: Iterable[str]) -> Inputs:
    """Data hashes by path, sections of params.yaml, and one hash of the code that decides results, of these stages."""
    lock = read_lock(root)
    data: dict[str, str | None] = {}
    params: dict[str, Any] = {}
    sources: dict[str, str | None] = {}
    for stage in stages:
        entry = lock.get("stages", {}).get(stage, {})
        for dep in entry.get("deps", []):
            own = dep["path"].startswith(_CODE)
            (sources if own else data)[dep["path"]] = next((dep[key] for key in _HASHES if key in dep), None)
        for section in entry.get("params", {}).values():
            params |= section
    # `promotion.repeats` of one stage is in section `promotion` of another.
    params = {
        key: value for key, value in params.items() if key.partition(".")[0] not in params or "." not in key
    }
    listed = repr(sorted(sources.items())).encode()
    return Inputs(
        dict(sorted(data.items())), dict(sorted(params.items())), hashlib.sha256(listed).hexdigest()[:16]
    )


def code_of(root: Path, sources: str) -> Code:
    """Git's commit, and whether tracked code differs from it."""
    commit = git(root, "rev-parse", "HEAD")
    if commit is None:
        return Code(commit=None, dirty=None, sources=sources)
    changed = git(root, "status", "--porcelain", "--untracked-files=no", "--", *PACKAGES, "dvc.yaml")
    return Code(commit=commit, dirty=None if changed is None else bool(changed), sources=sources)


def who(root: Path) -> str:
    """Git's user where it is set, else the login name."""
    name, mail = (git(root, "config", f"user.{key}") for key in ("name", "email"))
    if name:
        return f"{name} <{mail}>" if mail else name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def git(root: Path, *arguments: str) -> str | None:
    """Git's output, stripped; None where Git is missing or fails."""
    try:
        return run_git(root, *arguments)
    except GitError:
        return None
