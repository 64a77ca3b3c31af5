"""A training is known by the content of the weights that it began with."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import torchvision

import tasks.train_refiner
import tasks.training.detector
from models.checkpoint import build_model
from tasks import train_refiner, train_teacher
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.training.loop import Job, train
from tasks.training.setup import weights_sha256


def with_weights(params: Params, weights: str) -> Params:
    """The same line, whose networks start from ResNet-18 weights in a file."""
    changes = {"width": 1.0, "norm": "frozen_bn", "weights": weights}
    teacher = params.teacher.model_copy(update={"steps": 2, "milestones": (1,)})
    net = params.refiner.net
    net = net.model_copy(update={"backbone": net.backbone.model_copy(update=changes)})
    return params.model_copy(
        update={
            "model": {**params.model, "backbone": {**params.model["backbone"], **changes}},
            "teacher": teacher,
            "refiner": params.refiner.model_copy(update={"steps": 2, "milestones": (1,), "net": net}),
        }
    )


def save_resnet18(path: Path, seed: int) -> str:
    torch.manual_seed(seed)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_no_weights_no_hash(line: tuple[Path, Params]) -> None:
    assert weights_sha256(line[1].refiner.net.backbone) is None
    manifest = json.loads((line[0] / "workspace" / "teacher" / "manifest.json").read_text())
    assert manifest["backbone_weights"] is None


def test_the_hash_is_in_key_and_manifest(
    line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = line
    for part in ("dataset", "demo"):
        shutil.copytree(folder / "workspace" / part, tmp_path / "workspace" / part)
    monkeypatch.chdir(tmp_path)
    params = with_weights(params, "resnet18.pth")
    keys: dict[str, set[str]] = {}

    def watch(job: Job) -> None:
        keys.setdefault(job.name, set()).add(job.key)
        train(job)

    monkeypatch.setattr(tasks.training.detector, "train", watch)
    monkeypatch.setattr(tasks.train_refiner, "train", watch)
    for seed in (0, 1):
        expected = save_resnet18(tmp_path / "resnet18.pth", seed)
        for step, out in ((train_teacher, "teacher"), (train_refiner, "refiner")):
            step.run(params, Path("workspace"))
            manifest = json.loads((tmp_path / "workspace" / out / "manifest.json").read_text())
            assert manifest["backbone_weights"] == expected
    assert {name: len(found) for name, found in keys.items()} == {"train_teacher": 2, "train_refiner": 2}


def test_weights_that_are_not_there_name_the_key(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = line
    monkeypatch.chdir(folder)
    with pytest.raises(TaskError, match=r"model.backbone.weights: none.pth: no such file"):
        train_teacher.run(with_weights(params, "none.pth"), Path("workspace"))


def with_timm(params: Params, **backbone: object) -> Params:
    """A teacher of two steps on a network of timm."""
    own = {"name": "timm/convnext_atto", "width": 1.0, "norm": "frozen_bn", **backbone}
    update = {"steps": 2, "milestones": (1,), "backbone_lr": 0.1}
    return params.model_copy(
        update={
            "model": {**params.model, "backbone": {**params.model["backbone"], **own}},
            "teacher": params.teacher.model_copy(update=update),
        }
    )


def test_a_network_of_timm_trains_from_a_file(
    line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    folder, params = line
    for part in ("dataset", "demo"):
        shutil.copytree(folder / "workspace" / part, tmp_path / "workspace" / part)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    state = timm.create_model("convnext_atto").state_dict()
    torch.save(state, "atto.pth")
    made = []
    for _ in range(2):
        train_teacher.run(with_timm(params, weights="atto.pth", frozen_stages=2), Path("workspace"))
        made.append((tmp_path / "workspace/teacher/model.safetensors").read_bytes())
    assert made[0] == made[1]
    manifest = json.loads((tmp_path / "workspace/teacher/manifest.json").read_text())
    assert manifest["backbone_weights"] == hashlib.sha256((tmp_path / "atto.pth").read_bytes()).hexdigest()
    body = build_model(tmp_path / "workspace/teacher").backbone.body.network.state_dict()
    frozen = {key for key in body if key.startswith(("stem.", "stages.0."))}
    assert all(torch.equal(body[key], state[key]) for key in frozen) and len(frozen) > 10
    changed = {key for key in body if not torch.equal(body[key], state[key])}
    assert changed and not changed & frozen


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (
            {"name": "timm/convnext_ato"},
            r"^model\.backbone\.name: timm .* has no network convnext_ato; did you",
        ),
        ({"frozen_stages": 1}, r"^model\.backbone\.frozen_stages: found 1, expected one of"),
        (
            {"weights": "none.pth"},
            r"^model\.backbone\.weights: none.pth: no such file; name .*, or pretrained",
        ),
    ],
)
def test_what_a_network_of_timm_can_not_do_names_the_key(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch, backbone: dict[str, object], said: str
) -> None:
    pytest.importorskip("timm")
    folder, params = line
    monkeypatch.chdir(folder)
    with pytest.raises(TaskError, match=said):
        train_teacher.run(with_timm(params, **backbone), Path("workspace"))
