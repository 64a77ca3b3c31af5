"""The backbone's own learning rate, in real trainings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from models.checkpoint import build_model
from models.solov2.network import SOLOv2
from tasks import train_teacher
from tasks.common.config import Params
from tasks.training.optimization import build_optimizer

SGD = {
    "steps": 1, "optimizer": "sgd", "weight_decay": 0.0, "warmup_steps": 0, "clip_norm": None, "precision": "fp32",
    "checkpoint_every": 1, "log_every": 1, "milestones": (1,), "batch_size": 2,
}  # fmt: skip


def trained(params: Params, **changes: object) -> dict[str, torch.Tensor]:
    """The weights after one step of plain gradient descent, which is lr x gradient."""
    teacher = params.teacher.model_copy(update={**SGD, **changes})
    train_teacher.run(params.model_copy(update={"teacher": teacher}), Path("workspace"))
    return dict(build_model(Path("workspace/teacher")).named_parameters())


def test_the_backbone_steps_by_its_share_and_all_else_as_before(
    line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, params = line
    shutil.copytree(folder / "workspace" / "dataset", tmp_path / "workspace" / "dataset")
    shutil.copytree(folder / "workspace" / "demo", tmp_path / "workspace" / "demo")
    monkeypatch.chdir(tmp_path)
    start = trained(params, lr=1e-9)
    one, tenth = trained(params, lr=0.05), trained(params, lr=0.05, backbone_lr=0.1)
    inside = {name for name in one if name.startswith("backbone.body.")}
    assert 20 < len(inside) < len(one)
    for name, before in start.items():
        moved, less = one[name] - before, tenth[name] - before
        expected = 0.1 * moved if name in inside else moved
        torch.testing.assert_close(less, expected, rtol=1e-3, atol=1e-6, msg=name)
    assert max(float((one[name] - start[name]).abs().max()) for name in inside) > 1e-4


def test_a_factor_of_1_leaves_the_groups_as_they_were(line: tuple[Path, Params]) -> None:
    params = line[1]
    model = SOLOv2(params.detector(params.teacher), 4)
    groups = build_optimizer(model, params.teacher).param_groups
    assert [group["weight_decay"] for group in groups] == [params.teacher.weight_decay, 0.0]
    assert all("factor" not in group for group in groups)
    slow = params.teacher.model_copy(update={"backbone_lr": 0.5})
    more = build_optimizer(model, slow).param_groups
    assert [group.get("factor") for group in more] == [None, None, 0.5, 0.5]
    assert sum(len(group["params"]) for group in more) == sum(len(group["params"]) for group in groups)
    model.backbone.body.requires_grad_(False)
    assert len(build_optimizer(model, slow).param_groups) == 2
