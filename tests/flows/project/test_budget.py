"""`points2model budget` in a tiny project: the price, a kill, the rest, and nothing changed but its own folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.dvc.environment import environment
from flows.dvc.repo import DvcRepo
from flows.project.budget import STAGES, prepare
from flows.project.create import new_project
from tasks.budget.record import read_budget
from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tests.tasks.conftest import ROOT, run_step, tiny_recipe

COMMAND = [sys.executable, "-P", "-m", "flows.cli", "budget", "--yes", "--steps", "4"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose images and clicks are read."""
    data, root = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("projects") / "fruit"
    recipe = tiny_recipe()
    with new_project(root):
        pass
    params = root / "params.yaml"
    params.write_text(yaml.safe_dump(recipe))
    run_step("make_demo", load_params(params), data)
    for key in ("images", "annotations"):
        recipe["ingest"][key] = str(data / "demo" / "dataset" / key)
    recipe["points"]["files"] = str(data / "demo" / "points")
    params.write_text(yaml.safe_dump(recipe))
    for stage in ("code", "ingest", "import_points"):
        command = [sys.executable, "-P", "-m", "dvc", "repro", "-q", "-s", stage]
        subprocess.run(command, cwd=root, env=own(root), check=True)
    return root


def own(root: Path) -> dict[str, str]:
    return {**environment(root), "PYTHONPATH": str(ROOT)}


def files(root: Path) -> dict[str, str]:
    """Hashes of everything but the budget's folder and DVC's cache and notes."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
        and path.relative_to(root).parts[:2] not in ((".dvc", "cache"), (".dvc", "tmp"))
        and path.relative_to(root).parts[:3] != ("workspace", "runs", "budget")
    }


def test_tables_that_are_stale_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("crowd: keep", "crowd: objects"))
    try:
        with pytest.raises(TaskError, match="points2model run --target import_points"):
            prepare(Path(), 4, 1)
    finally:
        Path("params.yaml").write_text(text)
    assert not Path("workspace/runs/budget/masks25-clicks50-seed0").exists()


def test_the_parts_are_projects_with_the_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    plan = prepare(Path(), None, 2)
    assert len(plan.parts) == len(plan.left) == 12
    assert plan.params.student.steps == 12  # a quarter would be 3, and 200 are more than the project's own
    folder = next(iter(plan.parts.values()))
    repo = DvcRepo(folder)
    assert set(repo.stages()) == set(STAGES)
    assert repo.cache_file("0" * 32).is_relative_to(root / ".dvc" / "cache")
    assert DvcRepo(Path()).all_done(["ingest", "import_points"])  # the folders are none of the project's


@pytest.mark.slow
def test_killed_resumed_and_measured(root: Path) -> None:
    before = files(root)
    done = subprocess.run(
        [*COMMAND, "--price", "--json"], cwd=root, env=own(root), capture_output=True, check=True
    )
    price: dict[str, Any] = json.loads(done.stdout)
    assert price["parts"] == 6 and 0 < price["seconds"] < 3600
    assert files(root) == before
    first = root / "workspace/runs/budget/masks25-clicks50-seed0"
    child = subprocess.Popen(COMMAND, cwd=root, env=own(root), stdout=subprocess.DEVNULL)
    end = time.monotonic() + 600
    while not (first / "workspace/teacher/model.safetensors").exists():
        assert child.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    done = subprocess.run(
        [*COMMAND, "--json"], cwd=root, env=own(root), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [run["mask_share"] for run in found["runs"]] == [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]
    assert {batch["kind"] for batch in found["next"]} == {"masks", "clicks"}
    (kept,) = read_budget(root / "registry").measurements
    assert [run.AP for run in kept.runs] == [run["AP"] for run in found["runs"]]
    after = files(root)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} <= {
        "registry/budget.json"
    }
    # Parts of equal masks share a teacher, from DVC's cache; and all is finished.
    teachers = [
        (
            root / f"workspace/runs/budget/masks25-clicks{clicks}-seed0/workspace/teacher/model.safetensors"
        ).read_bytes()
        for clicks in (50, 100)
    ]
    assert teachers[0] == teachers[1]
    again = subprocess.run(
        [*COMMAND, "--price", "--json"], cwd=root, env=own(root), capture_output=True, check=True
    )
    assert json.loads(again.stdout) == {"parts": 0, "seconds": 0, "by_stage": {}}
