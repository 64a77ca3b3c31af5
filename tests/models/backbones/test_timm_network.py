"""Networks of timm as backbones: real ones, with random weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from models.backbones.base import BackboneError
from models.backbones.build import build_backbone, weights_file
from models.backbones.config import BackboneConfig
from models.backbones.fpn import BackboneFPN
from models.backbones.simple_pyramid import SimplePyramid
from models.backbones.timm_network import TimmBackbone, hub_file, pixel_statistics, plan
from models.checkpoint import FORMAT, build_model, save_checkpoint
from models.config import RefineNetConfig, SOLOv2Config
from models.refiner.network import MaskRefineNet
from models.solov2.losses import solov2_loss
from models.solov2.network import SOLOv2
from models.solov2.targets import assign_targets

timm = pytest.importorskip("timm")

CONVNEXT, VIT, RESNET = "timm/convnext_atto", "timm/vit_small_patch14_dinov2.lvd142m", "timm/resnet18"
NAMES = [CONVNEXT, VIT, RESNET]


def config(**changes: object) -> BackboneConfig:
    values = {
        "name": CONVNEXT, "width": 1.0, "norm": "frozen_bn", "norm_groups": 4, "frozen_stages": 0,
        "stride_in_1x1": False, "weights": None,
    }  # fmt: skip
    return BackboneConfig.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def networks() -> dict[str, TimmBackbone]:
    """In eval mode; not to be changed."""
    torch.manual_seed(0)
    made = {name: build_backbone(config(name=name)).eval() for name in NAMES}
    return {name: one for name, one in made.items() if isinstance(one, TimmBackbone)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(96, 160), (32, 32)])
@torch.no_grad()
def test_level_l_has_a_2_to_the_l_th_of_the_sides(
    networks: dict[str, TimmBackbone], name: str, size: tuple[int, int]
) -> None:
    network = networks[name]
    maps = network(torch.randn(2, 3, *size))
    expected = [(c, size[0] // 2**i, size[1] // 2**i) for i, c in enumerate(network.channels, start=1)]
    assert [tuple(x.shape[1:]) for x in maps] == expected
    assert all(x.isfinite().all() for x in maps)


def test_the_feature_pyramid_takes_them() -> None:
    pyramid = BackboneFPN(config(), 16)(torch.zeros(1, 3, 64, 96))
    assert {level: tuple(x.shape[1:]) for level, x in pyramid.items()} == {
        2: (16, 16, 24), 3: (16, 8, 12), 4: (16, 4, 6), 5: (16, 2, 3), 6: (16, 1, 2),
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_an_image_in_another_batch_gives_the_same(networks: dict[str, TimmBackbone], name: str) -> None:
    images = torch.randn(3, 3, 64, 96)
    whole, alone = networks[name](images), networks[name](images[1:2])
    for a, b in zip(whole, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", [(0, 0), (3, 1), (5, 9)])
@torch.no_grad()
def test_a_change_shows_at_its_own_place(networks: dict[str, TimmBackbone], place: tuple[int, int]) -> None:
    """Most of all at the place of the map of stride 16 whose pixels changed, though patches are 14 pixels."""
    images = torch.randn(1, 3, 96, 160)
    changed = images.clone()
    row, column = place
    changed[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 3
    before, after = (networks[VIT](x)[3] for x in (images, changed))
    difference = (after - before).norm(dim=1)[0]
    assert divmod(int(difference.argmax()), 10) == place


def test_the_simple_pyramid_is_of_the_level_it_is_given() -> None:
    for level in (3, 4, 5):
        pyramid = SimplePyramid(32, level)
        maps = pyramid(torch.randn(1, 32, 2 ** (7 - level), 2 ** (8 - level)))
        for target, x in maps.items():
            assert tuple(x.shape[1:]) == (pyramid.channels[target], 2 ** (7 - target), 2 ** (8 - target))
        assert torch.equal(pyramid(x := torch.randn(1, 32, 8, 8))[level], x)
    assert pyramid.channels == {2: 4, 3: 8, 4: 16, 5: 32}


def small(solov2_config: Callable[..., SOLOv2Config], name: str, **backbone: Any) -> SOLOv2:
    torch.manual_seed(0)
    return SOLOv2(solov2_config(backbone={"name": name, "width": 1.0, "norm": "frozen_bn", **backbone}), 2)


def loss_of(model: SOLOv2, images: Tensor, masks: Tensor) -> Tensor:
    size = (images.shape[2], images.shape[3])
    targets = assign_targets([masks], [torch.tensor([0, 1])], [torch.ones(2)], size, model.config)
    return solov2_loss(model(images), targets, model.config)["loss"]


@pytest.mark.parametrize(("name", "rate"), [(CONVNEXT, 1e-3), (VIT, 1e-4), (RESNET, 1e-3)])
def test_it_learns_with_every_weight_and_is_the_same_from_its_checkpoint(
    solov2_config: Callable[..., SOLOv2Config],
    rectangles: Callable[..., Tensor],
    tmp_path: Path,
    name: str,
    rate: float,
) -> None:
    model = small(solov2_config, name).train()
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    masks = rectangles((64, 96), (4, 4, 24, 24), (40, 20, 40, 30))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(5):
        loss = loss_of(model, images, masks)
        optimizer.zero_grad()
        loss.backward()
        # Several processes wait for the gradient of each.
        assert [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    rows = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    meta = {
        "format": FORMAT,
        "kind": "solov2",
        "config": model.config.model_dump(mode="json"),
        "categories": rows,
    }
    save_checkpoint(tmp_path / "model", model.state_dict(), meta)
    read = build_model(tmp_path / "model")
    with torch.no_grad():
        expected, found = model.eval()(images), read(images)
    for a, b in zip(expected.tensors, found.tensors, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_padding_has_the_mean_colour_whatever_lies_in_it(
    solov2_config: Callable[..., SOLOv2Config], name: str
) -> None:
    model = small(solov2_config, name).eval()
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    other = images.clone()
    other[:, :, 40:], other[:, :, :, 70:] = 0, 255
    for a, b in zip(model(images, [(40, 70)]).tensors, model(other, [(40, 70)]).tensors, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_a_refiner_takes_it_too(refinenet_config: Callable[..., RefineNetConfig], name: str) -> None:
    network = MaskRefineNet(refinenet_config(backbone={"name": name, "width": 1.0, "norm": "batch_norm"}))
    assert network(torch.randn(2, 5, 64, 64)).shape == (2, 2, 64, 64)


@pytest.mark.parametrize(
    ("name", "stages", "first"),
    [
        (RESNET, 0, "network.conv1.weight"),
        (RESNET, 1, "network.layer1.0.conv1.weight"),
        (RESNET, 2, "network.layer2.0.conv1.weight"),
        (RESNET, 5, None),
        (CONVNEXT, 0, "network.stem.0.weight"),
        (CONVNEXT, 2, "network.stages.1.downsample.0.weight"),
        (CONVNEXT, 4, "network.stages.3.downsample.0.weight"),
        (CONVNEXT, 5, None),
        (VIT, 0, "network.cls_token"),
        (VIT, 5, "pyramid.branches.2.0.weight"),
        ("timm/mobilenetv3_small_050", 1, "network.blocks.0.0.conv_dw.weight"),
    ],
)
def test_frozen_stages(name: str, stages: int, first: str | None) -> None:
    network = build_backbone(config(name=name, frozen_stages=stages)).train()
    learning = [key for key, p in network.named_parameters() if p.requires_grad]
    assert (learning or [None])[0] == first
    parts = [*network.frozen_parts()]
    assert all(not one.training for part in parts for one in part.modules())
    assert network.network.training is (stages != 5)


@pytest.mark.parametrize(
    ("name", "unused"),
    [
        (RESNET, {"fc.weight", "fc.bias"}),
        ("timm/swin_tiny_patch4_window7_224", {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"}),
        (VIT, set()),  # its one map is passed through the last norm
    ],
)
def test_what_no_map_needs_is_left_out(name: str, unused: set[str]) -> None:
    """A weight without a gradient would end a training in several processes."""
    assert plan(name, 3).unused == unused


def test_position_embeddings_are_not_trained(networks: dict[str, TimmBackbone]) -> None:
    learning = {key: p.requires_grad for key, p in networks[VIT].named_parameters()}
    assert [key for key, learns in learning.items() if not learns] == ["network.pos_embed"]


@pytest.mark.parametrize(
    ("name", "stages", "able"),
    [(CONVNEXT, 1, "[0, 2, 3, 4, 5]"), (VIT, 4, "[0, 5]"), (VIT, 1, "[0, 5]")],
)
def test_stages_that_it_does_not_have(name: str, stages: int, able: str) -> None:
    with pytest.raises(BackboneError) as error:
        build_backbone(config(name=name, frozen_stages=stages))
    assert str(error.value) == f"frozen_stages: found {stages}, expected one of {able} for this network"


def norms(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Copies of all running statistics."""
    return [
        (one.running_mean.clone(), one.running_var.clone())
        for one in network.modules() if isinstance(getattr(one, "running_mean", None), Tensor)
    ]  # fmt: skip


