from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from data.masks import polygons, rle

SQUARE = [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0]]


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-5, 30), st.floats(-5, 25)), min_size=3, max_size=8),
        min_size=1,
        max_size=3,
    )
)
def test_polygons_are_the_union_of_their_parts_as_pycocotools_draws_them(parts: list[list[Any]]) -> None:
    flat = [[value for xy in part for value in xy] for part in parts]
    expected = coco_mask.decode(coco_mask.frPyObjects(flat, 20, 25)).any(axis=2)
    assert np.array_equal(rle.decode(polygons.from_polygons(flat, 20, 25), 20, 25), expected)


def test_a_polygon_fills_its_pixels_exactly() -> None:
    mask = np.zeros((8, 9), dtype=bool)
    mask[1:5, 1:5] = True
    assert np.array_equal(rle.decode(polygons.from_polygons(SQUARE, 8, 9), 8, 9), mask)


def test_all_forms_of_a_segmentation_give_the_same_mask() -> None:
    counts = polygons.from_polygons(SQUARE, 8, 9)
    size = [8, 9]
    for form in (
        SQUARE,
        {"size": size, "counts": rle.runs(counts).tolist()},
        {"size": size, "counts": counts},
        {"size": size, "counts": counts.decode()},
    ):
        assert polygons.from_segmentation(form, 8, 9) == counts


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
        polygons.from_segmentation(segmentation, 8, 9)


@pytest.mark.parametrize(("reach", "good"), [(300, True), (-300, True), (301, False), (-300.5, False)])
def test_vertices_may_lie_three_sides_off_by_the_longer_side(reach: float, good: bool) -> None:
    """Of an image much wider than high."""
    parts = [[1, 1, 90, 1, 90, 8, reach, 4.5]]
    if good:
        polygons.check_polygons(parts, 10, 100)
    else:
        with pytest.raises(ValueError, match="a vertex far outside the 100 x 10 image"):
            polygons.check_polygons(parts, 10, 100)


def test_an_outline_that_would_take_all_memory_is_refused() -> None:
    zigzag = [0.0, 0.0, 3000.0, 3000.0] * 2000  # 12 million pixels along, in 64 kB
    with pytest.raises(ValueError, match=r"an outline of 1[12][0-9]+ pixels"):
        polygons.check_polygons([zigzag], 3000, 3000)
    polygons.check_polygons([zigzag[:400]], 3000, 3000)
