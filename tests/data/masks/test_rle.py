from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.masks import rle as masks

any_mask = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(any_mask)
def test_rle_round_trip(mask: np.ndarray) -> None:
    counts = masks.encode(mask)
    assert np.array_equal(masks.decode(counts, *mask.shape), mask)
    assert masks.decode(counts, *mask.shape).dtype == bool
    masks.check_rle(counts, *mask.shape)


@given(any_mask)
def test_runs_are_the_uncompressed_rle(mask: np.ndarray) -> None:
    column_major = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[False], column_major]).astype(int)))
    lengths = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    counts = masks.encode(mask)
    assert masks.runs(counts).tolist() == lengths
    assert masks.from_runs(lengths, *mask.shape) == counts


@given(any_mask)
def test_object_pixels_are_the_masks(mask: np.ndarray) -> None:
    rows, columns = masks.object_pixels(masks.encode(mask), mask.shape[0])
    expected_columns, expected_rows = np.nonzero(mask.T)
    assert rows.tolist() == expected_rows.tolist()
    assert columns.tolist() == expected_columns.tolist()


@given(st.binary(max_size=12))
def test_any_bytes_are_refused_or_decode_safely(counts: bytes) -> None:
    try:
        masks.check_rle(counts, 5, 4)
    except ValueError:
        return
    assert masks.decode(counts, 5, 4).shape == (5, 4)


@given(any_mask)
def test_area_and_box_are_those_of_the_pixels(mask: np.ndarray) -> None:
    counts = masks.encode(mask)
    assert masks.area(counts, *mask.shape) == mask.sum()
    if not mask.any():
        assert masks.bbox_xywh(counts, *mask.shape) == (0, 0, 0, 0)
        return
    rows, columns = np.nonzero(mask)
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert masks.bbox_xywh(counts, *mask.shape) == (columns.min(), rows.min(), width, height)


@given(hnp.arrays(bool, st.tuples(st.integers(0, 4), st.just(7), st.just(6))))
def test_iou_matrix_is_that_of_the_pixels(stack: np.ndarray) -> None:
    rles = [masks.encode(mask) for mask in stack]
    assert np.array_equal(masks.decode_many(rles, 7, 6), stack)
    flat = stack.reshape(len(stack), 42).astype(int)
    overlap = flat @ flat.T
    union = flat.sum(1)[:, None] + flat.sum(1)[None] - overlap
    expected = np.divide(overlap, union, out=np.zeros(overlap.shape), where=union > 0)
    assert masks.iou_matrix(rles, rles, 7, 6) == pytest.approx(expected)
    areas = flat.sum(1)[:, None]
    expected = np.divide(overlap, areas, out=np.zeros(overlap.shape), where=areas > 0)
    assert masks.iou_matrix(rles, rles, 7, 6, crowd=True) == pytest.approx(expected)


def test_masks_have_two_axes() -> None:
    with pytest.raises(ValueError, match=r"\[1, 2, 3\]"):
        masks.encode(np.zeros((1, 2, 3), dtype=bool))


def test_published_masks_of_the_reference_come_back(shared_dir: Path) -> None:
    with np.load(shared_dir / "fixtures/reference/solov2_tiny/a256x320_input.npz") as arrays:
        shape = tuple(arrays["mask_shape"])
        stack = np.unpackbits(arrays["mask_bits"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    rles = [masks.encode(mask) for mask in stack]
    assert np.array_equal(masks.decode_many(rles, *shape[1:]), stack)
    assert [masks.area(rle, *shape[1:]) for rle in rles] == stack.sum(axis=(1, 2)).tolist()


@given(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(-1, 3))
)
def test_label_maps_are_their_values_masks(labels: np.ndarray) -> None:
    found = masks.encode_labels(labels)
    assert list(found) == sorted(set(labels[labels > 0].tolist()))
    for value, counts in found.items():
        assert counts == masks.encode(labels == value)


def test_label_maps_have_two_dimensions() -> None:
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        masks.encode_labels(np.zeros((1, 2, 3), dtype=np.int32))


def drawn(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """Masks of all kinds: noise, rectangles up to the borders, full, empty."""
    rng = np.random.default_rng(seed)
    stack = np.zeros((count, height, width), np.bool_)
    for mask in stack:
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
    return stack


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(1, 40), st.integers(1, 40))
def test_byte_for_byte_as_pycocotools(seed: int, count: int, height: int, width: int) -> None:
    stack = drawn(seed, count, height, width)
    expected = [masks.encode(mask) for mask in stack]
    assert masks.encode_many(stack) == expected
    assert masks.encode_many(torch.from_numpy(stack)) == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 9))
def test_boxes_may_be_loose(seed: int, loose: int) -> None:
    stack = drawn(seed, 4, 20, 30)
    boxes = masks._boxes(stack)
    boxes[:, :2] = np.maximum(boxes[:, :2] - loose, 0)
    boxes[:, 2:] = np.minimum(boxes[:, 2:] + loose, [30, 20])
    expected = [masks.encode(mask) for mask in stack]
    assert masks.encode_many(stack, boxes) == expected
    assert masks.encode_many(stack, torch.from_numpy(boxes)) == expected