@pytest.mark.parametrize("name", [RESNET, "timm/mobilenetv3_small_050"])
def test_frozen_batch_norms_keep_statistics_and_scales(name: str) -> None:
    network = build_backbone(config(name=name)).train()
    before = norms(network)
    x = network(torch.randn(4, 3, 64, 64) * 5 + 3)
    sum(one.mean() for one in x).backward()
    assert len(before) > 10
    for (a, b), (c, d) in zip(before, norms(network), strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)
    # A scale is no parameter any more: nothing one-dimensional learns, but biases of convolutions.
    assert not [key for key, _ in network.named_parameters() if "bn" in key]


def test_batch_norms_that_train_take_statistics() -> None:
    network = build_backbone(config(name=RESNET, norm="batch_norm")).train()
    before = norms(network)
    network(torch.randn(4, 3, 64, 64) * 5 + 3)
    assert all(not torch.equal(a, c) for (a, _), (c, _) in zip(before, norms(network), strict=True))


def published(
    name: str, path: Path, change: Callable[[dict[str, Tensor]], Any] = lambda state: None
) -> dict[str, Tensor]:
    """A file as the hub has it: the whole network's weights, with the classifier's."""
    torch.manual_seed(1)
    state = {
        key: value.clone()
        for key, value in timm.create_model(name.removeprefix("timm/")).state_dict().items()
    }
    change(state)
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return state


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_file_of_the_whole_network_fits(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    state = published(name, path)
    network = build_backbone(config(name=name, weights=str(path)))
    own = network.network.state_dict()
    assert len(own) > 20
    assert all(torch.equal(value, state[key]) for key, value in own.items() if "num_batches" not in key)


def test_further_input_channels_leave_the_rgb_weights_as_they_are(tmp_path: Path) -> None:
    state = published(CONVNEXT, tmp_path / "w.pth")
    network = build_backbone(config(weights=str(tmp_path / "w.pth")), in_channels=5)
    assert torch.equal(network.network.stem[0].weight[:, :3], state["stem.0.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("stem.0.bias"), "stem.0.bias: missing"),
        (lambda s: s.update({"stem.0.bias": torch.zeros(7)}), r"stem.0.bias: found \[7\], expected \[40\]"),
        (lambda s: s.update({"mask_token": torch.zeros(7)}), "mask_token: not in this network"),
        (lambda s: s["stages.2.blocks.1.mlp.fc1.weight"].fill_(torch.nan), "mlp.fc1.weight: found nan"),
    ],
)
def test_faults_of_a_file(tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], said: str) -> None:
    published(CONVNEXT, tmp_path / "w.safetensors", change)
    with pytest.raises(ValueError, match=rf"(?s)do not fit timm/convnext_atto \(1 faults\).*{said}"):
        build_backbone(config(weights=str(tmp_path / "w.safetensors")))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    published(RESNET, tmp_path / "w.safetensors")
    with pytest.raises(
        ValueError, match=r"(?s)do not fit timm/convnext_atto.*layer1.0.conv1.weight: not in this"
    ):
        build_backbone(config(weights=str(tmp_path / "w.safetensors")))


