"""Graphs run by onnxruntime against torch: the same instances, whatever the size, batch and tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from data.images.resize import resize
from models.config import InferenceConfig, SOLOv2Config, TileConfig
from models.export.graph import OUTPUTS, instance_graph, raw_graph
from models.export.image import InputRule, lengths_of, planes
from models.export.ops import Ops, Value
from models.inference.detect import Predictions
from models.inference.tiles import forward_tiled, predict
from models.solov2.network import SOLOv2
from tasks.common.config import InputConfig
from tasks.inference.batches import prepare, stack

RULES = InferenceConfig(
    score_threshold=0.2, min_area=1.0, nms_pre=60, nms_kernel="gaussian", nms_sigma=2.0, nms_threshold=0.05,
    max_detections=30, mask_threshold=0.5,
)  # fmt: skip
PLACED: dict[str, Any] = {"grids": [8, 4, 2], "grid_reference": 64, "mask_stride": 2}
TILE = TileConfig(side=64, overlap=32)
Make = Callable[..., SOLOv2Config]


def network_of(config: SOLOv2Config) -> SOLOv2:
    """Random weights, scaled so that there are masks of all shapes and scores."""
    torch.manual_seed(3)
    network = SOLOv2(config, 3).eval().requires_grad_(False)
    for predictor, scale in (
        (network.instance_head.kernel_predictor, 40),
        (network.instance_head.category_predictor, 30),
    ):
        predictor.weight.mul_(scale)
    return network


def session_of(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    data = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"images": pixels}), strict=True))


@torch.inference_mode()
def by_torch(network: SOLOv2, pixels: np.ndarray, rule: InputRule, rules: InferenceConfig) -> Predictions:
    size = InputConfig(**rule._asdict())
    batch = stack([0], [prepare(pixels, size)])
    outputs = forward_tiled(network, batch.images, batch.content_sizes, size.tile)
    return predict(outputs, 0, rules, batch.sizes(0))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth blots: noise alone would give masks of noise."""
    small = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(seed)) * 255
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 255)
    return large[0].permute(1, 2, 0).byte().numpy()


def assert_same(expected: Predictions, found: dict[str, np.ndarray], n: int) -> None:
    count = len(expected.scores)
    order = np.argsort(-found["scores"][n], kind="stable")[:count]
    assert (found["scores"][n][count:] == 0).all() and not found["masks"][n][count:].any()
    np.testing.assert_allclose(found["scores"][n][order], expected.scores, atol=1e-4)
    assert found["labels"][n][order].tolist() == expected.labels.tolist()
    differ = (found["masks"][n][order] != expected.masks.numpy()).sum((1, 2))
    assert differ.max(initial=0) <= 2
    assert found["valid"][n].sum() == found["masks"][n].any((1, 2)).sum()
    for mask, box in zip(found["masks"][n], found["boxes_xyxy"][n], strict=True):
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if mask.any() else [0] * 4
        assert box.tolist() == tight


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({}, InputRule(64, 128, True, None)),
        ({"bgr": True, **PLACED}, InputRule(96, 160, False, None)),
        (PLACED, InputRule(1024, 1400, False, TILE)),
        ({**PLACED, "mask_stride": 4}, InputRule(80, 130, True, TILE)),
    ],
)
def test_instances_are_those_of_torch(solov2_config: Make, changes: dict[str, Any], rule: InputRule) -> None:
    network = network_of(solov2_config(**changes))
    session = session_of(instance_graph(network, rule, RULES, 500, 18))
    seen = 0
    for height, width in [(64, 64), (50, 71), (131, 97), (40, 200)]:
        pixels = [picture(height, width, seed) for seed in (1, 2)]
        expected = [by_torch(network, one, rule, RULES) for one in pixels]
        together = run(session, np.stack(pixels))
        assert together["masks"].shape[1] == max(len(one.scores) for one in expected)
        for n, one in enumerate(pixels):
            assert_same(expected[n], together, n)
            assert_same(expected[n], run(session, one[None]), 0)
            seen += len(expected[n].scores)
        assert (together["left_out"] == 0).all()
    assert seen > 30


def test_other_rules(solov2_config: Make) -> None:
    """Few candidates, few detections, the linear kernel, a least area."""
    network, rule = network_of(solov2_config()), InputRule(64, 128, True, None)
    changes = {
        "nms_pre": 9,
        "max_detections": 5,
        "nms_kernel": "linear",
        "min_area": 7.0,
        "mask_threshold": 0.35,
    }
    rules = RULES.model_copy(update=changes)
    session = session_of(instance_graph(network, rule, rules, 500, 20))
    expected = by_torch(network, picture(64, 80), rule, rules)
    assert len(expected.scores) == 5
    assert_same(expected, run(session, picture(64, 80)[None]), 0)


