from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tasks.training.detector
from data.tables import Split
from models.checkpoint import build_model
from models.solov2.network import SOLOv2
from tasks import train_teacher
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.promotion.baseline import folder_hash
from tasks.promotion.checkpoint_start import record_checkpoints
from tasks.train_student import Round, read_pseudo, run
from tasks.train_student import train as train_student
from tasks.training.detector import train_detector
from tasks.training.holdout import read_held_out
from tasks.training.loop import Job, train
from tests.tasks.conftest import blank_registry


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


def student_with(params: Params, **changes: Any) -> Params:
    """The params with other values in section `student`."""
    student = type(params.student).model_validate({**params.student.model_dump(), **changes})
    return params.model_copy(update={"student": student})


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(build_model(folder).named_parameters())


def test_a_share_of_each_batch_is_strong(place: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, params = place
    strong = set(Split.open(workspace / "dataset" / "strong").images["image_id"].to_pylist())
    seen: list[int] = []

    def watched(job: Job) -> None:
        seen.extend(sum(i in strong for i in batch["image_ids"]) for batch in job.batches(0))
        train(job)

    monkeypatch.setattr(tasks.training.detector, "train", watched)
    run(student_with(params, strong_share=0.5), workspace)
    assert seen == [params.student.batch_size // 2] * params.student.steps
    mixed = (workspace / "student" / "model.safetensors").read_bytes()
    run(student_with(params, strong_share=None), workspace)
    assert mixed != (workspace / "student" / "model.safetensors").read_bytes()
    seen.clear()
    run(student_with(params, strong_share=0.5, strong_end=0.25), workspace)
    steps, size = params.student.steps, params.student.batch_size
    mixed_steps = round(0.75 * steps)
    assert seen == [size // 2] * mixed_steps + [size] * (steps - mixed_steps) and mixed_steps < steps
    # With strong images alone there is nothing to share.
    run(student_with(params, strong_share=0.5, strong_end=0.25, masks="none"), workspace)


def test_clicks_reach_the_students_batches(
    place: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of weak images alone, each on a mask's image; and another student comes of it."""
    workspace, params = place
    strong = set(Split.open(workspace / "dataset" / "strong").images["image_id"].to_pylist())
    clicked: set[tuple[bool, bool]] = set()

    def watched(job: Job) -> None:
        for batch in job.batches(0):
            for image, points in zip(batch["image_ids"], batch["points_xy"], strict=True):
                clicked.add((image in strong, points is not None))
        train(job)

    monkeypatch.setattr(tasks.training.detector, "train", watched)
    made = []
    for classes_from in ("mask", "click"):
        clicked.clear()
        run(student_with(params, classes_from=classes_from), workspace)
        assert clicked == {(True, False), (False, classes_from == "click")}
        made.append((workspace / "student" / "model.safetensors").read_bytes())
    assert made[0] != made[1]


def test_a_student_may_start_from_the_teacher(place: tuple[Path, Params]) -> None:
    workspace, params = place
    still = {
        "start": "teacher",
        "steps": 1,
        "lr": 1e-12,
        "warmup_steps": 0,
        "log_every": 1,
        "checkpoint_every": 1,
    }
    run(student_with(params, **still), workspace)
    teacher, student = weights_of(workspace / "teacher"), weights_of(workspace / "student")
    assert all(torch.allclose(student[name], value, atol=1e-6) for name, value in teacher.items())
    run(student_with(params, **still | {"start": "scratch"}), workspace)
    student = weights_of(workspace / "student")
    assert not all(torch.allclose(student[name], value, atol=1e-6) for name, value in teacher.items())


def test_a_teacher_of_another_network_can_not_be_started_from(place: tuple[Path, Params]) -> None:
    workspace, params = place
    wider = params.model_copy(update={"model": {**params.model, "head_channels": 32}})
    with pytest.raises(TaskError, match=r"another network than in params\.yaml's `model` section"):
        run(student_with(wider, start="teacher"), workspace)
    shutil.rmtree(workspace / "teacher")
    with pytest.raises(TaskError, match=r"teacher/model\.json: not found"):
        run(student_with(params, start="teacher"), workspace)


STILL = {"steps": 1, "lr": 1e-12, "warmup_steps": 0, "log_every": 1, "checkpoint_every": 1}


def promote(workspace: Path, source: str) -> None:
    """Makes a model of the workspace v1, from which a new round starts."""
    folder = Path("registry/v1/model")
    shutil.copytree(workspace / source, folder)
    start = {"version": "v1", "model": folder_hash(folder)}
    Path("registry/start/promoted.json").write_text(json.dumps(start))


def test_a_student_may_start_from_the_promoted_model(
    place: tuple[Path, Params], caplog: pytest.LogCaptureFixture
) -> None:
    workspace, params = place
    blank_registry(Path())
    caplog.set_level("INFO")
    run(student_with(params, **STILL, start="promoted"), workspace)
    assert "no model is promoted yet: it starts from scratch" in caplog.text
    scratch = weights_of(workspace / "student")
    promote(workspace, "teacher")
    run(student_with(params, **STILL, start="promoted"), workspace)
    assert "starts from the promoted model v1" in caplog.text
    teacher, student = weights_of(workspace / "teacher"), weights_of(workspace / "student")
    assert all(torch.allclose(student[name], value, atol=1e-6) for name, value in teacher.items())
    assert not all(torch.allclose(student[name], value, atol=1e-6) for name, value in scratch.items())


def test_an_earlier_round_does_not_start_from_the_promoted_model(
    place: tuple[Path, Params], caplog: pytest.LogCaptureFixture
) -> None:
    """It was trained on the held-out images, where the judge measures that round's student."""
    workspace, params = place
    blank_registry(Path())
    caplog.set_level("INFO")
    run(student_with(params, **STILL), workspace)
    promote(workspace, "student")
    held_out = read_held_out(workspace / "teacher", Split.open(workspace / "dataset" / "strong"))
    earlier = Round("train_rounds", workspace / "pseudo", None, held_out)
    still = student_with(params, **STILL, start="promoted")
    train_student(still, workspace, Path("first"), Path("runs"), earlier=earlier)
    assert "starts from the teacher, not from the promoted model v1" in caplog.text
    teacher, first = weights_of(workspace / "teacher"), weights_of(Path("first"))
    assert all(torch.allclose(first[name], value, atol=1e-6) for name, value in teacher.items())


def test_a_promoted_model_of_other_classes_starts_those_of_equal_name(
    place: tuple[Path, Params], caplog: pytest.LogCaptureFixture
) -> None:
    workspace, params = place
    blank_registry(Path())
    caplog.set_level("INFO")
    meta = json.loads((workspace / "teacher/model.json").read_text())
    meta["categories"][1] |= {"name": "blob"}
    (workspace / "teacher/model.json").write_text(json.dumps(meta))
    promote(workspace, "teacher")
    run(student_with(params, **STILL, start="promoted"), workspace)
    assert "starts from registry/v1/model: 3 of 4 classes by name, 1 new: banana" in caplog.text
    rows = "instance_head.category_predictor.weight"
    teacher, student = weights_of(workspace / "teacher"), weights_of(workspace / "student")
    near = torch.isclose(student[rows], teacher[rows], atol=1e-6).flatten(1).all(1)
    assert near.tolist() == [True, False, True, True]


def checkpoint_of(folder: Path, names: list[str], source: Path) -> Path:
    """A copy of a checkpoint whose classes have other names and ids; as many as before."""
    shutil.copytree(source, folder)
    meta = json.loads((folder / "model.json").read_text())
    meta["categories"] = [{"id": 10 * i, "name": name} for i, name in enumerate(names)]
    (folder / "model.json").write_text(json.dumps(meta))
    return folder


def test_both_may_start_from_a_checkpoint(
    place: tuple[Path, Params], caplog: pytest.LogCaptureFixture
) -> None:
    workspace, params = place
    blank_registry(Path())
    caplog.set_level("INFO")
    checkpoint_of(Path("other"), ["pear", "apple", "car", "Banana"], workspace / "teacher")
    source = weights_of(Path("other"))
    start = {"start": "checkpoint", "checkpoint": "other"}
    teacher = params.teacher.model_copy(update={**STILL, **start, "milestones": (1,)})
    params = student_with(params, **STILL, **start).model_copy(update={"teacher": teacher})
    with pytest.raises(TaskError, match=r"teacher_checkpoint.json: no such file.*`points2model run` records"):
        train_teacher.run(params, workspace)
    assert len(record_checkpoints(Path(), params)) == 2
    assert record_checkpoints(Path(), params) == []
    for name, step in (("teacher", train_teacher.run), ("student", run)):
        step(params, workspace)
        assert (
            f"train_{name}: starts from other: 2 of 4 classes by name, 2 new: banana, strawb" in caplog.text
        )
        made = weights_of(workspace / name)
        for key in made.keys() - {f"instance_head.category_predictor.{x}" for x in ("weight", "bias")}:
            assert torch.allclose(made[key], source[key], atol=1e-6), key
        rows, theirs = (w["instance_head.category_predictor.weight"] for w in (made, source))
        assert torch.allclose(rows[[0, 2]], theirs[[1, 0]], atol=1e-6)  # apple, pear
        assert not torch.isclose(rows[1], theirs[3], atol=1e-3).all()  # banana isn't Banana
        bias = made["instance_head.category_predictor.bias"]
        assert torch.allclose(bias[[1, 3]], torch.tensor(-4.59512), atol=1e-4)  # 0.01 of the focal loss


def test_a_checkpoint_that_is_not_the_recorded_one_is_refused(place: tuple[Path, Params]) -> None:
    workspace, params = place
    blank_registry(Path())
    checkpoint_of(Path("other"), list("abcd"), workspace / "teacher")
    params = student_with(params, start="checkpoint", checkpoint="other")
    record_checkpoints(Path(), params)
    (Path("other") / "model.json").write_text((workspace / "teacher/model.json").read_text())
    with pytest.raises(
        TaskError, match=r"other/model.json: found SHA-256 .*restore the file, or take the new"
    ):
        run(params, workspace)
    assert len(record_checkpoints(Path(), params)) == 1
    shutil.copytree("other", "third")
    with pytest.raises(TaskError, match=r"checkpoint.json: found other, expected the hashes of third"):
        run(student_with(params, start="checkpoint", checkpoint="third"), workspace)
    shutil.rmtree("other")
    with pytest.raises(TaskError, match=r"other/model.json: no such file; .*Correct student.checkpoint"):
        record_checkpoints(Path(), params)


def test_a_promoted_model_that_does_not_fit_is_told(place: tuple[Path, Params]) -> None:
    workspace, params = place
    blank_registry(Path())
    promote(workspace, "teacher")
    wider = params.model_copy(update={"model": {**params.model, "head_channels": 32}})
    with pytest.raises(TaskError, match=r"section:\n.*model.head_channels: found 16, expected 32\n"):
        run(student_with(wider, start="promoted"), workspace)
    shutil.rmtree("registry/v1")
    with pytest.raises(TaskError, match=r"the model of v1 isn't here.*dvc pull"):
        run(student_with(params, start="promoted"), workspace)


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
