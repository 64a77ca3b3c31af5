from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.masks import encoding
from data.masks.encoding import encode_many
from data.masks.rle import decode, encode


def drawn(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """Masks of all kinds: noise, rectangles up to the borders, full, empty."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), np.bool_)
    for mask in masks:
        kind = rng.integers(5)
        if kind == 0:
            mask[:] = rng.random(mask.shape) < rng.random()
        elif kind == 1:
            mask[:] = True
        elif kind > 2:
            (y0, y1), (x0, x1) = (np.sort(rng.integers(0, side + 1, 2)) for side in mask.shape)
            mask[y0:y1, x0:x1] = True
            if kind == 4:
                mask[y0:, x0:] ^= rng.random(mask[y0:, x0:].shape) < 0.1
    return masks


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(1, 40), st.integers(1, 40))
def test_byte_for_byte_as_pycocotools(seed: int, count: int, height: int, width: int) -> None:
    masks = drawn(seed, count, height, width)
    expected = [encode(mask) for mask in masks]
    assert encode_many(masks) == expected
    assert encode_many(torch.from_numpy(masks)) == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 9))
def test_boxes_may_be_loose(seed: int, loose: int) -> None:
    masks = drawn(seed, 4, 20, 30)
    boxes = encoding._boxes(masks)
    boxes[:, :2] = np.maximum(boxes[:, :2] - loose, 0)
    boxes[:, 2:] = np.minimum(boxes[:, 2:] + loose, [30, 20])
    expected = [encode(mask) for mask in masks]
    assert encode_many(masks, boxes) == expected
    assert encode_many(masks, torch.from_numpy(boxes)) == expected


@pytest.mark.parametrize("chunk", [1, 1 << 28])
def test_the_way_of_a_gpu_is_the_same(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(encoding, "CHUNK_ELEMENTS", chunk)
    for seed in range(30):
        masks = drawn(seed, 5, 17, 23)
        owner, place = encoding._ends_of_tensor(torch.from_numpy(masks))
        assert encoding._codes(owner, place, 5, 17 * 23) == [encode(mask) for mask in masks]


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    masks = drawn(3, 20, 60, 80)
    assert encode_many(torch.from_numpy(masks).cuda()) == [encode(mask) for mask in masks]


def test_numbers_of_many_digits() -> None:
    """Runs of more than 2^20 pixels, and differences below 0 of that size."""
    mask = np.zeros((1500, 2000), np.bool_)
    mask[700:705, 3] = True
    mask[:, 1000:1900] = True
    mask[10, 1950] = True
    (code,) = encode_many(mask[None])
    assert code == encode(mask)
    assert (decode(code, 1500, 2000) == mask).all()


def test_no_masks() -> None:
    assert encode_many(np.zeros((0, 4, 5), np.bool_)) == []


@pytest.mark.parametrize("masks", [np.zeros((4, 5), np.bool_), np.zeros((1, 4, 5), np.uint8)])
def test_other_shapes_and_types_are_refused(masks: np.ndarray) -> None:
    with pytest.raises(ValueError, match="bool"):
        encode_many(masks)
