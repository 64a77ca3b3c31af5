"""Masks at clicks as one traceable function, against the ones that are drawn click by click."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from models.config import PromptConfig, SOLOv2Config
from models.export.clicks import ClickMasks, Encoding, RefineRule
from models.export.prompting import ENCODING, click_graph
from models.inference.tiles import Tiled
from models.refiner.network import MaskRefineNet
from models.refiner.refine import refined_masks
from tasks.common.config import InputConfig
from tasks.inference.batches import prepare, stack
from tasks.labelling.proposer import draw
from tasks.labelling.solov2_proposer import SOLOv2Proposer
from tasks.labelling.types import ImageContext
from tests.models.export.test_graph import PLACED, TILE, network_of, picture, session_of

Make = Callable[..., SOLOv2Config]
RULES = PromptConfig(
    mask_threshold=0.5, kernel="blend", neighbourhood=1, class_power=0.5, click_power=1.0, small_area=200.0, faint=0.1,
    exclusive="same_class", mirror="none",
)  # fmt: skip


SMALL = InputConfig(short_side=64, max_side=128, enlarge=True, tile=None)


def encoding_of(context: ImageContext) -> Encoding:
    outputs, _ = context.encoding[0]
    raw, far = outputs.outputs if isinstance(outputs, Tiled) else outputs, float("inf")
    tiles, cores = [(0, 0)], [(-far, -far, far, far)]
    if isinstance(outputs, Tiled):
        tiles = [(one.x, one.y) for one in outputs.tiles[0]]
        cores = [
            (
                one.core_xyxy[0] - one.x,
                one.core_xyxy[1] - one.y,
                one.core_xyxy[2] - one.x,
                one.core_xyxy[3] - one.y,
            )
            for one in outputs.tiles[0]
        ]
    return Encoding(
        torch.cat([one.flatten(2) for one in raw.category_logits], 2),
        torch.cat([one.flatten(2) for one in raw.kernels], 2).transpose(1, 2),
        raw.mask_features,
        torch.tensor(tiles),
        torch.tensor(cores),
        torch.tensor(context.sizes.input),
        torch.tensor(context.sizes.content),
    )


def clicks(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners and borders of the image among them."""
    places = torch.rand(20, 2, generator=torch.Generator().manual_seed(5))
    places[:4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 1.0]])
    return places * torch.tensor([width, height]), torch.arange(20) % 3


@pytest.mark.parametrize(
    ("changes", "size", "rules"),
    [
        ({}, SMALL, {}),
        (PLACED, InputConfig(short_side=96, max_side=160, enlarge=False, tile=None), {"kernel": "best"}),
        (PLACED, InputConfig(short_side=1024, max_side=1400, enlarge=False, tile=TILE), {"neighbourhood": 2}),
        (PLACED, InputConfig(short_side=80, max_side=130, enlarge=True, tile=TILE), {"small_area": 0.0}),
    ],
)
@torch.inference_mode()
def test_masks_are_those_of_the_proposer(
    solov2_config: Make, changes: dict[str, Any], size: InputConfig, rules: dict[str, Any]
) -> None:
    network, prompt = network_of(solov2_config(**changes)), RULES.model_copy(update=rules)
    masks = ClickMasks(network.config, prompt, size.tile.side if size.tile else None, None, None)
    drawn, small = 0, 0
    for height, width in [(64, 64), (131, 97)]:
        pixels = picture(height, width)
        proposer = SOLOv2Proposer(network, prompt, size.tile, torch.device("cpu"))
        (context,) = proposer.encode(stack([0], [prepare(pixels, size)]))
        points, labels = clicks(height, width)
        found, scores = masks(torch.from_numpy(pixels)[None], *encoding_of(context), points, labels)
        for k in range(len(points)):
            expected = draw(proposer, context, points[k : k + 1], labels[k : k + 1], prompt)
            assert int((expected.rough.masks[0] != found[k]).sum()) <= 2
            assert float(scores[k]) == pytest.approx(float(expected.best.score[0]), abs=1e-5)
            drawn += bool(found[k].any())
            small += float(expected.best.cut[0]) != prompt.mask_threshold
    assert drawn > 10
    if changes == {}:
        assert small > 3


