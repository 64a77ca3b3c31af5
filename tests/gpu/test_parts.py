"""Each part of the method on the device against the CPU in float64, within the bounds that are given."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.answers import answer, scatter
from bench.prompting import DEFAULT, PAPER, student_config
from bench.train_step import drawn
from data.masks import rle
from models.config import InferenceConfig, RefineNetConfig, SOLOv2Config
from models.inference.coarse_masks import rough_masks
from models.inference.detect import predict
from models.masks.resize import Sizes
from models.refiner.crops import refine
from models.refiner.network import MaskRefineNet
from models.solov2.losses import solov2_loss
from models.solov2.network import RawOutputs, SOLOv2
from models.solov2.targets import Targets, assign_targets
from tests.models.conftest import BACKBONE, REFINENET, SOLOV2

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("exact_float32")]

CLASSES = 3
CONFIG = SOLOv2Config.model_validate(SOLOV2)
SIZES = Sizes((256, 352), (250, 340), (375, 510))


def moved(value: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """Tensors of a tuple or list on a device, those of floating point in `dtype`."""
    if isinstance(value, Tensor):
        return value.to(device, dtype if value.is_floating_point() else None)
    if isinstance(value, list):
        return [moved(one, device, dtype) for one in value]
    if isinstance(value, RawOutputs):
        return RawOutputs(*(moved(one, device, dtype) for one in value[:3]), value.strides)
    return value


def outputs_of(model: SOLOv2, images: Tensor) -> list[Tensor]:
    found = model(images)
    return [*found.category_logits, *found.kernels, found.mask_features]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_lite0"])
@pytest.mark.parametrize("norm", ["group_norm", "frozen_bn"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_network(device: torch.device, name: str, norm: str, channels_last: bool) -> None:
    if name == "efficientnet_lite0" and norm == "frozen_bn":
        pytest.skip("random weights with frozen norms overflow")
    width = 1.0 if name == "efficientnet_lite0" else 0.25
    backbone = {**BACKBONE, "name": name, "norm": norm, "width": width, "norm_groups": 4 if width < 1 else 8}
    config = SOLOv2Config.model_validate({**SOLOV2, "backbone": backbone})
    torch.manual_seed(0)
    model = SOLOv2(config, CLASSES).eval()
    images = torch.randint(0, 256, (2, 3, 128, 192), dtype=torch.uint8)
    with torch.no_grad():
        expected = outputs_of(copy.deepcopy(model).double(), images)
        placed = model.to(device)
        if channels_last:
            placed = placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = outputs_of(placed, images.to(device))
    for one, other in zip(found, expected, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(one.cpu().double(), other, rtol=0, atol=2e-4 * scale)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_network_in_half_precision(device: torch.device, dtype: torch.dtype, bound: float) -> None:
    """Of the outputs' scale."""
    torch.manual_seed(0)
    model = SOLOv2(CONFIG, CLASSES).eval()
    images = torch.randint(0, 256, (2, 3, 128, 192), dtype=torch.uint8)
    with torch.no_grad():
        expected = outputs_of(copy.deepcopy(model).double(), images)
        with torch.autocast(device.type, dtype):
            found = outputs_of(model.to(device), images.to(device))
    for one, other in zip(found, expected, strict=True):
        error = (one.cpu().double() - other).abs().mean() / other.abs().mean()
        assert float(error) < bound


def batch_of(device: torch.device, seed: int = 0) -> tuple[list[Tensor], list[Tensor], Tensor]:
    drawings = drawn(2, 128, 5, torch.device("cpu"), seed)
    return (
        [masks.to(device) for masks in drawings.masks],
        [labels.to(device) for labels in drawings.labels],
        drawings.images.to(device),
    )


def targets_on(device: torch.device, seed: int) -> Targets:
    masks, labels, _ = batch_of(device, seed)
    weights = [torch.linspace(0.2, 1, len(one), device=device) for one in labels]
    return assign_targets(masks, labels, weights, (128, 128), CONFIG)


