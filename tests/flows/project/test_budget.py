"""Trainings on parts of a tiny project: the price, a kill, the rest, and nothing changed but their own folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flows.dvc.environment import environment
from flows.dvc.repo import DvcRepo
from flows.processes.run_lock import held
from flows.project.budget import STAGES, measured, prepare, price, train
from flows.project.create import new_project
from tasks.budget.costs import MASK
from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tests.tasks.conftest import ROOT, run_step, tiny_recipe

STEPS = 40
"""Several states of a training are written, so that it can be killed between them."""
COMMAND = [sys.executable, "-P", "-m", "flows.cli", "budget", "--yes", "--steps", str(STEPS)]


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
            prepare(Path(), STEPS, 1)
        with (
            held(root, "by hand", wait=False, say=print),
            pytest.raises(TaskError, match=r"a run makes the tables .*by hand.*; wait until it has ended"),
        ):
            prepare(Path(), STEPS, 1)
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


@pytest.mark.slow  # a dozen stages, each a process
@pytest.mark.timeout(1800)
def test_killed_resumed_and_measured(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two of the six parts, which share the teacher."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = files(root)
    first, second = (
        root / f"workspace/runs/budget/masks25-clicks{share}-seed0/workspace" for share in (50, 100)
    )
    child = subprocess.Popen(COMMAND, cwd=root, env=own(root), stdout=subprocess.DEVNULL)
    while not any((first / "runs/train_teacher/resume").rglob("state_*.json")):
        assert child.poll() is None
        time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with held(first.parents[1], "test", wait=True, say=print):  # until what the killed one started has ended
        pass
    plan = prepare(Path(), STEPS, 1)
    assert len(plan.left) == 6
    lines: list[str] = []
    train(plan._replace(left=plan.left[:2]), lambda name, line: lines.append(f"{name} {line}"))
    assert any("resuming after step" in line for line in lines if "clicks50" in line)
    assert any("train_teacher" in line and "cached" in line for line in lines if "clicks100" in line)
    again = prepare(Path(), STEPS, 1)
    assert again.left == plan.left[2:]
    assert files(root) == before  # neither the workspace nor the registry
    models = [(folder / "teacher/model.safetensors").read_bytes() for folder in (first, second)]
    assert models[0] == models[1]
    parts = dict(list(plan.parts.items())[:2])
    found = measured(plan._replace(parts=parts))
    for run, folder in zip(found.runs, (first, second), strict=True):
        metrics = json.loads((folder / "evaluation/metrics.json").read_text())
        assert pytest.approx(metrics["student"]["AP"], abs=1e-3) == run.AP
    assert [run.click_images for run in found.runs] == [7, 14]
    assert found.finished is None and found.mask == MASK and found.steps["student"] == STEPS


def one_second(step: Callable[[], None]) -> float:
    """In place of the time of a step, which on a busy machine differs by more than a teacher."""
    step()
    return 1.0


def test_the_price_counts_a_shared_teacher_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr("tasks.planning.probe._timed", one_second)
    plan = prepare(Path(), STEPS, 1)
    left = list(plan.parts)
    one, two, all_six = (price(plan._replace(left=some)) for some in (left[5:], left[4:], left))
    assert (one.parts, two.parts, all_six.parts) == (1, 2, 6)
    # The other part with all masks, which isn't left, has trained it.
    assert one.seconds["train_teacher"] == 0
    teachers = len({(part.masks, part.seed) for part in plan.parts})
    assert 1 < teachers < 6 and two.seconds["train_teacher"] > 0
    assert all_six.seconds["train_teacher"] == pytest.approx(teachers * two.seconds["train_teacher"])
    assert price(plan._replace(left=[])).total == 0
