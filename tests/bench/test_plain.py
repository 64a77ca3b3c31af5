"""The benches' baselines compute what our code computes, so that their times may be compared."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bench import refine as bench_refine
from bench.plain_network import unfolded
from bench.plain_refine import plain_box, plain_refine
from bench.plain_step import plain_loss
from bench.train_step import WAYS, Trainer, drawn, network
from models.backbones import conv_norm
from models.refiner.crops import crop_boxes, refine
from models.refiner.network import MaskRefineNet
from models.solov2.losses import solov2_loss
from models.solov2.targets import assign_targets

CPU = torch.device("cpu")
DEMO = SimpleNamespace(recipe="demo")


@pytest.mark.parametrize("seed", [0, 1])
def test_the_plain_loss_is_ours(seed: int) -> None:
    model, config, _ = network(DEMO, CPU)
    batch = drawn(2, 96, 5, CPU, seed)
    outputs = model(batch.images)
    weights = [torch.ones(len(masks)) for masks in batch.masks]
    targets = assign_targets(batch.masks, batch.labels, weights, (96, 96), config)
    expected = plain_loss(outputs, batch.masks, batch.labels, config)
    torch.testing.assert_close(solov2_loss(outputs, targets, config)["loss"], expected, rtol=1e-4, atol=1e-5)


def test_all_ways_of_a_step_learn_alike() -> None:
    model, config, training = network(DEMO, CPU)
    batch = drawn(2, 96, 4, CPU, 0)
    losses: dict[str, list[float]] = {}
    for name in ("plain", "ours", "+ fused"):
        trainer = Trainer(model, config, training, WAYS[name])
        losses[name] = [float(trainer.step(batch, number)) for number in range(3)]
    assert losses["ours"] == pytest.approx(losses["plain"], rel=1e-3)
    assert losses["+ fused"] == pytest.approx(losses["plain"], rel=0.03)


def test_what_is_drawn_has_no_pixel_twice() -> None:
    batch = drawn(2, 64, 6, CPU, 3)
    for masks, labels in zip(batch.masks, batch.labels, strict=True):
        assert len(masks) == len(labels)
        assert masks.flatten(1).any(1).all()
        assert masks.sum(0).max() == 1


def test_plain_boxes_are_ours() -> None:
    image, masks, points = bench_refine.drawn((120, 200), 6, torch.Generator().manual_seed(0))
    points[0] = torch.tensor([199.5, 3.0])  # outside its mask
    assert image.shape == (3, 120, 200)
    ours = crop_boxes(masks, points, 1.7).tolist()
    assert [list(plain_box(mask, point, 1.7)) for mask, point in zip(masks, points, strict=True)] == ours


def test_refined_one_by_one_they_are_ours() -> None:
    config = bench_refine.net_config("default", 64).model_copy(update={"infer_precision": "fp32"})
    torch.manual_seed(0)
    model = MaskRefineNet(config).eval()
    nn.init.normal_(model.head.weight)
    image, masks, points = bench_refine.drawn((120, 200), 4, torch.Generator().manual_seed(0))
    # Smooth, since the two ways average fine grain differently where they shrink it.
    image = nn.functional.avg_pool2d(image.float(), 9, 1, 4).to(torch.uint8)
    plain = plain_refine(model, image, masks, points, enlarge=1.5, mask_threshold=0.5)
    ours = refine(model, image, masks, points, config, 4, enlarge=1.5, mask_threshold=0.5, rounds=1)
    assert bench_refine.mean_iou(plain, ours.masks) > 0.95
    assert bench_refine.mean_iou(plain, masks) < 0.95  # the network said something


def test_unfolded_is_for_its_block_alone() -> None:
    norm = nn.BatchNorm2d(3).eval()
    with unfolded():
        assert not conv_norm.is_fixed(norm)
    assert conv_norm.is_fixed(norm)
