from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from models.backbones.build import build_backbone, weights_file
from models.backbones.config import BackboneConfig
from models.backbones.fpn import BackboneFPN
from models.backbones.registry import BACKBONES

PAPER = {
    "name": "resnet18",
    "width": 1.0,
    "norm": "frozen_bn",
    "norm_groups": 32,
    "frozen_stages": 2,
    "stride_in_1x1": False,
    "weights": None,
}


def config(**changes: object) -> BackboneConfig:
    return BackboneConfig.model_validate({**PAPER, **changes})


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_torchvision_weights_give_torchvision_features(name: str, suffix: str, tmp_path) -> None:
    theirs = torchvision.models.get_model(name, weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(theirs.state_dict(), path)
    else:
        save_file(theirs.state_dict(), path)
    ours = build_backbone(config(name=name, weights=str(path))).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            y = stage(y)
        torch.testing.assert_close(ours(x)[-1], y, rtol=1e-3, atol=1e-3 * float(y.abs().max()))


def test_weights_that_do_not_fit_are_refused_with_the_reason(tmp_path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    with pytest.raises(ValueError, match=r"conv1.weight: found \[64, 3, 7, 7\], expected \[32, 3, 7, 7\]"):
        build_backbone(config(width=0.5, weights=str(path)))
    with pytest.raises(ValueError, match="missing"):
        build_backbone(config(name="resnet34", weights=str(path)))


def test_every_fault_of_a_file_is_named(tmp_path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    state["conv9.weight"] = state.pop("layer1.0.conv1.weight")
    state["bn1.weight"] = torch.zeros(3)
    del state["bn1.running_var"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"\(4 faults\)") as caught:
        build_backbone(config(weights=str(tmp_path / "w.pth")))
    for fault in (
        "layer1.0.conv1.weight: missing",
        "conv9.weight: not in this network",
        "bn1.weight: found [3], expected [64]",
        "bn1.running_var: missing",
    ):
        assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {"conv1.weight": torch.zeros(1)}}, "found entries model, expected a state dict"),
        ([torch.zeros(1)], "found list, expected a state dict"),
        (None, "not readable as weights"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(content: object, said: str, tmp_path) -> None:
    path = tmp_path / "w.pth"
    if content is None:
        path.write_bytes(b"not a checkpoint")
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=said):
        build_backbone(config(weights=str(path)))


def test_weights_that_are_not_there(tmp_path, monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        build_backbone(config(weights=str(tmp_path / "none.pth")))

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with pytest.raises(FileNotFoundError, match=f"put that file at {tmp_path}/checkpoints/resnet34-"):
        build_backbone(config(name="resnet34", weights="imagenet"))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_imagenet_of_a_resnet_is_the_file_in_torchs_cache(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    url = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url
    path = tmp_path / "checkpoints" / url.rpartition("/")[2]
    path.parent.mkdir()
    path.touch()
    assert weights_file(name, "imagenet") == path


def test_group_norm_takes_scales_and_offsets(tmp_path) -> None:
    theirs = torchvision.models.resnet18(weights=None)
    nn.init.uniform_(theirs.bn1.weight)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build_backbone(config(norm="group_norm", weights=str(tmp_path / "w.pth")))
    assert torch.equal(ours.bn1.weight, theirs.bn1.weight)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "imagenet", "width": 0.5}, "width: found 0.5, expected 1.0"),
        ({"name": "efficientnet_lite0", "stride_in_1x1": True}, "stride_in_1x1: found true"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**changes)


def test_further_input_channels_leave_the_rgb_weights_as_they_are(tmp_path) -> None:
    theirs = torchvision.models.resnet18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build_backbone(config(weights=str(tmp_path / "w.pth"), norm="batch_norm"), in_channels=5)
    assert torch.equal(ours.conv1.weight[:, :3], theirs.conv1.weight)


@pytest.mark.parametrize(
    ("stages", "learning"),
    [
        (0, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}),
        (2, {"layer2", "layer3", "layer4"}),
        (5, set()),
    ],
)
def test_frozen_stages(stages: int, learning: set[str]) -> None:
    resnet = build_backbone(config(width=0.125, norm="group_norm", frozen_stages=stages))
    assert {name.split(".")[0] for name, p in resnet.named_parameters() if p.requires_grad} == learning


@pytest.mark.parametrize("in_1x1", [True, False])
def test_bottleneck_stride_is_in_the_set_convolution(in_1x1: bool) -> None:
    resnet = build_backbone(config(name="resnet50", width=0.125, stride_in_1x1=in_1x1))
    first = resnet.layer2[0]
    assert (first.conv1.stride, first.conv2.stride) == (((2, 2), (1, 1)) if in_1x1 else ((1, 1), (2, 2)))
    assert resnet(torch.zeros(1, 3, 64, 64))[2].shape[-2:] == (8, 8)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_pyramid_levels_and_strides(name: str) -> None:
    pyramid = BackboneFPN(config(name=name, width=0.125), 16)(torch.zeros(2, 3, 96, 160))
    assert {level: tuple(x.shape) for level, x in pyramid.items()} == {
        2: (2, 16, 24, 40),
        3: (2, 16, 12, 20),
        4: (2, 16, 6, 10),
        5: (2, 16, 3, 5),
        6: (2, 16, 2, 3),
    }
    assert torch.equal(pyramid[6], pyramid[5][:, :, ::2, ::2])


def test_the_allowed_names_are_the_registry_s() -> None:
    with pytest.raises(ValidationError) as caught:
        config(name="resnet19")
    expected = "resnet18, resnet34, resnet50, resnet101, efficientnet_lite0, or timm/NAME: a network of timm"
    assert expected in str(caught.value)
    assert all(config(name=name).name == name for name in BACKBONES)
