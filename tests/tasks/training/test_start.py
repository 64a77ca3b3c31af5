"""A network that starts from another one's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.checkpoint import FORMAT, kind_of, save_checkpoint
from models.config import SOLOv2Config
from models.inference.detector import Detector
from models.solov2.network import SOLOv2
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.training.start import CLASS_LAYER, start_from
from tests.models.queries import tiny


def network(config: SOLOv2Config, classes: int, seed: int) -> SOLOv2:
    torch.manual_seed(seed)
    return SOLOv2(config, classes)


def saved(folder: Path, config: SOLOv2Config, names: list[str], seed: int = 1) -> dict[str, torch.Tensor]:
    """A checkpoint of random weights; returns them."""
    model = network(config, len(names), seed)
    write(folder, model, names)
    return model.state_dict()


def write(folder: Path, model: Detector, names: list[str]) -> None:
    rows = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    config = model.config
    meta = {
        "format": FORMAT, "kind": kind_of(config), "config": config.model_dump(mode="json"), "categories": rows,
    }  # fmt: skip
    save_checkpoint(folder, model.state_dict(), meta)


@pytest.fixture
def config(line: tuple[Path, Params]) -> SOLOv2Config:
    return line[1].detector(line[1].teacher)


@pytest.mark.parametrize(
    ("theirs", "ours", "rows", "said"),
    [
        (["a", "b"], ["a", "b"], [0, 1], "all 2 classes by name"),
        (["a", "b"], ["b", "a"], [1, 0], "all 2 classes by name"),
        (["a", "b", "c"], ["c"], [2], "all 1 classes by name"),
        (["a"], ["x", "a", "y"], [None, 0, None], "1 of 3 classes by name, 2 new: x, y"),
        (["a"], ["A", "b"], [None, None], "all but the class layer, since none of its classes .* (A, b)"),
        (["a"], [*"abcdefghijklm"], [0, *[None] * 12], "1 of 13 .*: b, c, d, e, f, g, h, i, j, k and 2 more"),
    ],
)
def test_the_class_layers_rows_go_by_name(
    config: SOLOv2Config,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    theirs: list[str],
    ours: list[str],
    rows: list[int | None],
    said: str,
) -> None:
    caplog.set_level("INFO")
    source = saved(tmp_path / "other", config, theirs)
    model, random = (network(config, len(ours), seed=0) for _ in range(2))
    start_from("train_student", model, tmp_path / "other", ours)
    for key, value in model.state_dict().items():
        expected = source[key]
        if key.startswith(CLASS_LAYER):
            own = random.state_dict()[key]
            expected = torch.stack([own[i] if r is None else source[key][r] for i, r in enumerate(rows)])
        assert torch.equal(value, expected), key
    (line,) = caplog.messages
    begin, _, end = said.partition(".*")
    assert line.startswith(f"train_student: starts from {tmp_path / 'other'}: {begin}") and line.endswith(end)


def with_changes(config: SOLOv2Config, changes: dict[str, Any]) -> SOLOv2Config:
    values = config.model_dump()
    backbone = {**values["backbone"], **changes.get("backbone", {})}
    return SOLOv2Config.model_validate({**values, **changes, "backbone": backbone})


@pytest.mark.parametrize(
    "changes",
    [
        {"grids": (6, 4, 2), "ranges": ((1, 9), (9, 20), (20, 99))},
        {"grids": (6,), "ranges": ((1, 99),), "level_sources": ((3, 3),), "grid_reference": 64},
        {"focal_weight": 9.0, "prior_prob": 0.5, "centre_shrink": 0.0},
        {"backbone": {"frozen_stages": 3}},
    ],
)
def test_what_has_no_weights_may_differ(
    config: SOLOv2Config, tmp_path: Path, changes: dict[str, Any]
) -> None:
    changes = {**changes}
    if "grid_reference" in changes:
        changes["grids"] = (4,)
    saved(tmp_path / "other", with_changes(config, changes), ["a"])
    model = network(config, 1, seed=0)
    start_from("train_student", model, tmp_path / "other", ["a"])


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"pixel_mean": (1.0, 2.0, 3.0)}, ["model.pixel_mean: found [1.0, 2.0, 3.0], expected [123.675,"]),
        ({"bgr": True}, ["model.bgr: found true, expected false"]),
        ({"backbone": {"norm_groups": 2}}, ["model.backbone.norm_groups: found 2, expected 8"]),
        (
            {"fpn_channels": 8, "backbone": {"name": "resnet34", "width": 0.5}},
            [
                "model.backbone.name: found resnet34, expected resnet18",
                "model.backbone.width: found 0.5, expected 0.25",
                "model.fpn_channels: found 8, expected 16",
            ],
        ),
    ],
)
def test_another_network_is_an_error_with_every_key(
    config: SOLOv2Config, tmp_path: Path, changes: dict[str, Any], lines: list[str]
) -> None:
    saved(tmp_path / "other", with_changes(config, changes), ["a"])
    with pytest.raises(TaskError) as error:
        start_from("train_student", network(config, 1, seed=0), tmp_path / "other", ["a"])
    found = [line.removeprefix("  - ") for line in str(error.value).splitlines() if line.startswith("  - ")]
    assert len(found) == len(lines)
    assert all(one.startswith(line) for one, line in zip(found, lines, strict=True))
    assert "Set these keys to what was found" in str(error.value)


@pytest.mark.parametrize("classes", [["a", "b"], ["b", "c", "d"]])
def test_a_network_with_queries_of_another_width_is_an_error(tmp_path: Path, classes: list[str]) -> None:
    other = tiny.network(classes=2, hidden_dim=64, feature_size=64, mask_feature_size=64)
    write(tmp_path / "other", other, ["a", "b"])
    with pytest.raises(TaskError, match=r"`student\.network`:\n(.*\n)*.*class_predictor.weight: found shape"):
        start_from("train_student", tiny.network(classes=len(classes)), tmp_path / "other", classes)


def test_a_refiner_is_no_start(config: SOLOv2Config, line: tuple[Path, Params]) -> None:
    with pytest.raises(TaskError, match="kind: found refinenet, expected solov2"):
        start_from("train_student", network(config, 1, seed=0), line[0] / "workspace/refiner", ["a"])