@pytest.mark.parametrize("chunk", [1, 1 << 28])
def test_the_way_of_a_gpu_is_the_same(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(masks, "CHUNK_PIXELS", chunk)
    for seed in range(30):
        stack = drawn(seed, 5, 17, 23)
        mask_of, pixel = masks._ends_on_device(torch.from_numpy(stack))
        assert masks._codes(mask_of, pixel, 5, 17 * 23) == [masks.encode(mask) for mask in stack]


def test_numbers_of_many_digits() -> None:
    """Runs of more than 2^20 pixels, and differences below 0 of that size."""
    mask = np.zeros((1500, 2000), np.bool_)
    mask[700:705, 3] = True
    mask[:, 1000:1900] = True
    mask[10, 1950] = True
    (code,) = masks.encode_many(mask[None])
    assert code == masks.encode(mask)
    assert (masks.decode(code, 1500, 2000) == mask).all()


def test_no_masks_to_encode() -> None:
    assert masks.encode_many(np.zeros((0, 4, 5), np.bool_)) == []


@pytest.mark.parametrize("stack", [np.zeros((4, 5), np.bool_), np.zeros((1, 4, 5), np.uint8)])
def test_masks_of_other_shapes_and_types_are_refused(stack: np.ndarray) -> None:
    with pytest.raises(ValueError, match="bool"):
        masks.encode_many(stack)


@st.composite
def some_masks(draw: st.DrawFn) -> list[np.ndarray]:
    """Up to six masks [H, W] of one size: noise, boxes, full, empty."""
    height, width = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    made = []
    for kind in draw(st.lists(st.sampled_from(["noise", "box", "full", "empty"]), max_size=6)):
        mask = np.zeros((height, width), bool)
        if kind == "noise":
            mask = rng.random((height, width)) < rng.random()
        elif kind == "box":
            top, left = rng.integers(height), rng.integers(width)
            mask[top : top + rng.integers(1, height + 1), left : left + rng.integers(1, width + 1)] = True
        elif kind == "full":
            mask[:] = True
        made.append(mask)
    return made or [np.zeros((height, width), bool)]


def ascending(draw: st.DrawFn, side: int) -> np.ndarray:
    return np.sort(np.array(draw(st.lists(st.integers(0, side - 1), min_size=1, max_size=40)), np.int64))


@settings(deadline=None, max_examples=200)
@given(some_masks())
def test_runs_are_those_of_one_code_after_the_other(drawn: list[np.ndarray]) -> None:
    codes = [masks.encode(mask) for mask in drawn]
    lengths, counts = masks.runs_of_many(codes)
    parts = np.split(lengths, np.cumsum(counts)[:-1])
    assert all(np.array_equal(part, masks.runs(code)) for part, code in zip(parts, codes, strict=True))


@settings(deadline=None, max_examples=300)
@given(some_masks(), st.data())
def test_a_window_is_the_decoded_mask_at_these_rows_and_columns(
    drawn: list[np.ndarray], data: st.DataObject
) -> None:
    height, width = drawn[0].shape
    rows, columns = data.draw(st.composite(ascending)(height)), data.draw(st.composite(ascending)(width))
    found, kept = masks.decode_window([masks.encode(mask) for mask in drawn], height, width, rows, columns)
    expected = np.stack(drawn)[:, rows][:, :, columns]
    assert np.array_equal(kept, np.flatnonzero(expected.any(axis=(1, 2))))
    assert found.dtype == np.bool_
    assert np.array_equal(found, expected[kept])


def test_runs_of_length_0_draw_nothing() -> None:
    """Other tools write them: inside, at the end, and as an object's."""
    for runs in ([2, 3, 0, 1, 6], [0, 0, 5, 7], [12, 0], [3, 0, 2, 4, 3, 0], [0, 12, 0]):
        code = masks.from_runs(runs, 3, 4)
        expected = masks.decode(code, 3, 4)
        found, kept = masks.decode_window([code], 3, 4, np.arange(3), np.arange(4))
        assert np.array_equal(found[0] if kept.size else np.zeros((3, 4)), expected)


def test_no_masks_in_a_window() -> None:
    found, kept = masks.decode_window([], 5, 6, np.arange(2), np.arange(3))
    assert found.shape == (0, 2, 3)
    assert kept.shape == (0,)


@pytest.mark.parametrize("bad", [masks.encode(np.ones((3, 5), bool)), b"", b"P", b"0\x80"])
def test_codes_that_do_not_fill_the_image_are_refused(bad: bytes) -> None:
    good = masks.encode(np.ones((3, 4), bool))
    for codes in ([bad], [good, bad], [bad, good]):
        with pytest.raises(ValueError, match="run"):
            masks.decode_window(codes, 3, 4, np.arange(3), np.arange(4))