@pytest.mark.parametrize("seed", range(5))
def test_targets(device: torch.device, seed: int) -> None:
    found, expected = targets_on(device, seed), targets_on(torch.device("cpu"), seed)
    for name in ("level", "image", "cell", "instance", "skipped_negatives"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name
    for one, other in zip(found.categories, expected.categories, strict=True):
        assert torch.equal(one.cpu(), other)
    torch.testing.assert_close(found.masks.cpu(), expected.masks)


def test_losses_and_gradients(device: torch.device) -> None:
    torch.manual_seed(0)
    model = SOLOv2(CONFIG, CLASSES).train()
    _, _, images = batch_of(torch.device("cpu"))

    def gradients(network: SOLOv2, where: torch.device) -> dict[str, Tensor]:
        network.zero_grad()
        losses = solov2_loss(network(images.to(where)), targets_on(where, 0), CONFIG)
        losses["loss"].backward()
        found = {
            name: one.grad.cpu().double() for name, one in network.named_parameters() if one.grad is not None
        }
        return found | {name: one.detach().cpu().double() for name, one in losses.items()}

    expected = gradients(copy.deepcopy(model).double(), torch.device("cpu"))
    found = gradients(model.to(device), device)
    assert found.keys() == expected.keys()
    for name, one in found.items():
        scale = float(expected[name].abs().max()) + 1e-6
        torch.testing.assert_close(
            one, expected[name], rtol=0, atol=2e-3 * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


def large_answers(seed: int) -> tuple[RawOutputs, Tensor, Tensor]:
    config = student_config()
    objects = scatter(40, (12.0, 90.0), SIZES.content, CLASSES, torch.Generator().manual_seed(seed))
    return answer(objects, SIZES.input, config, CLASSES, seed=seed)


@pytest.mark.parametrize("rule", [DEFAULT, PAPER], ids=["default", "paper"])
@pytest.mark.parametrize("exclusive", ["same_class", "all", "none"])
def test_masks_at_clicks(device: torch.device, rule: Any, exclusive: str) -> None:
    """Prompting, thresholds, masks at the image's size and their overlaps: at most 1 pixel in 10,000 differs."""
    rule = rule.model_copy(update={"exclusive": exclusive})
    outputs, xy, labels = large_answers(1)
    scale = xy.new_tensor([SIZES.original[1] / SIZES.content[1], SIZES.original[0] / SIZES.content[0]])
    with torch.inference_mode():
        expected = rough_masks(
            moved(outputs, torch.device("cpu"), torch.float64), 0, xy * scale, labels, SIZES, rule
        )
        found = rough_masks(
            moved(outputs, device), 0, (xy * scale).to(device), labels.to(device), SIZES, rule
        )
    assert torch.equal(found.drawn.cpu(), expected.drawn)
    differing = (found.masks.cpu() ^ expected.masks).sum()
    assert int(differing) <= 1e-4 * int(expected.masks.sum())
    assert int(expected.masks.sum()) > 10_000
    assert rle.encode_many(found.masks, found.boxes_xyxy) == rle.encode_many(found.masks.cpu())


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_detections(device: torch.device, kernel: Any) -> None:
    config = InferenceConfig(
        score_threshold=0.1, min_area=0.0, nms_pre=500, nms_kernel=kernel, nms_sigma=2.0, nms_threshold=0.05,
        max_detections=100, mask_threshold=0.5,
    )  # fmt: skip
    outputs, _, _ = large_answers(2)
    with torch.inference_mode():
        expected = predict(moved(outputs, torch.device("cpu"), torch.float64), 0, config, SIZES)
        found = predict(moved(outputs, device), 0, config, SIZES)
    assert len(found.scores) == len(expected.scores) > 10
    torch.testing.assert_close(found.scores.cpu().double(), expected.scores.double(), atol=1e-4, rtol=0)
    differing = (found.masks.cpu() ^ expected.masks).sum()
    assert int(differing) <= 2e-4 * int(expected.masks.sum())


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.999), ("bf16", 0.95)])
def test_crops_and_refinement(device: torch.device, precision: Any, bound: float) -> None:
    """Mean IoU with the CPU's masks of float32."""
    config = RefineNetConfig.model_validate({**REFINENET, "infer_precision": precision})
    torch.manual_seed(0)
    model = MaskRefineNet(config).eval().requires_grad_(False)
    image = torch.randint(0, 256, (3, 120, 160), dtype=torch.uint8)
    y, x = torch.arange(120)[:, None] + 0.5, torch.arange(160) + 0.5
    points = torch.tensor([[40.0, 40.0], [100.0, 60.0], [120.0, 100.0], [20.0, 90.0]])
    masks = torch.stack([((x - a) / 18).square() + ((y - b) / 12).square() <= 1 for a, b in points.tolist()])

    def refined(network: MaskRefineNet, where: torch.device, used: RefineNetConfig) -> Tensor:
        return refine(
            network, image.to(where), masks.to(where), points.to(where), used, 3, enlarge=2.0, mask_threshold=0.5,
            rounds=1,
        ).masks.cpu()  # fmt: skip

    plain = config.model_copy(update={"infer_precision": "fp32"})
    expected = refined(model, torch.device("cpu"), plain)
    found = refined(model.to(device), device, config)
    overlap, union = (found & expected).flatten(1).sum(1), (found | expected).flatten(1).sum(1)
    assert int(union.min()) > 0
    assert float((overlap / union).mean()) > bound


def test_run_length_codes(device: torch.device) -> None:
    rng = torch.Generator().manual_seed(3)
    masks = torch.rand(20, 60, 80, generator=rng) > 0.7
    assert rle.encode_many(masks.to(device)) == [rle.encode(mask) for mask in masks.numpy()]
