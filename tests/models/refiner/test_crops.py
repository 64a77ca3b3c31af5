from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from models.refiner import crops as crops_module
from models.refiner.crops import (
    Refined,
    crop_boxes,
    crop_inputs,
    crop_masks,
    heatmaps,
    paste_masks,
    paste_sampled,
    refine,
)
from models.refiner.network import MaskRefineNet

SIZE = (40, 60)


def rectangle(x: int, y: int, w: int, h: int) -> Tensor:
    mask = torch.zeros(1, *SIZE, dtype=torch.bool)
    mask[:, y : y + h, x : x + w] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "point", "scale", "box"),
    [
        ((20, 10, 10, 6), (25.5, 12.5), 1.0, [20, 10, 30, 16]),
        ((20, 10, 10, 6), (25.5, 12.5), 2.0, [15, 7, 35, 19]),
        ((20, 10, 10, 6), (50.5, 12.5), 2.0, [15, 7, 56, 19]),
        ((20, 10, 10, 6), (0.0, 39.9), 1.0, [0, 10, 30, 40]),
        ((0, 0, 60, 40), (30.0, 20.0), 2.0, [0, 0, 60, 40]),
        ((0, 0, 0, 0), (59.5, 39.5), 1.0, [59, 39, 60, 40]),
        ((59, 39, 1, 1), (60.0, 40.0), 1.0, [59, 39, 60, 40]),
        ((5, 5, 1, 1), (5.5, 5.5), 2.0, [4, 4, 7, 7]),
    ],
)
def test_boxes(mask, point, scale: float, box: list[int]) -> None:
    assert crop_boxes(rectangle(*mask), torch.tensor([point]), scale)[0].tolist() == box


