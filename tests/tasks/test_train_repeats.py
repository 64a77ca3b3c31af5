"""train_repeats trains the students that train_student trains with these seeds, byte for byte."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tasks.training.detector
from tasks import train_repeats, train_student
from tasks.common.config import Params
from tasks.promotion.baseline import folder_hash
from tasks.training import loop
from tests.tasks.conftest import ROOT

WORKSPACE = Path("workspace")


@pytest.fixture
def params(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Inside a copy of the tiny line; the seed isn't 0."""
    shutil.copytree(line[0] / "workspace", tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    return line[1].model_copy(update={"seed": 7})


def repeated(params: Params, repeats: int) -> Params:
    return params.model_copy(update={"promotion": params.promotion.model_copy(update={"repeats": repeats})})


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WORKSPACE / "repeats/manifest.json").read_text())
    return found


def leftovers() -> list[str]:
    return [path.name for path in (WORKSPACE / "runs/train_repeats").iterdir()]


def student_of(params: Params, seed: int) -> str:
    train_student.run(params.model_copy(update={"seed": seed}), WORKSPACE)
    return folder_hash(WORKSPACE / "student")


def test_one_training_is_nothing_to_do(params: Params) -> None:
    for part in ("dataset", "points", "pseudo", "teacher"):  # it reads nothing
        shutil.rmtree(WORKSPACE / part)
    train_repeats.run(repeated(params, 1), WORKSPACE)
    assert [path.name for path in (WORKSPACE / "repeats").iterdir()] == ["manifest.json"]
    assert (manifest()["counts"], manifest()["seeds"]) == ({"trainings": 0}, [])


def test_without_anything_to_do_torch_is_not_imported() -> None:
    code = "import sys, tasks.train_repeats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_each_is_the_student_of_its_seed(params: Params) -> None:
    train_repeats.run(repeated(params, 3), WORKSPACE)
    assert manifest()["seeds"] == [8, 9] and leftovers() == []
    found = {path.name: folder_hash(path) for path in (WORKSPACE / "repeats").iterdir() if path.is_dir()}
    assert found == {f"seed-{seed}": student_of(params, seed) for seed in (8, 9)}
    assert len(set(found.values())) == 2
    # Fewer than before: the others are gone.
    train_repeats.run(repeated(params, 2), WORKSPACE)
    assert sorted(path.name for path in (WORKSPACE / "repeats").iterdir()) == ["manifest.json", "seed-8"]


def test_a_killed_run_goes_on_where_it_was(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the second of two trainings, after its state of step 4: the first isn't trained again."""
    expected = {f"seed-{seed}": student_of(params, seed) for seed in (8, 9)}
    steps: list[int] = []

    def until(last: int) -> Any:
        def update(job: loop.Job, run: Any, step: int, guard: Any) -> None:
            steps.append(step)
            if len(steps) > last:
                raise KeyboardInterrupt
            real(job, run, step, guard)

        return update

    real = loop._update
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_update", until(params.student.steps + 6))
        with pytest.raises(KeyboardInterrupt):
            train_repeats.run(repeated(params, 3), WORKSPACE)
    assert not (WORKSPACE / "repeats").exists()
    steps.clear()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_update", until(100))
        train_repeats.run(repeated(params, 3), WORKSPACE)
    assert steps == list(range(4, params.student.steps))
    found = {path.name: folder_hash(path) for path in (WORKSPACE / "repeats").iterdir() if path.is_dir()}
    assert found == expected and leftovers() == []


def test_of_other_settings_nothing_is_kept(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when the first of two trainings had ended; then the settings change."""
    calls = 0
    real = tasks.training.detector.train

    def second_fails(job: loop.Job) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        real(job)

    with monkeypatch.context() as patch:
        patch.setattr(tasks.training.detector, "train", second_fails)
        with pytest.raises(KeyboardInterrupt):
            train_repeats.run(repeated(params, 3), WORKSPACE)
    slower = params.model_copy(update={"student": params.student.model_copy(update={"lr": 0.0007})})
    train_repeats.run(repeated(slower, 3), WORKSPACE)
    assert folder_hash(WORKSPACE / "repeats/seed-8") == student_of(slower, 8)
