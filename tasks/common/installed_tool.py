"""The version of points2model that a project's results are made with: points2model.json, which is in git.

A project that `points2model init` made is apart from the code. There stage `code` depends on this file; in a clone,
which has no such file, on the code itself.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from data.storage import atomic_write
from tasks.common.code_identity import PACKAGES, ROOT
from tasks.common.errors import TaskError

FILE = "points2model.json"
Tool = dict[str, str]


def installed() -> Tool:
    """The version of the installed code, and a hash of its files that can decide results."""
    from importlib import metadata  # takes as long as the rest of --help's own modules

    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    try:
        version = metadata.version("points2model")
    except metadata.PackageNotFoundError:  # run from a clone that isn't installed
        version = "unknown"
    return {"version": version, "code": digest.hexdigest()[:16]}


def change(root: Path) -> tuple[Tool, Tool] | None:
    """The version in the project's file and the installed one, if they differ; None in a clone."""
    path = root / FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    now = installed()
    return (found if isinstance(found, dict) else {}, now) if found != now else None


def write(root: Path) -> None:
    """Writes the installed version to the project's file."""
    with atomic_write(root / FILE) as temporary:
        temporary.write_text(json.dumps(installed(), indent=2) + "\n", encoding="utf-8")


def check(root: Path) -> None:
    """
    Raises:
        TaskError: the project's file has another version than the installed one, and a result would be recorded as
            that one's.
    """
    if (found := change(root)) is not None:
        before, now = map(named, found)
        raise TaskError(
            f"{root / FILE}: found {before}, installed is {now}; run `points2model run`, which records it and runs "
            "the stages whose code differs, or install that version"
        )


def named(tool: Tool) -> str:
    """For messages."""
    return f"version {tool.get('version', 'unknown')} (code {tool.get('code', 'unknown')})"
