from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from data.masks import rle as masks

any_mask = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
SQUARE = [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0]]


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


@given(any_mask, st.integers(0, 2**32 - 1))
def test_random_points_lie_on_the_object(mask: np.ndarray, seed: int) -> None:
    if not mask.any():
        with pytest.raises(ValueError, match="empty"):
            masks.random_inner_point(mask, np.random.default_rng(seed))
        return
    x, y = masks.random_inner_point(mask, np.random.default_rng(seed))
    assert mask[int(y), int(x)]
    assert (x, y) == masks.random_inner_point(mask, np.random.default_rng(seed))


def test_random_points_reach_the_whole_object_evenly() -> None:
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, 2] = mask[3, 5] = mask[0, 0] = mask[2, 2] = True
    rng = np.random.default_rng(0)
    xy = np.asarray([masks.random_inner_point(mask, rng) for _ in range(4000)])
    hits = np.zeros(mask.shape)
    np.add.at(hits, (xy[:, 1].astype(int), xy[:, 0].astype(int)), 1)
    assert hits[mask] == pytest.approx(np.full(4, 1000), abs=120)
    assert (xy % 1).mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.02)


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-5, 30), st.floats(-5, 25)), min_size=3, max_size=8),
        min_size=1,
        max_size=3,
    )
)
def test_polygons_are_the_union_of_their_parts_as_pycocotools_draws_them(parts: list[list[Any]]) -> None:
    polygons = [[value for xy in part for value in xy] for part in parts]
    expected = coco_mask.decode(coco_mask.frPyObjects(polygons, 20, 25)).any(axis=2)
    assert np.array_equal(masks.decode(masks.from_polygons(polygons, 20, 25), 20, 25), expected)


def test_a_polygon_fills_its_pixels_exactly() -> None:
    mask = np.zeros((8, 9), dtype=bool)
    mask[1:5, 1:5] = True
    assert np.array_equal(masks.decode(masks.from_polygons(SQUARE, 8, 9), 8, 9), mask)


def test_all_forms_of_a_segmentation_give_the_same_mask() -> None:
    counts = masks.from_polygons(SQUARE, 8, 9)
    size = [8, 9]
    for form in (
        SQUARE,
        {"size": size, "counts": masks.runs(counts).tolist()},
        {"size": size, "counts": counts},
        {"size": size, "counts": counts.decode()},
    ):
        assert masks.from_segmentation(form, 8, 9) == counts


@pytest.mark.parametrize(
    ("segmentation", "error"),
    [
        (None, "neither polygons nor an RLE"),
        ("[[1, 2]]", "neither polygons nor an RLE"),
        ([], "no polygon"),
        ([[1, 2, 3, 4]], "4 numbers"),  # pycocotools takes four numbers for a box
        ([[1, 2, 3, 4, 5]], "5 numbers"),
        ([[1, 2, 3, 4, 5, 6], []], "part 1 with 0 numbers"),
        ([1, 2, 3, 4, 5, 6], "part 0 with int"),
        ([[1, 2, 3, 4, 5, "6"]], "not a finite number"),
        ([[1, 2, 3, 4, 5, None]], "not a finite number"),
        ([[1, 2, 3, 4, 5, [6]]], "not a finite number"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not a finite number"),
        ([[1, 2, 3, 4, 5, float("inf")]], "not a finite number"),
        ([[1, 2, 3, 4, 5, 1e9]], "far outside"),
        ({"counts": [72]}, "neither polygons nor an RLE"),
        ({"size": [9, 8], "counts": [72]}, "size"),
        ({"size": "89", "counts": [72]}, "size"),
        ({"size": None, "counts": [72]}, "size"),
        ({"size": [8, 9], "counts": [71]}, "71 pixels"),
        ({"size": [8, 9], "counts": [80, -8]}, "whole number"),
        ({"size": [8, 9], "counts": [36.0, 36.0]}, "whole number"),
        ({"size": [8, 9], "counts": [True, 71]}, "whole number"),
        ({"size": [8, 9], "counts": ""}, "empty"),
        ({"size": [8, 9], "counts": "\u00e9"}, "outside '0'..'o'"),
        ({"size": [8, 9], "counts": "~~"}, "outside '0'..'o'"),
        ({"size": [8, 9], "counts": "o"}, "ends within a number"),
        ({"size": [8, 9], "counts": "oooooooooo0"}, "more than 9 digits"),
        ({"size": [8, 9], "counts": "1"}, "1 pixels"),
        ({"size": [8, 9], "counts": "O1"}, "negative"),
        ({"size": [8, 9], "counts": 5}, "type int"),
    ],
)
def test_faulty_segmentations_are_refused(segmentation: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        masks.from_segmentation(segmentation, 8, 9)


@pytest.mark.parametrize(("reach", "good"), [(300, True), (-300, True), (301, False), (-300.5, False)])
def test_vertices_may_lie_three_sides_off_by_the_longer_side(reach: float, good: bool) -> None:
    """Of an image much wider than high."""
    polygons = [[1, 1, 90, 1, 90, 8, reach, 4.5]]
    if good:
        masks.check_polygons(polygons, 10, 100)
    else:
        with pytest.raises(ValueError, match="a vertex far outside the 100 x 10 image"):
            masks.check_polygons(polygons, 10, 100)


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


def test_an_outline_that_would_take_all_memory_is_refused() -> None:
    zigzag = [0.0, 0.0, 3000.0, 3000.0] * 2000  # 12 million pixels along, in 64 kB
    with pytest.raises(ValueError, match=r"an outline of 1[12][0-9]+ pixels"):
        masks.check_polygons([zigzag], 3000, 3000)
    masks.check_polygons([zigzag[:400]], 3000, 3000)