def test_the_hubs_file_is_the_one_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert hub_file(VIT) == ("timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors")
    assert hub_file(CONVNEXT)[0] == "timm/convnext_atto.d2_in1k"
    folder = tmp_path / "models--timm--convnext_atto.d2_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    path = folder / "snapshots" / "abc" / "model.safetensors"
    path.parent.mkdir(parents=True)
    published(CONVNEXT, path)
    assert weights_file(CONVNEXT, "pretrained") == path
    build_backbone(config(weights="pretrained"))


def test_without_a_network_it_says_how_to_get_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda *_: "http://127.0.0.1:1/nothing")
    begin = time.monotonic()
    with pytest.raises(FileNotFoundError) as error:
        build_backbone(config(weights="pretrained"))
    assert time.monotonic() - begin < 10
    said = "`hf download timm/convnext_atto.d2_in1k model.safetensors --local-dir .`, and name that file in weights"
    assert said in str(error.value) and "can't be fetched from the hub" in str(error.value)


def test_a_network_without_published_weights() -> None:
    with pytest.raises(FileNotFoundError, match="weights pretrained of timm/regnetz_005: timm names none"):
        weights_file("timm/regnetz_005", "pretrained")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/convnext_ato", "name: timm .* has no network convnext_ato; did you mean timm/convnext_atto"),
        ("timm/resnet18.nope", "name: timm .*: Invalid pretrained tag .* It has resnet18.a1_in1k, "),
        ("timm/mixer_s16_224", "can't be a backbone for images of any size: Input height .96. doesn't match"),
        ("timm/levit_128", r"its maps have strides \[16, 32, 64\]; expected 4, 8, 16 and 32, or one"),
        ("timm/inception_v4", "level 1 of its maps has the shape"),
    ],
)
def test_names_that_are_no_backbone(name: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said):
        build_backbone(config(name=name))


