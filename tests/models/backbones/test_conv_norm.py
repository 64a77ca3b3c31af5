"""Folded norms say what convolution and norm say, one after the other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from models.backbones import conv_norm as folding
from models.backbones.build import build_backbone
from models.backbones.config import BackboneConfig
from models.backbones.conv_norm import conv_norm

BACKBONE: dict[str, Any] = {
    "name": "resnet18", "width": 0.125, "norm": "group_norm", "norm_groups": 4, "frozen_stages": 0,
    "stride_in_1x1": False, "weights": None,
}  # fmt: skip

BACKBONES: list[dict[str, Any]] = [
    {"name": "resnet18", "norm": "frozen_bn"},
    {"name": "resnet50", "norm": "frozen_bn", "frozen_stages": 2},
    {"name": "efficientnet_lite0", "norm": "frozen_bn", "width": 0.25},
    {"name": "resnet18", "norm": "batch_norm", "frozen_stages": 3},
    {"name": "efficientnet_lite0", "norm": "batch_norm", "frozen_stages": 2, "width": 0.25},
    {"name": "resnet18", "norm": "group_norm"},
]


def backbone(**changes: Any) -> nn.Module:
    """A small one whose norms have random statistics, scales and offsets."""
    network = build_backbone(BackboneConfig.model_validate({**BACKBONE, **changes}))
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2.0)
    return network


def run(network: nn.Module, images: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The maps, and the gradient of what learns."""
    maps = network(images)
    sum(x.square().mean() for x in maps).backward()
    return maps, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("changes", BACKBONES, ids=lambda c: "-".join(map(str, c.values())))
def test_folding_changes_neither_maps_nor_gradients(
    changes: dict[str, Any], training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    folded = backbone(**changes).double().train(training)  # few values a channel: float32 would blur it
    plain = copy.deepcopy(folded)
    images = torch.rand(2, 3, 32, 64, dtype=torch.double)
    maps, gradients = run(folded, images)
    monkeypatch.setattr(folding, "is_fixed", lambda _: False)
    expected, expected_gradients = run(plain, images)
    assert gradients.keys() == expected_gradients.keys() and gradients
    found = {**{f"map {i}": x for i, x in enumerate(maps)}, **gradients}
    true = {**{f"map {i}": x for i, x in enumerate(expected)}, **expected_gradients}
    for name, value in found.items():
        torch.testing.assert_close(value, true[name], msg=lambda text, name=name: f"{name}: {text}")


def test_a_convolution_s_own_bias_is_folded_too() -> None:
    conv, norm = nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1), FrozenBatchNorm2d(8)
    norm.running_mean.uniform_()
    norm.weight.uniform_()
    x = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(conv_norm(conv, norm, x), norm(conv(x)))


def test_a_norm_that_learns_from_its_batch_isn_t_folded() -> None:
    conv, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
    x = torch.rand(2, 3, 9, 9)
    found = conv_norm(conv, norm, x)
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    assert norm.num_batches_tracked == 1


def test_under_autocast_folded_maps_stay_in_low_precision() -> None:
    network = backbone(norm="frozen_bn")
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        maps = network(images)
    assert {x.dtype for x in maps} == {torch.bfloat16}
    with torch.no_grad():
        exact = network(images)
    for x, y in zip(maps, exact, strict=True):
        assert (x.float() - y).norm() < 0.03 * y.norm()


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d(8), nn.GroupNorm(2, 8)])
def test_under_autocast_a_kernel_a_channel_is_computed_in_float32(norm: nn.Module) -> None:
    conv, x = nn.Conv2d(8, 8, 3, groups=8), torch.rand(1, 8, 9, 9)
    exact = conv_norm(conv, norm, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(conv_norm(conv, norm, x), exact)
        assert conv_norm(conv, norm, x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_batch_norms_of_frozen_stages_take_no_statistics(name: str) -> None:
    network = backbone(name=name, norm="batch_norm", frozen_stages=2, width=0.25).train()
    before = copy.deepcopy(network.state_dict())
    network(torch.rand(2, 3, 32, 32))
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    frozen = {"conv1", "bn1", "layer1"} if name == "resnet18" else {"stem", "stages.0", "stages.1"}
    assert moved and not any(key.startswith(part + ".") for key in moved for part in frozen)
    assert network.training and network.eval().train().training
