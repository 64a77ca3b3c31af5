from __future__ import annotations

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.masks.boxes import areas_in, empty_masks, mask_boxes


@given(st.integers(0, 5), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000), st.floats(0, 0.4))
def test_boxes_hold_all_that_is_true_and_are_tight(
    count: int, h: int, w: int, seed: int, share: float
) -> None:
    masks = torch.from_numpy(np.random.default_rng(seed).random((count, h, w)) < share)
    boxes = mask_boxes(masks)
    assert boxes.shape == (count, 4) and boxes.dtype == torch.long
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True):
        y, x = mask.nonzero(as_tuple=True)
        expected = (x.min(), y.min(), x.max() + 1, y.max() + 1) if len(x) else (0, 0, 0, 0)
        assert (x0, y0, x1, y1) == expected
    assert torch.equal(areas_in(masks, boxes), masks.flatten(1).sum(1))


@pytest.mark.parametrize("size", [(3, 4), (1024, 1025), (0, 4)])
def test_empty_masks_are_empty_and_can_be_written(size: tuple[int, int]) -> None:
    masks = empty_masks(2, size, torch.device("cpu"))
    assert masks.shape == (2, *size) and masks.dtype == torch.bool and not masks.any()
    masks[1, 1:, 3] = True
    assert masks.sum() == max(size[0] - 1, 0)


def test_memory_is_taken_for_what_is_written_alone() -> None:
    """Two gigabytes of masks, of which ten thousand pixels are written."""
    before = psutil.Process().memory_info().rss
    masks = empty_masks(2000, (1000, 1000), torch.device("cpu"))
    masks[::20, 500:600, 500:600] = True
    assert psutil.Process().memory_info().rss - before < 200e6
