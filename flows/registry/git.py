"""Promotions in Git: a commit of the registry, dvc.lock and params.yaml, and a tag for DVC's model versions.

`dvc artifacts get URL student --rev v0.0.3` gets the model of v3 by the tag. The registry doesn't depend on Git: it is
complete without Git, and also if a commit fails.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path, PurePosixPath

from data.storage import is_s3
from tasks.inbox.ledger import ARRIVALS
from tasks.promotion.baseline import REGISTRY

PATHS = (REGISTRY, "dvc.lock", "params.yaml")
_TIMEOUT_S = 120


class GitError(Exception):
    """Git failed; the text is its message."""


def tag_of(version: str) -> str:
    """`student@v0.0.3` for v3."""
    return f"student@v0.0.{version[1:]}"


def commit(root: Path, message: str, version: str | None, points: str, decisions: str) -> str:
    """Commits the changes of `PATHS` and of the versions of the folders `points` and `decisions` (params.yaml's
    points.files, see flows/run/intake.py, and review.decisions), and nothing else, even if staged; tags the commit if a
    version is given.

    Returns:
        What was done, in words; "" where nothing had changed.

    Raises:
        GitError: there is no repository, it can't be written, a hook fails, ...
    """
    run_git(root, "rev-parse", "--git-dir")
    data = [*_of_folder(root, points, str(ARRIVALS)), *_of_folder(root, decisions, new=True)]
    paths = [path for path in (*PATHS, *data) if (root / path).exists()]
    if not run_git(root, "status", "--porcelain", "--untracked-files=all", "--", *paths):
        return ""
    run_git(root, "add", "--", *paths)
    run_git(root, "commit", "--quiet", "--message", message, "--", *paths)
    done = f"committed {run_git(root, 'rev-parse', '--short', 'HEAD')}"
    if version is None or run_git(root, "tag", "--list", tag_of(version)):
        return done
    run_git(root, "tag", "--annotate", tag_of(version), "--message", message)
    return f"{done}, tagged {tag_of(version)}"


def _of_folder(root: Path, name: str, *others: str, new: bool = False) -> list[str]:
    """The files that record which data were used, and `others` that belong to them: dvc.lock has only their hash.

    Args:
        new: also a folder of which git tracks no file yet.
    """
    folder = PurePosixPath(name)
    if is_s3(name) or folder.is_absolute() or ".." in folder.parts:
        return []
    pointer = f"{folder}.dvc"
    if (root / pointer).is_file():
        return [*others, pointer, str(folder.parent / ".gitignore")]
    kinds = ["--cached", *(["--others", "--exclude-standard"] if new else [])]
    return [*others, str(folder)] if run_git(root, "ls-files", *kinds, "--", str(folder)) else []


def run_git(root: Path, *arguments: str) -> str:
    """Git's output, stripped; raises GitError."""
    # No prompts: there may be no terminal.
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true"}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitError(f"`git {arguments[0]}`: {error}") from None
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise GitError(f"`git {arguments[0]}`: {' '.join(lines[:5])}")
    return done.stdout.strip()
