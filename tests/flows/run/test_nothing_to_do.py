"""A run with nothing to do is known by DVC alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.dvc.environment import environment
from flows.dvc.repo import DvcRepo
from flows.run.nothing_to_do import done_stages
from tasks.common.config import load_params
from tasks.promotion.checkpoint_start import CHECKPOINT, record_checkpoints
from tests.tasks.conftest import ROOT, tiny_recipe

DVC_YAML = """\
stages:
  a: {cmd: cp in.txt a.txt, deps: [in.txt], outs: [a.txt]}
  b: {cmd: cp a.txt b.txt, deps: [a.txt], outs: [b.txt]}
  other: {cmd: cp in.txt other.txt, deps: [in.txt], outs: [other.txt]}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose stages a and b are done, and other isn't; the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    dvc(tmp_path, "init", "--no-scm", "-q")
    for name, text in {"dvc.yaml": DVC_YAML, "in.txt": "1"}.items():
        (tmp_path / name).write_text(text)
    save(tmp_path, {})
    dvc(tmp_path, "repro", "-q", "b")
    return tmp_path


def dvc(root: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment(root), check=True)


def save(root: Path, operate: dict[str, Any]) -> None:
    recipe = tiny_recipe()
    recipe["operate"] |= operate
    (root / "params.yaml").write_text(yaml.safe_dump(recipe))


def test_what_is_done_is_shown_as_cached(project: Path) -> None:
    rows = done_stages(project, "b", print)
    assert rows is not None and [row["name"] for row in rows] == ["a", "b"]
    assert {row["state"] for row in rows} == {"Cached"}
    assert list(rows[1]["outs"]) == ["b.txt"] and len(rows[1]["outs"]["b.txt"]) == 32


def test_it_is_known_without_prefect_and_torch() -> None:
    code = "import sys, flows.run.nothing_to_do; sys.exit(len({'prefect', 'torch', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "in.txt").write_text("2"),
        lambda root: (root / "a.txt").unlink(),
        lambda root: (root / "b.txt").write_text("edited"),
        lambda root: (root / "dvc.yaml").write_text(DVC_YAML.replace("cp a.txt b.txt", "cp ./a.txt b.txt")),
        lambda root: (root / "dvc.lock").unlink(),
        lambda root: (root / "dvc.lock").write_text("<<<<<<< HEAD\n"),
        lambda root: save(root, {"push": True}),
        lambda root: save(root, {"inbox": {**tiny_recipe()["operate"]["inbox"], "source": "inbox"}}),
        lambda root: (root / "params.yaml").write_text("a: 1"),
    ],
)
def test_else_the_run_itself_looks(project: Path, change: Callable[[Path], object]) -> None:
    change(project)
    assert done_stages(project, "b", print) is None


def test_a_server_sees_every_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert done_stages(project, "b", print) is None


@pytest.mark.parametrize(
    ("file", "text", "is_server"),
    [
        ("home/profiles.toml", 'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://x:1/api"', True),
        ("home/profiles.toml", 'active = "a"\n[profiles.a]\nPREFECT_LOGGING_LEVEL = "INFO"', False),
        ("prefect.toml", '[api]\nurl = "http://x:1/api"', True),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://x:1/api"', True),
        ("pyproject.toml", 'dependencies = ["prefect"]', False),
        (".env", "PREFECT_API_URL=http://x:1/api", True),
    ],
)
def test_so_does_one_that_a_file_of_settings_names(
    project: Path, file: str, text: str, is_server: bool
) -> None:
    (project / "home").mkdir()
    (project / file).write_text(text)
    code = "from pathlib import Path; from flows.processes import prefect_local as p; p.use_local_prefect(Path.cwd())"
    code += "; from flows.run.nothing_to_do import done_stages as d; a = d(Path.cwd(), 'b', print)"
    code += "; import flows.processes.temporary_server as t; t.TemporaryServer = str; b = t.server_if_none(Path.cwd())"
    code += "; print(a is None, b is None)"
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PREFECT_API_URL", "PREFECT_PROFILES_PATH")
    }
    env |= {"PREFECT_HOME": str(project / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.split() == [str(is_server)] * 2, done.stderr


def test_another_stage_that_is_stale_is_no_matter(project: Path) -> None:
    assert done_stages(project, "other", print) is None
    assert done_stages(project, "a", print) is not None


def test_what_dvc_wrongly_takes_for_whole_is_something_to_do(project: Path) -> None:
    said: list[str] = []
    damaged, facts = project / "b.txt", (project / "b.txt").stat()
    damaged.write_text("2")  # of one size and time: DVC looks no further
    os.utime(damaged, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert DvcRepo(project).all_done(["a", "b"])
    assert done_stages(project, "b", said.append) is None
    assert not damaged.exists() and "b.txt is damaged" in said[0]


def test_a_changed_checkpoint_is_something_to_do(project: Path) -> None:
    """DVC hears of it by the run only."""
    (project / "coco").mkdir()
    for name in CHECKPOINT:
        (project / "coco" / name).write_text("1")
    recipe = tiny_recipe()
    recipe["teacher"] |= {"start": "checkpoint", "checkpoint": "coco"}
    (project / "params.yaml").write_text(yaml.safe_dump(recipe))
    assert done_stages(project, "b", print) is None
    record_checkpoints(project, load_params(project / "params.yaml"))
    assert done_stages(project, "b", print) is not None
    (project / "coco" / CHECKPOINT[1]).write_text("2")
    assert done_stages(project, "b", print) is None
