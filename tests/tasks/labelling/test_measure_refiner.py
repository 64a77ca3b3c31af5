from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle_tools
from torch import Tensor

from data.tables import Split
from models.checkpoint import build_model, load_teacher
from models.inference.coarse_masks import rough_masks
from models.masks.resize import Sizes
from models.refiner.network import MaskRefineNet
from models.solov2.network import SOLOv2
from tasks.common.config import Params
from tasks.inference.batches import load_batches
from tasks.labelling.gate import Measured
from tasks.labelling.measure_refiner import CLICKS, click_points, measure
from tasks.labelling.solov2_proposer import SOLOv2Proposer

CPU = torch.device("cpu")


@pytest.fixture
def parts(
    line: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> tuple[Params, Split, SOLOv2, MaskRefineNet]:
    folder, params = line
    monkeypatch.chdir(folder)
    workspace = Path("workspace")
    refiner = build_model(workspace / "refiner")
    assert isinstance(refiner, MaskRefineNet)
    strong = Split.open(workspace / "dataset" / "strong")
    return params, strong, load_teacher(workspace / "teacher", CPU), refiner


def proposer_of(params: Params, teacher: SOLOv2) -> SOLOv2Proposer:
    return SOLOv2Proposer(teacher, params.prompt, params.input.tile, CPU)


def as_rle(mask: Tensor) -> dict[str, object]:
    found: dict[str, object] = rle_tools.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return found


def test_rough_figures_are_those_of_the_coco_tools(
    parts: tuple[Params, Split, SOLOv2, MaskRefineNet],
) -> None:
    """Of one image at half its size, by hand: areas count pixels of the resized image, IoU the original's."""
    params, strong, teacher, refiner = parts
    params = params.model_copy(
        update={"input": params.input.model_copy(update={"short_side": 32, "max_side": 32})}
    )
    image_id = strong.image(2)["image_id"]
    found = measure(params, strong, {image_id}, proposer_of(params, teacher), {1: refiner}, CPU)[1]
    instances = strong.instances_of(2).to_pylist()
    true = [{"size": [64, 64], "counts": one["rle_counts"]} for one in instances]
    masks = torch.from_numpy(rle_tools.decode(true)).permute(2, 0, 1).bool()
    ids = [category.id for category in strong.categories]
    labels = torch.tensor([ids.index(one["category_id"]) for one in instances])
    ((batch, _),) = load_batches(strong, [2], params.input, 1, 0)
    assert batch is not None
    with torch.no_grad():
        outputs = teacher(batch.images, batch.content_sizes)
    expected_iou, expected_area = [], []
    for click in CLICKS:
        points = click_points(masks, click, params.seed, image_id)
        rough = rough_masks(
            outputs, 0, points, labels, Sizes((32, 32), (32, 32), (64, 64)), params.prompt
        ).masks
        for mask, truth in zip(rough, true, strict=True):
            expected_iou.append(float(rle_tools.iou([as_rle(mask)], [truth], [0])[0, 0]))
            expected_area.append(int(mask.sum()) / 4)
    assert found.objects.tolist() == [one["instance_id"] for one in instances] * 2
    assert found.clicks.tolist() == ["random"] * len(instances) + ["centre"] * len(instances)
    assert found.rough_iou == pytest.approx(expected_iou)
    assert found.areas.tolist() == expected_area


def test_each_refiner_sees_the_same_clicks(parts: tuple[Params, Split, SOLOv2, MaskRefineNet]) -> None:
    params, strong, teacher, refiner = parts
    other = MaskRefineNet(refiner.config).eval()
    ids = set(strong.images["image_id"].to_pylist()[:4])
    proposer = proposer_of(params, teacher)
    first, second = measure(params, strong, ids, proposer, {1: refiner, 2: other}, CPU).values()
    for name in Measured._fields[:-2]:
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.refined_iou, second.refined_iou)
    alone = measure(params, strong, ids, proposer, {2: other}, CPU)[2]
    assert all(np.array_equal(a, b) for a, b in zip(alone, second, strict=True))


def test_no_held_out_images(parts: tuple[Params, Split, SOLOv2, MaskRefineNet]) -> None:
    params, strong, teacher, refiner = parts
    found = measure(params, strong, set(), proposer_of(params, teacher), {1: refiner}, CPU)[1]
    assert all(len(column) == 0 for column in found)


@given(st.integers(0, 2**31 - 1), st.integers(-(10**12), 10**12))
def test_random_clicks_lie_on_their_objects(seed: int, image_id: int) -> None:
    masks = torch.zeros(3, 8, 12, dtype=torch.bool)
    masks[0, 2, 3], masks[1, :, 4:], masks[2, 7, 0], masks[2, 0, 11] = True, True, True, True
    points = click_points(masks, "random", seed, image_id)
    assert torch.equal(points, click_points(masks, "random", seed, image_id))
    x, y = points.long().unbind(1)
    assert masks[torch.arange(3), y, x].all()
    assert torch.equal(points - points.floor(), torch.full((3, 2), 0.5))


def test_centres_are_means_of_pixel_centres() -> None:
    masks = torch.zeros(2, 8, 12, dtype=torch.bool)
    masks[0, 2, 3], masks[1, 2:4, 4:10] = True, True
    assert click_points(masks, "centre", 0, 0).tolist() == [[3.5, 2.5], [7.0, 3.0]]
