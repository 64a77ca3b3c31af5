from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from data.tables import Split
from models.checkpoint import build_model
from models.solov2 import SOLOv2
from tasks import train_teacher
from tasks.config import Params
from tasks.detector import train_detector
from tasks.holdout import read_held_out
from tasks.train_student import read_pseudo, run


@pytest.fixture
def place(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Params]:
    folder, params = line
    shutil.copytree(folder / "workspace", tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    return Path("workspace"), params


def test_a_student_of_the_teachers_data_is_the_teacher(place: tuple[Path, Params]) -> None:
    """Same seed, same weights to begin with, same steps: only the pseudo masks make a student another model."""
    workspace, params = place
    own = params.teacher.model_dump(exclude={"milestones", "holdout"})
    student = type(params.student).model_validate({**params.student.model_dump(), **own, "masks": "none"})
    train_teacher.run(
        params.model_copy(update={"teacher": params.teacher.model_copy(update={"holdout": 0.0})}), workspace
    )
    run(params.model_copy(update={"student": student}), workspace)
    first, second = build_model(workspace / "teacher"), build_model(workspace / "student")
    assert isinstance(first, SOLOv2) and isinstance(second, SOLOv2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_same_run_gives_the_same_bytes(place: tuple[Path, Params]) -> None:
    workspace, params = place
    seen = []
    for _ in range(2):
        run(params, workspace)
        seen.append({path.name: path.read_bytes() for path in sorted((workspace / "student").iterdir())})
    assert seen[0] == seen[1]
    assert {"model.safetensors", "model.json", "log.jsonl", "manifest.json"} == seen[0].keys()
    manifest = json.loads(seen[0]["manifest.json"])
    pseudo = read_pseudo(workspace / "pseudo")
    used = sum(status in ("ok", "rough") for status in pseudo["status"].to_pylist())
    strong = len(Split.open(workspace / "dataset" / "strong").instances)
    assert manifest["counts"]["instances"] == used + strong


@pytest.mark.slow
def test_loader_workers_change_nothing(place: tuple[Path, Params]) -> None:
    workspace, params = place
    runtime = params.runtime.model_copy(update={"workers": 2})
    strong = Split.open(workspace / "dataset" / "strong")
    settings = (params.teacher, [strong], workspace, workspace / "other")
    train_detector(
        "other",
        params.model_copy(update={"runtime": runtime}),
        *settings,
        held_out=read_held_out(workspace / "teacher", strong),
    )
    same = (workspace / "other" / "model.safetensors").read_bytes()
    assert same == (workspace / "teacher" / "model.safetensors").read_bytes()
