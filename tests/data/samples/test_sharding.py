from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.samples.dataset import StepSampler, collate
from data.samples.sharding import StepDataset, share


@given(size=st.integers(0, 60), count=st.integers(1, 12))
def test_shares_are_whole_ordered_and_even(size: int, count: int) -> None:
    parts = [list(range(size))[share(size, index, count)] for index in range(count)]
    assert list(itertools.chain(*parts)) == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


class Images:
    """Samples of many sizes, their key in their pixels."""

    def content_size(self, key: tuple[int, int]) -> tuple[int, int]:
        return 20 + 7 * key[0], 90 - 5 * key[0]

    def __getitem__(self, key: tuple[int, int]) -> Any:
        size = self.content_size(key)
        return {
            "image": torch.full((3, *size), key[0], dtype=torch.uint8), "masks": torch.ones(1, *size, dtype=torch.bool),
            "labels": torch.tensor([key[0]]), "weights": torch.ones(1), "points_xy": None, "crowd": None,
            "image_id": key[0], "original_size": size, "crop_origin": (0, 0),
        }  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_shares_of_a_step_are_the_whole_step_s_batch(count: int) -> None:
    images: Any = Images()
    for keys in StepSampler(11, 5, seed=0, steps=4):
        whole = collate([images[key] for key in keys])
        shares = [StepDataset(images, index, count)[keys] for index in range(count)]
        assert torch.equal(torch.cat([one["images"] for one in shares]), whole["images"])
        for name in ("masks", "labels", "image_ids", "content_sizes"):
            joined: Sequence[Any] = [value for one in shares for value in one[name]]  # type: ignore[literal-required]
            for mine, its in zip(joined, whole[name], strict=True):  # type: ignore[literal-required]
                assert torch.equal(mine, its) if isinstance(mine, torch.Tensor) else mine == its
