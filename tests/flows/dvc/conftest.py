"""A small pipeline that has run, and its remote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.dvc.remote_setup import set_up
from flows.dvc.send import send_all
from tests.flows.whole import Whole, make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return make(tmp_path_factory.mktemp("whole") / "made")


@pytest.fixture
def whole(made: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Whole:
    """A copy of a pipeline that has run, in the current folder."""
    shutil.copytree(made.root, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return Whole(tmp_path / "project")


@pytest.fixture
def store(whole: Whole, tmp_path: Path) -> Path:
    """The pipeline's remote, a folder to which everything was sent."""
    set_up(whole.root, "store", {"url": str(tmp_path / "store")}, share=True, replace=False, seconds=60)
    send_all(whole.root, print, pauses=())
    return tmp_path / "store"