@pytest.mark.parametrize("tile", [None, TILE])
def test_an_image_without_objects(solov2_config: Make, tile: TileConfig | None) -> None:
    network = network_of(solov2_config(**PLACED))
    rules = RULES.model_copy(update={"score_threshold": 1.0})
    session = session_of(instance_graph(network, InputRule(64, 128, True, tile), rules, 500, 18))
    found = run(session, picture(90, 70)[None])
    assert found["masks"].shape == (1, 0, 90, 70)
    assert found["boxes_xyxy"].shape == (1, 0, 4) and found["scores"].shape == found["valid"].shape == (1, 0)


def test_cells_without_room_are_counted(solov2_config: Make) -> None:
    network, rule = network_of(solov2_config()), InputRule(64, 128, True, None)
    pixels = picture(64, 80)
    session = session_of(instance_graph(network, rule, RULES, 500, 18))
    assert run(session, pixels[None])["left_out"] == [0]
    few = session_of(instance_graph(network, rule, RULES, 10, 18))
    raw = network(stack([0], [prepare(pixels, InputConfig(**rule._asdict()))]).images, [(64, 80)])
    above = 0
    for logits in raw.category_logits:
        chance = logits[0].sigmoid()
        before = torch.nn.functional.pad(chance, (1, 0, 1, 0))
        most = torch.stack([before[:, 1:, :-1], before[:, :-1, 1:], before[:, :-1, :-1], chance]).amax(0)
        above += int(((chance == most) & (chance > RULES.score_threshold)).sum())
    assert run(few, pixels[None])["left_out"] == [above - 10]


def test_images_of_another_type_are_refused(solov2_config: Make) -> None:
    network = network_of(solov2_config())
    session = session_of(instance_graph(network, InputRule(64, 128, True, None), RULES, 500, 18))
    with pytest.raises(Exception, match=r"float.*expected.*uint8"):
        run(session, picture(64, 64)[None].astype(np.float32))


@pytest.mark.parametrize(
    ("size", "rule"),
    [
        ((333, 500), InputRule(96, 150, True, None)),
        ((40, 61), InputRule(96, 1000, True, None)),
        ((1000, 77), InputRule(64, 640, True, None)),
        ((96, 127), InputRule(96, 1000, False, None)),
    ],
)
def test_pixels_are_those_of_our_resizing(
    solov2_config: Make, size: tuple[int, int], rule: InputRule
) -> None:
    config = solov2_config(pixel_mean=[0.0, 0.0, 0.0], pixel_std=[1.0, 1.0, 1.0])
    op = Ops("x")
    images = Value(
        name="images", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape([None, None, None, 3])
    )
    x = planes(op, images, *lengths_of(op, images, rule), config)
    x.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([images], [x], nodes=op.nodes, name="planes", opset_imports={"": 18})
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = session_of(ir.Model(graph, ir_version=10)).run(None, {"images": pixels[None]})[0][0]
    expected = prepare(pixels, InputConfig(**rule._asdict())).resized
    assert torch.equal(expected, resize(torch.from_numpy(pixels).permute(2, 0, 1), tuple(expected.shape[1:])))
    h, w = expected.shape[1:]
    np.testing.assert_array_equal(found[:, :h, :w], expected.numpy())
    assert (
        found.shape[1] % 32 == found.shape[2] % 32 == 0
        and not found[:, h:].any()
        and not found[:, :, w:].any()
    )


def test_the_network_alone(solov2_config: Make) -> None:
    network = network_of(solov2_config(bgr=True, **PLACED))
    session = session_of(raw_graph(network, InputRule(64, 128, True, None), 18))
    images = torch.rand(2, 3, 96, 64) * 255
    expected = network(images)
    names = [one.name for one in session.get_outputs()]
    assert names[0] == "category_logits_0" and names[-1] == "mask_features"
    for one, other in zip(expected.tensors, session.run(None, {"images": images.numpy()}), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-3)
    tiled = session_of(raw_graph(network, InputRule(64, 128, True, TILE), 18))
    origins = torch.tensor([[0.0, 32.0], [64.0, 0.0]])
    expected = network(images[:, :, :64], None, origins)
    given = {"images": images[:, :, :64].numpy(), "origins": origins.numpy()}
    for one, other in zip(expected.tensors, tiled.run(None, given), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-3)