def test_norms_that_it_does_not_have() -> None:
    with pytest.raises(
        BackboneError, match=r"norm: found batch_norm, expected frozen_bn for .*: it has BatchNormAct2d"
    ):
        build_backbone(config(name="timm/mobilenetv3_small_050", norm="batch_norm"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm": "group_norm"}, "norm: found group_norm, expected frozen_bn, or batch_norm"),
        ({"width": 0.5}, "width: found 0.5, expected 1.0 for timm/convnext_atto"),
        ({"width": (1.0, 0.5)}, "width: found .1.0, 0.5., expected 1.0 for timm/convnext_atto"),
        ({"stride_in_1x1": True}, "stride_in_1x1: found true"),
        ({"weights": "imagenet"}, "weights: found imagenet, expected pretrained for timm/convnext_atto"),
        (
            {"name": "resnet18", "weights": "pretrained"},
            "weights: found pretrained, expected imagenet for resnet18",
        ),
        ({"name": "timm/hf-hub:timm/resnet18"}, "expected resnet18, resnet34"),
        ({"name": "timm/../resnet18"}, "expected resnet18, resnet34"),
        ({"name": "timm/"}, "expected resnet18, resnet34"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**changes)


def test_pixels_of_the_published_weights() -> None:
    assert pixel_statistics(VIT) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    assert pixel_statistics("timm/vit_base_patch16_224.augreg_in21k") == ([127.5] * 3, [127.5] * 3)
