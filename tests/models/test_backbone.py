from __future__ import annotations

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from models.backbone import ResNetFPN, build_resnet
from models.config import BackboneConfig

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


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
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
    ours = build_resnet(config(name=name, weights=str(path))).eval()
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
        build_resnet(config(width=0.5, weights=str(path)))
    with pytest.raises(ValueError, match="missing"):
        build_resnet(config(name="resnet34", weights=str(path)))


def test_further_input_channels_leave_the_rgb_weights_as_they_are(tmp_path) -> None:
    theirs = torchvision.models.resnet18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = build_resnet(config(weights=str(tmp_path / "w.pth"), norm="batch_norm"), in_channels=5)
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
    resnet = build_resnet(config(width=0.125, norm="group_norm", frozen_stages=stages))
    assert {name.split(".")[0] for name, p in resnet.named_parameters() if p.requires_grad} == learning


@pytest.mark.parametrize("in_1x1", [True, False])
def test_bottleneck_stride_sits_where_told(in_1x1: bool) -> None:
    resnet = build_resnet(config(name="resnet50", width=0.125, stride_in_1x1=in_1x1))
    first = resnet.layer2[0]
    assert (first.conv1.stride, first.conv2.stride) == (((2, 2), (1, 1)) if in_1x1 else ((1, 1), (2, 2)))
    assert resnet(torch.zeros(1, 3, 64, 64))[2].shape[-2:] == (8, 8)


def test_pyramid_levels_and_strides() -> None:
    pyramid = ResNetFPN(config(width=0.125), 16)(torch.zeros(2, 3, 96, 160))
    assert {level: tuple(x.shape) for level, x in pyramid.items()} == {
        2: (2, 16, 24, 40),
        3: (2, 16, 12, 20),
        4: (2, 16, 6, 10),
        5: (2, 16, 3, 5),
        6: (2, 16, 2, 3),
    }
    assert torch.equal(pyramid[6], pyramid[5][:, :, ::2, ::2])
