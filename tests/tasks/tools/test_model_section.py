"""params.yaml with the network of a checkpoint: a training can start from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from models.checkpoint import FORMAT, save_checkpoint
from models.solov2.network import SOLOv2
from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError
from tasks.tools.model_section import with_network_of
from tasks.training.start import start_from
from tests.tasks.conftest import ROOT


@pytest.fixture
def other(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the tiny network, and the demo's params.yaml beside it; the current folder is theirs."""
    config = line[1].detector(line[1].teacher)
    torch.manual_seed(0)
    meta = {
        "format": FORMAT, "kind": "solov2", "config": config.model_dump(mode="json"),
        "categories": [{"id": 1, "name": "apple"}],
    }  # fmt: skip
    save_checkpoint(tmp_path / "other", SOLOv2(config, 1).state_dict(), meta)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return Path("other")


def test_a_training_can_start_from_it(other: Path) -> None:
    path = Path("params.yaml")
    before = load_params(path)
    found = with_network_of(other, path)
    path.write_text(found.text)
    after = load_params(path)
    start_from("train_teacher", SOLOv2(after.detector(after.teacher), 1), other, ["apple"])
    assert after.model["backbone"]["name"] == "resnet18" and after.model["backbone"]["weights"] is None
    # No weight depends on these: the tiny network has three levels, the demo two.
    for key in ("level_sources", "centre_shrink", "focal_weight"):
        assert after.model[key] == before.model[key]
    assert after.model["backbone"]["frozen_stages"] == before.model["backbone"]["frozen_stages"]
    assert after.model_copy(update={"model": before.model}) == before
    assert "- model.backbone.name: efficientnet_lite0" in found.changes
    assert "+ model.backbone.name: resnet18" in found.changes
    assert all(line[2:].startswith("model.") for line in found.changes)
    comments = [line.partition("#")[2] for line in (ROOT / "params.yaml").read_text().splitlines()]
    assert [line.partition("#")[2] for line in found.text.splitlines() if "#" in line] == list(
        filter(None, comments)
    )
    assert with_network_of(other, path).changes == []


def test_faults(other: Path, line: tuple[Path, Params]) -> None:
    path = Path("params.yaml")
    with pytest.raises(TaskError, match=r"nothing/model.json: not found"):
        with_network_of(Path("nothing"), path)
    with pytest.raises(TaskError, match="found a refinenet, expected a SOLOv2"):
        with_network_of(line[0] / "workspace/refiner", path)
    with pytest.raises(TaskError, match=r"none.yaml: can't be read .*`points2model use RECIPE` writes one"):
        with_network_of(other, Path("none.yaml"))
    path.write_text(path.read_text().replace("  steps: 400", "  stepz: 400"))
    with pytest.raises(TaskError, match="stepz: found an unknown key"):
        with_network_of(other, path)