def test_pixels_are_normalised_as_the_backbone_s_weights_want(refinenet_config) -> None:
    config = refinenet_config(crop_size=32, pixel_mean=[127.0, 100.0, 0.0], pixel_std=[128.0, 50.0, 1.0])
    image = torch.full((3, *SIZE), 255, dtype=torch.uint8)
    mask, box = rectangle(20, 10, 10, 6), torch.tensor([[10.0, 5.0, 40.0, 30.0]])
    pixels = crop_inputs(image, mask, torch.tensor([[25.0, 12.0]]), box, config)[0, :3]
    torch.testing.assert_close(pixels.mean((1, 2)), torch.tensor([1.0, 3.1, 255.0]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_boxes_equal_those_of_each_mask_s_pixels(seed: int, count: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, *SIZE, generator=rng) > 0.997  # some of them empty
    points = torch.rand(count, 2, generator=rng) * torch.tensor([60.0, 40.0])
    for mask, point, box in zip(masks, points, crop_boxes(masks, points, 1.5).tolist(), strict=True):
        x, y = int(point[0]), int(point[1])
        rows, columns = mask.nonzero(as_tuple=True) if mask.any() else torch.tensor([[y], [x]])
        for held, pixel, limit, (low, high) in ((columns, x, 60, box[::2]), (rows, y, 40, box[1::2])):
            first, after = int(held.min()), int(held.max()) + 1
            context = (after - first) / 4
            assert low == max(0, math.floor(min(first, pixel) - context))
            assert high == min(limit, math.ceil(max(after, pixel + 1) + context))


def test_a_scale_an_instance() -> None:
    masks = rectangle(20, 10, 10, 6).expand(2, -1, -1)
    boxes = crop_boxes(masks, torch.tensor([[25.5, 12.5]] * 2), torch.tensor([1.0, 2.0]))
    assert boxes.tolist() == [[20, 10, 30, 16], [15, 7, 35, 19]]


rectangles = st.tuples(st.integers(0, 59), st.integers(0, 39), st.integers(1, 60), st.integers(1, 40))


@settings(max_examples=60, deadline=None)
@given(rectangles, st.floats(0, 60, width=32), st.floats(0, 40, width=32), st.floats(1, 3, width=32))
def test_pasting_a_crop_gives_the_mask_back(
    box: tuple[int, int, int, int], x: float, y: float, scale: float
) -> None:
    mask = rectangle(*box)
    boxes = crop_boxes(mask, torch.tensor([[x, y]]), scale)
    x0, y0, x1, y1 = boxes[0].tolist()
    assert 0 <= x0 <= min(x, 59) < x1 <= 60
    assert 0 <= y0 <= min(y, 39) < y1 <= 40
    # 128 samples over at most 60 pixels: at least two a pixel, so every one is seen.
    crop = crop_masks(mask, boxes, 128)
    assert torch.equal(paste_masks(crop.float(), boxes, SIZE, 0.5), mask)


def test_paste_keeps_to_its_box_and_doesn_t_fade_at_its_edge() -> None:
    box = torch.tensor([[10.0, 5.0, 30.0, 25.0]])
    assert torch.equal(paste_masks(torch.ones(1, 8, 8), box, SIZE, 0.999), rectangle(10, 5, 20, 20))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 59), st.integers(0, 39), st.integers(1, 60), st.integers(1, 40)), max_size=4
    )
)
def test_paste_equals_sampling_the_whole_image(places: list[tuple[int, int, int, int]]) -> None:
    boxes = (
        torch.tensor([[x, y, min(x + w, 60), min(y + h, 40)] for x, y, w, h in places]).float().view(-1, 4)
    )
    crops = torch.rand(len(places), 16, 16)
    x, y = torch.arange(60) + 0.5, torch.arange(40) + 0.5
    across = (x - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1])
    down = (y - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2])
    grid = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), -1) * 2 - 1
    whole = grid_sample(crops[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    inside = (grid.abs() < 1).all(-1)
    for paste in (paste_masks, paste_sampled):  # the CPU's way, and the GPU's
        pasted = paste(crops, boxes, SIZE, 0.5)
        differ = pasted != (inside & (whole > 0.5))
        assert not (differ & ((whole - 0.5).abs() > 1e-4)).any()
        assert not (pasted & ~inside).any()


def test_pasting_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = torch.tensor([[0.0, 0, 60, 40], [3, 4, 9, 20], [50, 30, 51, 31], [10, 0, 60, 7]])
    crops = torch.rand(4, 16, 16)
    whole = paste_sampled(crops, boxes, SIZE, 0.5)
    monkeypatch.setattr(crops_module, "CHUNK_ELEMENTS", 97)
    assert torch.equal(paste_sampled(crops, boxes, SIZE, 0.5), whole)


def test_heatmap_peaks_at_the_point() -> None:
    boxes = torch.tensor([[10.0, 20.0, 26.0, 28.0]])
    heat = heatmaps(torch.tensor([[14.5, 22.5]]), boxes, 32, 3.0)[0]
    # A pixel of the image is 2 x 4 of the crop, so the point lies at (9, 10).
    assert heat.flatten().topk(4).indices.tolist() == pytest.approx(
        [9 * 32 + 8, 9 * 32 + 9, 10 * 32 + 8, 10 * 32 + 9], abs=40
    )
    assert heat[9, 8].item() == pytest.approx(torch.exp(torch.tensor(-0.5 / 18)).item())
    assert heat[10, 9 + 6].item() < heat[10, 9 + 3].item()


def test_inputs_hold_image_heat_and_mask(refinenet_config) -> None:
    config = refinenet_config(crop_size=32, heatmap_channels=3)
    image = torch.zeros(3, *SIZE, dtype=torch.uint8)
    image[0] = 255
    mask = rectangle(20, 10, 8, 8).expand(2, -1, -1)
    point = torch.tensor([[24.0, 14.0]] * 2)
    boxes = crop_boxes(mask, point, 2.0)
    x = crop_inputs(image, mask, point, boxes, config, torch.tensor([2, 0]))
    assert x.shape == (2, 3 + 3 + 1, 32, 32)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(x[0, :3], expected[:, None, None].expand(3, 32, 32))
    assert x[0, 3:6].amax((1, 2)).gt(0.9).tolist() == [False, False, True]
    assert x[1, 3:6].amax((1, 2)).gt(0.9).tolist() == [True, False, False]
    assert torch.equal(x[0, 6] > 0, rectangle(8, 8, 16, 16)[0, :32, :32])
    with pytest.raises(ValueError, match="labels"):
        crop_inputs(image, mask, point, boxes, config)


def test_a_crop_that_shrinks_the_image_averages_it(refinenet_config) -> None:
    config = refinenet_config(crop_size=32)
    stripes = torch.zeros(3, 128, 128, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    whole = torch.tensor([[0.0, 0.0, 128.0, 128.0]])
    mask = torch.ones(1, 128, 128, dtype=torch.bool)
    x = crop_inputs(stripes, mask, torch.tensor([[64.0, 64.0]]), whole, config)
    grey = (0.5 - 0.485) / 0.229
    assert x[0, 0].sub(grey).abs().max() < 0.05


class Echo(nn.Module):
    """Predicts the rough mask, or always an empty one."""

    def __init__(self, config, empty: bool) -> None:
        super().__init__()
        self.config, self.empty, self.sizes = config, empty, []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        sure = 40.0 * (x[:, -1] - 0.5)
        if self.empty:
            sure = torch.full_like(sure, -20.0)
        return torch.stack([-sure, sure], 1)


@pytest.mark.parametrize("selected", [None, torch.ones(3, dtype=torch.bool)])
@pytest.mark.parametrize("empty", [False, True])
def test_refine_keeps_the_rough_mask_where_nothing_came_out(
    refinenet_config, empty: bool, selected: Tensor | None
) -> None:
    masks = torch.cat([rectangle(20, 10, 12, 8), rectangle(0, 0, 0, 0), rectangle(40, 20, 9, 9)])
    points = torch.tensor([[25.0, 14.0], [3.0, 3.0], [44.0, 25.0]])
    model = Echo(refinenet_config(), empty)
    image = torch.zeros(3, *SIZE, dtype=torch.uint8)
    refined, kept, _, _ = refine(
        model,  # type: ignore[arg-type]
        image,
        masks,
        points,
        model.config,
        1,
        enlarge=2.0,
        mask_threshold=0.5,
        rounds=1,
        selected=selected,
    )
    assert torch.equal(refined, masks)
    assert kept.tolist() == ([True] * 3 if empty else [False, True, False])
    assert model.sizes == [1, 1]  # the empty mask is skipped


@pytest.mark.parametrize("count", [0, 5])
def test_refine_gives_the_same_in_any_batch_size(refinenet_config, count: int) -> None:
    config = refinenet_config()
    model = MaskRefineNet(config).eval()
    nn.init.normal_(model.head.weight)
    image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)
    masks = torch.cat([rectangle(3 * k, 2 * k, 14, 12) for k in range(5)])[:count]
    points = (torch.tensor([[5.0, 5.0]]) + torch.arange(5)[:, None] * 2)[:count]
    one, all_at_once = (
        refine(model, image, masks, points, config, size, enlarge=1.5, mask_threshold=0.5, rounds=2)
        for size in (1, 8)
    )
    assert one[0].shape == (count, *SIZE)
    assert torch.equal(one[1], all_at_once[1])
    assert (one[0] != all_at_once[0]).float().mean().nan_to_num().item() < 1e-3


def test_two_rounds_are_one_round_of_one_round_s_masks(refinenet_config) -> None:
    config = refinenet_config()
    model = MaskRefineNet(config).eval()
    nn.init.normal_(model.head.weight)
    image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)
    masks = torch.cat([rectangle(3 * k, 2 * k, 14, 12) for k in range(5)] + [rectangle(0, 0, 0, 0)])
    points = torch.tensor([[5.0, 5.0]]) + torch.arange(6)[:, None] * 2

    def rounds(start: Tensor, count: int) -> Refined:
        return refine(model, image, start, points, config, 4, enlarge=1.5, mask_threshold=0.5, rounds=count)

    once, twice = rounds(masks, 1), rounds(masks, 2)
    assert not torch.equal(once[0], twice[0])
    assert torch.equal(rounds(once[0], 1)[0], twice[0])
    assert torch.equal(once[1], twice[1]) and once[1].tolist() == [False] * 5 + [True]
    # What is returned of the crops is the last round's: pasted where they lie, they are the masks.
    for found, start in ((once, masks), (twice, once[0])):
        _, _, probabilities, boxes = found
        assert torch.equal(boxes[:5], crop_boxes(start[:5], points[:5], 1.5))
        assert torch.equal(paste_masks(probabilities[:5], boxes[:5], SIZE, 0.5), found[0][:5])
    assert not torch.equal(once[3][:5], twice[3][:5])
    with pytest.raises(ValueError, match="rounds: found 0"):
        rounds(masks, 0)


def test_in_bf16_few_pixels_differ(refinenet_config) -> None:
    model = MaskRefineNet(refinenet_config()).eval()
    nn.init.normal_(model.head.weight)
    image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)
    masks = torch.cat([rectangle(3 * k, 2 * k, 24, 18) for k in range(5)])
    points = torch.tensor([[9.0, 9.0]]) + torch.arange(5)[:, None] * 2
    exact, low = (
        refine(
            model, image, masks, points, refinenet_config(infer_precision=precision), 8,
            enlarge=1.5, mask_threshold=0.5, rounds=1,
        )
        for precision in ("fp32", "bf16")
    )  # fmt: skip
    assert low.probabilities.dtype == torch.float32
    assert not torch.equal(low.probabilities, exact.probabilities)
    torch.testing.assert_close(low.probabilities, exact.probabilities, atol=0.1, rtol=0)
    either = (exact.masks | low.masks).sum()
    assert (exact.masks ^ low.masks).sum() < 0.05 * either


