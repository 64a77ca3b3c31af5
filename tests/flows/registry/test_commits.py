"""What a promotion leaves in Git: its own files alone, and a tag; and Git's own words where it says no."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows.registry.git import GitError, commit, tag_of
from flows.registry.provenance import code_of, git, who


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a commit, and changes of all kinds."""
    call(tmp_path, "init", "-q")
    call(tmp_path, "config", "user.name", "Ada")
    call(tmp_path, "config", "user.email", "ada@example.org")
    for name in ("dvc.lock", "params.yaml", "tasks/a.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    call(tmp_path, "add", "-A")
    call(tmp_path, "commit", "-qm", "start")
    for name in ("registry/v1/entry.json", "registry/v1/model/weights", "dvc.lock", "notes.txt", "other.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("2")
    (tmp_path / "registry/.gitignore").write_text("/v*/model\n")
    call(tmp_path, "add", "notes.txt")
    return tmp_path


def call(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_only_the_registrys_files_are_committed(root: Path) -> None:
    done = commit(root, "Promote v1: better.", "v1", "workspace/demo/points", "decisions")
    head = call(root, "rev-parse", "--short", "HEAD")
    assert done == f"committed {head}, tagged student@v0.0.1"
    assert call(root, "show", "--name-only", "--format=%s", "HEAD").split("\n") == [
        "Promote v1: better.", "", "dvc.lock", "registry/.gitignore", "registry/v1/entry.json",
    ]  # fmt: skip
    assert call(root, "status", "--porcelain").split("\n") == ["M  notes.txt", "?? other.txt"]
    assert call(root, "rev-parse", "--short", f"{tag_of('v1')}^{{commit}}") == head


def test_nothing_new_is_no_commit(root: Path) -> None:
    commit(root, "Promote v1", "v1", "workspace/demo/points", "decisions")
    head = call(root, "rev-parse", "HEAD")
    assert commit(root, "Promote v1", "v1", "workspace/demo/points", "decisions") == ""
    assert call(root, "rev-parse", "HEAD") == head
    (root / "params.yaml").write_text("3")
    assert "tagged" not in commit(
        root, "Promote v1 by force", "v1", "workspace/demo/points", "decisions"
    )  # the tag stays where it is


def test_a_hook_that_says_no_is_heard(root: Path) -> None:
    hook = root / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'not on a Saturday' >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(GitError, match="`git commit`: not on a Saturday"):
        commit(root, "Promote v1", "v1", "workspace/demo/points", "decisions")
    assert call(root, "tag") == ""


def test_without_a_repository(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="not a git repository"):
        commit(tmp_path, "Promote v1", "v1", "workspace/demo/points", "decisions")
    assert git(tmp_path, "rev-parse", "HEAD") is None
    assert code_of(tmp_path, "0").commit is None
    assert who(tmp_path)


def test_where_the_code_comes_from(root: Path) -> None:
    code = code_of(root, "0")
    assert (code.commit, code.dirty) == (call(root, "rev-parse", "HEAD"), False)  # notes.txt is no code
    (root / "tasks/a.py").write_text("2")
    assert code_of(root, "0").dirty
    assert who(root) == "Ada <ada@example.org>"
