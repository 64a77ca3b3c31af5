from __future__ import annotations

import errno
import json
import logging
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from data.tables import INSTANCES, DataError, Split, write_split
from models.checkpoint import build_model, load_checkpoint
from models.solov2.network import SOLOv2
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.promotion.baseline import folder_hash
from tasks.train_teacher import run
from tasks.training import detector
from tasks.training.holdout import read_held_out
from tests.tasks.conftest import run_step


@pytest.fixture
def strong(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """The strong split of a copy of the line's data set."""
    folder, _ = line
    for part in ("dataset", "demo"):
        shutil.copytree(folder / "workspace" / part, tmp_path / "workspace" / part)
    monkeypatch.chdir(tmp_path)
    return Split.open(Path("workspace/dataset/strong"))


def test_what_it_leaves(line: tuple[Path, Params]) -> None:
    folder, params = line
    teacher = folder / "workspace" / "teacher"
    model = build_model(teacher)
    assert isinstance(model, SOLOv2)
    assert model.config == params.detector(params.teacher)
    found = sorted(path.name for path in (teacher / "milestones").iterdir())
    assert found == ["0000006", "0000010"]
    weights = [load_checkpoint(teacher / "milestones" / name)[0] for name in found] + [
        load_checkpoint(teacher)[0]
    ]
    key = "instance_head.category_predictor.weight"
    key = key if key in weights[0] else next(iter(weights[0]))
    assert not torch.equal(weights[0][key], weights[1][key]) and not torch.equal(
        weights[1][key], weights[2][key]
    )
    manifest = json.loads((teacher / "manifest.json").read_text())
    assert manifest["counts"]["images"] == 5 and manifest["counts"]["held_out"] == 1
    assert manifest["counts"]["steps"] == 12
    assert not (folder / "workspace" / "runs" / "train_teacher" / "resume").exists()


def test_a_training_whose_outputs_cannot_be_written_is_not_lost(
    strong: Split, line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its states go after its outputs are there, not before: the next run goes on from them."""

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder, params = line
    with monkeypatch.context() as patch:
        patch.setattr(detector, "write_training", full_disk)
        with pytest.raises(OSError, match="No space"):
            run(params, Path("workspace"))
    states = sorted(path.name for path in Path("workspace/runs/train_teacher/resume").glob("*/*"))
    assert "state_0000008.pt" in states and "milestone_0000010.safetensors" in states
    assert not Path("workspace/teacher").exists()
    run(params, Path("workspace"))
    assert folder_hash(Path("workspace/teacher")) == folder_hash(folder / "workspace/teacher")
    assert not Path("workspace/runs/train_teacher/resume").exists()


def test_learning_from_crops(
    line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teacher and refiner on crops, pseudo labels and predictions on whole images: all with cells of one size."""
    folder, params = line
    shutil.copytree(folder / "workspace", tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    raw = params.model_dump()
    raw["model"] = {**params.model, "grid_reference": 64}
    for name in ("teacher", "refiner", "student"):
        raw[name]["augment"] |= {"crop_side": 32, "scale_max": 1.5, "flip": 0.5, "rotate90": 0.5}
    cropped = Params.model_validate_json(json.dumps(raw))
    workspace = Path("workspace")
    for step in ("train_teacher", "train_refiner", "pseudo_label", "train_student"):
        run_step(step, cropped, workspace)
    model = build_model(workspace / "student")
    assert isinstance(model, SOLOv2)
    outputs = model(torch.zeros(1, 3, 64, 96, dtype=torch.uint8))
    assert [tuple(x.shape[2:]) for x in outputs.kernels] == [(12, 18), (10, 15), (8, 12)]


def test_no_mask_to_learn_from(strong: Split, line: tuple[Path, Params]) -> None:
    write_split(strong.root, strong.images, INSTANCES.empty_table(), strong.categories, strong.image_root)
    with pytest.raises(TaskError, match="found no mask, expected at least one image with masks"):
        run(line[1], Path("workspace"))
    assert not Path("workspace/teacher").exists()


def test_a_class_without_masks_is_said(
    strong: Split, line: tuple[Path, Params], caplog: pytest.LogCaptureFixture
) -> None:
    first = strong.categories[0]
    others = strong.instances.filter(pc.not_equal(strong.instances["category_id"], first.id))
    write_split(strong.root, strong.images, others, strong.categories, strong.image_root)
    with caplog.at_level(logging.WARNING):
        run(line[1], Path("workspace"))
    assert f"class '{first.name}' has no mask among the strong images" in caplog.text


def test_held_out_images_are_not_trained_on(strong: Split, line: tuple[Path, Params]) -> None:
    folder, params = line
    (held_out,) = read_held_out(folder / "workspace" / "teacher", strong)
    gone = strong.images["image_id"].to_pylist().index(held_out)
    strong.image_path(gone).unlink()
    run(params, Path("workspace"))  # it would say that the image can't be read
    same = Path("workspace/teacher/model.safetensors").read_bytes()
    assert same == (folder / "workspace" / "teacher" / "model.safetensors").read_bytes()
    with pytest.raises(DataError, match=strong.image(gone)["file_name"]):
        run(
            params.model_copy(update={"teacher": params.teacher.model_copy(update={"holdout": 0.0})}),
            Path("workspace"),
        )


def test_where_every_image_is_a_class_s_last_none_is_held_out(
    strong: Split, line: tuple[Path, Params], caplog: pytest.LogCaptureFixture
) -> None:
    ids = strong.images["image_id"].to_pylist()
    one_class_an_image = pc.is_in(strong.instances["image_id"], pa.array(ids[:1]))
    kept = strong.instances.filter(one_class_an_image)
    write_split(strong.root, strong.images, kept, strong.categories, strong.image_root)
    with caplog.at_level(logging.WARNING):
        run(line[1], Path("workspace"))
    assert "none is held out: refinement can't be measured" in caplog.text
    assert not read_held_out(Path("workspace/teacher"), strong)