@torch.inference_mode()
def test_cells_whose_masks_are_faint_at_the_click_count_as_in_torch(solov2_config: Make) -> None:
    """At a click off all objects probabilities are below 1e-6, where onnxruntime's own sigmoid ends."""
    network = network_of(solov2_config())
    masks = ClickMasks(network.config, RULES, None, None, None)
    pixels = picture(64, 64)
    proposer = SOLOv2Proposer(network, RULES, None, torch.device("cpu"))
    (context,) = proposer.encode(stack([0], [prepare(pixels, SMALL)]))
    encoding = encoding_of(context)
    kernels, features = torch.zeros_like(encoding.kernels), torch.zeros_like(encoding.features)
    kernels[..., 0] = -14 - 4 * torch.rand(kernels.shape[:2], generator=torch.Generator().manual_seed(1))
    features[:, 0] = -1
    features[:, 0, :, : features.shape[3] // 2] = 1
    encoding = encoding._replace(kernels=kernels, features=features)
    points, labels = torch.rand(20, 2, generator=torch.Generator().manual_seed(2)) * 28, torch.arange(20) % 3
    graph = click_graph(masks, pixels[None], encoding, 3, 18)
    session = session_of(ir.from_proto(graph))
    given = dict(
        zip(
            ["images", *ENCODING, "points_xy", "labels"],
            (pixels[None], *encoding, points, labels),
            strict=True,
        )
    )
    found = session.run(None, {one.name: np.asarray(given[one.name]) for one in session.get_inputs()})
    expected = masks(torch.from_numpy(pixels)[None], *encoding, points, labels)
    assert expected[1].unique().numel() > 3 and expected[0].any()
    np.testing.assert_allclose(found[1], expected[1].numpy(), rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 4])
@torch.inference_mode()
def test_refined_masks_are_those_of_the_refiner(
    solov2_config: Make, refinenet_config: Any, channels: int
) -> None:
    """With a gate that keeps small masks rough, twice; with heatmaps by class."""
    network = network_of(solov2_config())
    torch.manual_seed(0)
    refiner = MaskRefineNet(refinenet_config(heatmap_channels=channels)).eval()
    refiner.categories = [{"id": n, "name": str(n)} for n in range(3)]
    refiner.head.weight.mul_(20)
    size = SMALL
    pixels = picture(90, 70)
    proposer = SOLOv2Proposer(network, RULES, None, torch.device("cpu"))
    (context,) = proposer.encode(stack([0], [prepare(pixels, size)]))
    points, labels = clicks(90, 70)
    given = (torch.from_numpy(pixels)[None], *encoding_of(context), points, labels)
    rough, _ = ClickMasks(network.config, RULES, None, None, None)(*given)
    end = float((rough.flatten(1).sum(1) * context.area_scale).median())
    rule = RefineRule((end,), (False, True), 1.5, 2)
    found, _ = ClickMasks(network.config, RULES, None, refiner, rule)(*given)
    changed = 0
    for k in range(len(points)):
        drawn = draw(proposer, context, points[k : k + 1], labels[k : k + 1], RULES)
        selected = drawn.rough.masks.flatten(1).sum(1) * context.area_scale >= end
        final = refined_masks(
            refiner, context.original, drawn.rough, points[k : k + 1], labels[k : k + 1], RULES, 4,
            enlarge=1.5, rounds=2, selected=selected,
        )  # fmt: skip
        assert int((final.masks[0] != found[k]).sum()) <= 3
        changed += bool((final.masks[0] != drawn.rough.masks[0]).any())
    assert 0 < changed < len(points)
