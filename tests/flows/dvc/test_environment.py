"""DVC's stored hashes, which are pickles, are where only the project's owner can write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.dvc.environment import environment
from flows.dvc.repo import DvcRepo


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    dvc(tmp_path, "init", "--no-scm", "-q")
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: echo a > a, outs: [a]}}\n")
    return tmp_path


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment(root), check=True)


def test_notes_are_in_the_project_and_nowhere_else(project: Path) -> None:
    dvc(project, "repro", "-q")
    repo = DvcRepo(project)
    assert repo.is_done("a")
    notes = Path(repo.dvc.site_cache_dir)
    assert notes.is_relative_to(project / ".dvc/tmp/notes") and list(notes.rglob("cache.db"))
    assert not Path("/var/tmp/dvc/repo", notes.name).exists()


def test_own_interpreter_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/somewhere")
    assert environment(tmp_path)["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/somewhere"]