class Shrink(Echo):
    """Predicts the rough mask at first, then an empty one."""

    def forward(self, x: Tensor) -> Tensor:
        self.empty = bool(self.sizes)
        return super().forward(x)


def test_a_later_round_that_comes_out_empty_keeps_the_last_mask(refinenet_config) -> None:
    model = Shrink(refinenet_config(), empty=False)
    mask = rectangle(20, 10, 12, 8)
    refined, kept, _, _ = refine(
        model,  # type: ignore[arg-type]
        torch.zeros(3, *SIZE, dtype=torch.uint8),
        mask,
        torch.tensor([[25.0, 14.0]]),
        model.config,
        8,
        enlarge=2.0,
        mask_threshold=0.5,
        rounds=3,
    )
    assert torch.equal(refined, mask)
    assert kept.tolist() == [False]  # refined once
    assert model.sizes == [1, 1]  # and none after the empty prediction


def test_an_imported_network_is_told_class_c_in_channel_c_plus_1(refinenet_config) -> None:
    """The first of its C + 1 heatmap channels has no class."""
    model = MaskRefineNet(refinenet_config(heatmap_channels=4)).eval()
    model.categories = [{"id": i, "name": str(i)} for i in range(3)]
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image, masks = torch.zeros(3, 60, 60, dtype=torch.uint8), torch.zeros(2, 60, 60, dtype=torch.bool)
    masks[:, 20:40, 20:40] = True
    points = torch.tensor([[30.0, 30.0], [25.0, 25.0]])
    refine(
        model, image, masks, points, model.config, 8,
        enlarge=2.0, mask_threshold=0.5, rounds=1, labels=torch.tensor([0, 2]),
    )  # fmt: skip
    held = seen[0][:, 3:7].flatten(2).any(2)
    assert held.tolist() == [[False, True, False, False], [False, False, False, True]]
