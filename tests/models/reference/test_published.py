"""Names and sizes of published networks; whole files are tested in tests/tasks/tools/test_import_checkpoint.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.reference.published import PublishedError, msra_names, refinenet_names, renamed, solov2_names
from models.reference.published_config import (
    STUDENT,
    TEACHER,
    kind_of,
    refinenet_config,
    resnet_of,
    solov2_config,
)


def keys_of(folder: Path, name: str) -> set[str]:
    path = folder / "fixtures/reference" / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return set(json.loads(path.read_text())["state_dict"])


@pytest.mark.parametrize(("name", "backbone"), [("r50_coco80", "resnet50"), ("r101_teacher80", "resnet101")])
def test_names_are_the_published_ones(shared_dir: Path, name: str, backbone: str) -> None:
    keys = keys_of(shared_dir, f"solov2_keys/{name}.json")
    assert resnet_of(keys) == backbone
    assert solov2_names(backbone, 4).keys() == keys


def test_refinenet_names_are_the_published_ones(shared_dir: Path) -> None:
    assert refinenet_names(3).keys() == keys_of(shared_dir, "refine/keys_80.json")


@pytest.mark.parametrize(
    "names", [solov2_names("resnet101", 4), refinenet_names(3), msra_names("resnet50", [])]
)
def test_no_two_names_become_one(names: dict[str, str]) -> None:
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["ins_head.cate_pred.bias", "x"], "solov2"),
        (["backbone.bottom_up.res2.0.conv1.weight"], "solov2"),
        (["layer1.1.0.bn1.weight", "head.bias"], "refinenet"),
        (["conv1_w", "res2_0_branch1_w", "pred_w"], "backbone"),
        (["stem.conv1.weight", "res2.0.shortcut.weight"], "backbone"),
    ],
)
def test_kinds_are_told_by_names(keys: list[str], kind: str) -> None:
    assert kind_of(keys, "file") == kind


@pytest.mark.parametrize(
    ("keys", "found"), [([], "no tensors"), (["fc.weight", "conv1.weight"], "conv1.weight, fc.weight")]
)
def test_other_networks_are_refused(keys: list[str], found: str) -> None:
    with pytest.raises(PublishedError, match=f"file: found {found}; expected"):
        kind_of(keys, "file")


def test_caffe2_names_follow_the_file_s_spelling() -> None:
    one = msra_names("resnet50", ["res2_0_branch2a_bn_s", "res2_0_branch2a_bn_b"])
    other = msra_names("resnet50", ["res2_0_branch2a_bn_gamma", "res2_0_branch2a_bn_running_mean"])
    assert one["res2_0_branch2a_bn_s"] == other["res2_0_branch2a_bn_gamma"] == "layer1.0.bn1.weight"
    assert (
        one["res5_0_branch1_bn_riv"]
        == other["res5_0_branch1_bn_running_var"]
        == "layer4.0.downsample.1.running_var"
    )
    assert one["conv1_w"] == "conv1.weight"
    assert other["res_conv1_bn_beta"] == "bn1.bias"


def test_sizes_without_tensors_are_the_published_ones() -> None:
    config, classes = solov2_config({}, TEACHER)
    assert classes == 80
    assert (config.backbone.name, config.backbone.width, config.backbone.norm) == (
        "resnet50",
        1.0,
        "frozen_bn",
    )
    sizes = (
        config.fpn_channels,
        config.head_channels,
        config.head_convs,
        config.kernel_channels,
        config.mask_channels,
    )
    assert sizes == (256, 512, 4, 256, 128)
    assert config.strides == (8, 8, 16, 32, 32)
    assert config.bgr and config.backbone.stride_in_1x1
    refiner, classes = refinenet_config({})
    assert (refiner.heatmap_channels, classes, refiner.crop_size, refiner.heatmap_sigma) == (81, 80, 256, 6.0)


def test_one_odd_tensor_doesn_t_mislead() -> None:
    found = {f"backbone.fpn_lateral{i}.bias": torch.zeros(48 if i == 3 else 32) for i in (2, 3, 4, 5)}
    assert solov2_config(found, STUDENT)[0].fpn_channels == 32


def test_kinds_of_number_are_checked_and_floats_become_float32() -> None:
    names = {"a": "ours.a", "b.num_batches_tracked": "ours.b.num_batches_tracked"}
    shapes = {"ours.a": torch.Size([2]), "ours.b.num_batches_tracked": torch.Size([])}
    good = {"a": torch.ones(2, dtype=torch.float16), "b.num_batches_tracked": torch.tensor(3)}
    ours = renamed(good, names, shapes, "file", "a network")
    assert (ours["ours.a"].dtype, ours["ours.b.num_batches_tracked"].dtype) == (torch.float32, torch.int64)
    bad = {"a": torch.ones(2, dtype=torch.int32), "b.num_batches_tracked": torch.tensor(3.0)}
    with pytest.raises(PublishedError, match=r"(?s)2 faults.*a: found numbers of type int32.*type float32"):
        renamed(bad, names, shapes, "file", "a network")
