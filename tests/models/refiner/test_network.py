from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.refiner.network import MaskRefineNet, refine_loss, soft_dice, spare_channels


@pytest.mark.parametrize("channels", [1, 4])
def test_output_shape(refinenet_config, channels: int) -> None:
    model = MaskRefineNet(refinenet_config(heatmap_channels=channels))
    assert model(torch.zeros(2, 3 + channels + 1, 64, 64)).shape == (2, 2, 64, 64)


@pytest.mark.parametrize("shape", [(2, 4, 64, 64), (2, 5, 32, 64), (5, 64, 64)])
def test_other_shapes_are_refused(refinenet_config, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[M, 5, 64, 64\]"):
        MaskRefineNet(refinenet_config())(torch.zeros(shape))


@pytest.mark.parametrize("norm", ["group_norm", "frozen_bn"])
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_a_crop_gives_the_same_in_any_batch(refinenet_config, name: str, norm: str) -> None:
    model = MaskRefineNet(refinenet_config(backbone={"name": name, "norm": norm})).eval()
    x = torch.randn(3, 5, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-3, atol=1e-4)


def test_the_paper_s_size(refinenet_config) -> None:
    config = refinenet_config(
        backbone={"name": "resnet101", "width": 1.0, "norm": "batch_norm"},
        norm="batch_norm",
        aspp_channels=512,
        aspp_rates=[3, 6, 9],
        decoder_channels=[256, 128, 64, 64],
        crop_size=256,
        heatmap_channels=6,
    )
    with torch.device("meta"):
        model = MaskRefineNet(config)
    # What fixtures/reference/refine/keys_5.json counts for the reference network.
    assert sum(p.numel() for p in model.parameters()) == 76_876_290


def test_the_parts_after_a_frozen_encoder_have_a_norm_that_learns(refinenet_config) -> None:
    model = MaskRefineNet(refinenet_config(backbone={"norm": "frozen_bn"}, norm="group_norm"))
    kinds = {type(module).__name__ for part in (model.aspp, model.decoder) for module in part.modules()}
    assert "GroupNorm" in kinds
    assert "FrozenBatchNorm2d" not in kinds


def test_loss_is_its_weighted_parts() -> None:
    logits, truth = torch.randn(3, 2, 8, 8), torch.rand(3, 8, 8) > 0.5
    parts = refine_loss(logits, truth, 2.0, 0.5)
    assert parts["loss"].item() == pytest.approx((parts["loss_dice"] + parts["loss_cross_entropy"]).item())
    assert parts["loss_cross_entropy"].item() == pytest.approx(
        0.5 * F.cross_entropy(logits, truth.long()).item()
    )
    assert refine_loss(logits, truth, 1.0, 0.0)["loss"].item() == pytest.approx(parts["loss_dice"].item() / 2)


def test_dice_of_perfect_opposite_and_absent() -> None:
    truth = torch.zeros(1, 2, 4, 4)
    truth[:, 0] = 1
    assert soft_dice(truth, truth).tolist() == [pytest.approx([0.0, 0.0], abs=1e-6)]
    assert soft_dice(truth.flip(1), truth).tolist() == [pytest.approx([1.0, 1.0], abs=1e-5)]


def test_training_learns_to_fill_the_rough_mask(refinenet_config) -> None:
    torch.manual_seed(3)
    model = MaskRefineNet(refinenet_config(crop_size=32))
    x = torch.randn(6, 5, 32, 32)
    truth = torch.zeros(6, 32, 32, dtype=torch.bool)
    for k in range(6):
        truth[k, 4 : 20 + k, 4 : 24 - k] = True
    x[:, 4] = F.avg_pool2d(truth[:, None].float(), 9, 1, 4)[:, 0] > 0.8
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(60):
        loss = refine_loss(model(x), truth, 1.0, 1.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = model(x).argmax(1).bool()
    assert (found & truth).sum() / (found | truth).sum() > 0.85


@pytest.mark.parametrize(("channels", "classes", "spare"), [(1, 3, 0), (3, 3, 0), (4, 3, 1), (3, 0, 0)])
def test_the_reference_s_layout_has_a_spare_channel(
    refinenet_config, channels: int, classes: int, spare: int
) -> None:
    model = MaskRefineNet(refinenet_config(heatmap_channels=channels))
    model.categories = [{"id": i, "name": str(i)} for i in range(classes)]
    assert model.spare_channels == spare


@pytest.mark.parametrize("channels", [2, 5, 6])
def test_channels_that_suit_no_layout_are_refused(refinenet_config, channels: int) -> None:
    with pytest.raises(ValueError, match=rf"found {channels} with 3 classes, expected 1 .*, 3 .* or 4"):
        spare_channels(refinenet_config(heatmap_channels=channels), 3)
