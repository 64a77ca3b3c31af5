from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.masks import rle
from data.masks.window import decode_window, runs_of_many


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
    codes = [rle.encode(mask) for mask in drawn]
    lengths, counts = runs_of_many(codes)
    parts = np.split(lengths, np.cumsum(counts)[:-1])
    assert all(np.array_equal(part, rle.runs(code)) for part, code in zip(parts, codes, strict=True))


@settings(deadline=None, max_examples=300)
@given(some_masks(), st.data())
def test_a_window_is_the_decoded_mask_at_these_rows_and_columns(
    drawn: list[np.ndarray], data: st.DataObject
) -> None:
    height, width = drawn[0].shape
    rows, columns = data.draw(st.composite(ascending)(height)), data.draw(st.composite(ascending)(width))
    found, kept = decode_window([rle.encode(mask) for mask in drawn], height, width, rows, columns)
    expected = np.stack(drawn)[:, rows][:, :, columns]
    assert np.array_equal(kept, np.flatnonzero(expected.any(axis=(1, 2))))
    assert found.dtype == np.bool_
    assert np.array_equal(found, expected[kept])


def test_runs_of_length_nought_draw_nothing() -> None:
    """Other tools write them: inside, at the end, and as an object's."""
    for runs in ([2, 3, 0, 1, 6], [0, 0, 5, 7], [12, 0], [3, 0, 2, 4, 3, 0], [0, 12, 0]):
        code = rle.from_runs(runs, 3, 4)
        expected = rle.decode(code, 3, 4)
        found, kept = decode_window([code], 3, 4, np.arange(3), np.arange(4))
        assert np.array_equal(found[0] if kept.size else np.zeros((3, 4)), expected)


def test_no_masks() -> None:
    found, kept = decode_window([], 5, 6, np.arange(2), np.arange(3))
    assert found.shape == (0, 2, 3)
    assert kept.shape == (0,)


@pytest.mark.parametrize("bad", [rle.encode(np.ones((3, 5), bool)), b"", b"P", b"0\x80"])
def test_codes_that_do_not_fill_the_image_are_refused(bad: bytes) -> None:
    good = rle.encode(np.ones((3, 4), bool))
    for codes in ([bad], [good, bad], [bad, good]):
        with pytest.raises(ValueError, match="run"):
            decode_window(codes, 3, 4, np.arange(3), np.arange(4))
