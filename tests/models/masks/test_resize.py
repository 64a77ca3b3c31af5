from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.masks import resize
from models.masks.boxes import mask_boxes
from models.masks.resize import Sizes, _levels, _whole, resize_boxed, resize_masks


def values(maps: Tensor, input_size, content_size, original_size) -> Tensor:
    """[K, H, W], each pixel of each mask, by torch's own two resizings."""
    x = F.interpolate(maps[:, None], size=input_size, mode="bilinear", align_corners=False)
    x = x[:, :, : content_size[0], : content_size[1]]
    if content_size != original_size:
        x = F.interpolate(x, size=original_size, mode="bilinear", align_corners=False)
    return x[:, 0]


def blobs(seed: int, count: int, h: int, w: int) -> Tensor:
    """Maps with small smooth objects, some of them nothing at all."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, h // 3 + 1, w // 3 + 1, generator=rng) ** 6
    return F.interpolate(coarse, size=(h, w), mode="bicubic")[:, 0].clamp(0, 1)


shapes = st.tuples(st.integers(2, 12), st.integers(2, 12))


@settings(max_examples=80, deadline=None)
@given(shapes, st.sampled_from([2, 4]), shapes, st.integers(0, 999), st.booleans())
def test_of_the_size_of_the_input_they_are_torch_s_to_the_last_bit(
    places, stride: int, cut, seed: int, one_each: bool
) -> None:
    h, w = places
    padded = (h * stride, w * stride)
    content = (max(1, padded[0] - cut[0]), max(1, padded[1] - cut[1]))
    maps = blobs(seed, 6, h, w)
    threshold = torch.linspace(0.05, 0.9, 6) if one_each else 0.3
    levels = _levels(threshold, maps)[:, None, None]
    found = resize_boxed(maps, Sizes(padded, content, content), threshold)
    assert torch.equal(found.masks, values(maps, padded, content, content) > levels)
    assert torch.equal(resize_masks(maps, Sizes(padded, content, content), threshold), found.masks)
    assert hold(found.boxes_xyxy, found.masks)


@settings(max_examples=80, deadline=None)
@given(shapes, st.tuples(st.integers(1, 60), st.integers(1, 60)), shapes, st.integers(0, 999))
def test_of_another_size_they_are_torch_s_but_for_pixels_at_the_very_threshold(
    places, original, cut, seed: int
) -> None:
    h, w = places
    padded = (h * 4, w * 4)
    content = (max(1, padded[0] - cut[0]), max(1, padded[1] - cut[1]))
    maps = blobs(seed, 4, h, w)
    expected = values(maps, padded, content, original)
    found = resize_boxed(maps, Sizes(padded, content, original), 0.3)
    differs = found.masks != (expected > 0.3)
    assert ((expected[differs] - 0.3).abs() < 1e-5).all()
    assert hold(found.boxes_xyxy, found.masks)


def hold(boxes: Tensor, masks: Tensor) -> bool:
    """The boxes hold the masks, with little around them."""
    tight = mask_boxes(masks)
    real = tight[:, 2] > 0
    return bool((boxes[real, :2] <= tight[real, :2]).all() and (boxes[real, 2:] >= tight[real, 2:]).all())


def test_a_flat_map_at_the_threshold_is_empty_and_above_it_full() -> None:
    maps = torch.tensor([0.5, 0.5000001, 1.0]).view(3, 1, 1).expand(3, 8, 8)
    masks = resize_masks(maps, Sizes((32, 32), (32, 32), (32, 32)), 0.5)
    assert torch.equal(masks.flatten(1).all(1), torch.tensor([False, True, True]))
    assert not masks[0].any()


def test_what_lies_in_the_padding_is_cut_off() -> None:
    maps = torch.zeros(1, 8, 8)
    maps[0, 7, 7] = 1.0
    for original in ((16, 16), (40, 33)):
        found = resize_boxed(maps, Sizes((32, 32), (16, 16), original), 0.5)
        assert not found.masks.any() and found.boxes_xyxy.tolist() == [[0, 0, 0, 0]]


def test_no_masks() -> None:
    found = resize_boxed(torch.zeros(0, 4, 4), Sizes((16, 16), (16, 16), (9, 7)), 0.5)
    assert found.masks.shape == (0, 9, 7) and found.boxes_xyxy.shape == (0, 4)


@pytest.mark.parametrize("original", [(30, 20), (45, 33)])
def test_whole_masks_in_chunks_are_those_in_boxes(
    monkeypatch: pytest.MonkeyPatch, original: tuple[int, int]
) -> None:
    """What a GPU does; in one piece and in several."""
    maps = blobs(1, 5, 8, 8)
    sizes = Sizes((32, 32), (30, 20), original)
    levels = _levels(0.3, maps)
    whole = _whole(maps, sizes, levels)
    assert torch.equal(resize_masks(maps, sizes, 0.3), whole)
    monkeypatch.setattr(resize, "CHUNK_ELEMENTS", 1)
    assert torch.equal(_whole(maps, sizes, levels), whole)
