from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from data.tables import IMAGES, INSTANCES, Category, Split, write_split
from tasks.common.config import InputConfig
from tasks.inference.batches import load_batches, padded_size, prepare, stack

SIZE = InputConfig(short_side=32, max_side=64, enlarge=True, tile=None)
SHAPES = [(40, 40), (40, 80), (40, 40), (200, 40), (40, 41)]  # height, width


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Five images of several shapes; each is filled with 10 x its row."""
    rows = []
    for i, (height, width) in enumerate(SHAPES):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((height, width, 3), 10 * i, np.uint8))
        name = f"{i}.png"
        rows.append((i, name, name, width, height, "", "weak", "point", "ok"))
    columns = {name: list(values) for name, values in zip(IMAGES.names, zip(*rows, strict=True), strict=True)}
    images = pa.table(columns, schema=IMAGES)
    write_split(tmp_path / "split", images, INSTANCES.empty_table(), [Category(1, "a")], str(tmp_path))
    return Split.open(tmp_path / "split")


@pytest.mark.parametrize(("row", "expected"), [(0, (32, 32)), (1, (32, 64)), (3, (64, 32)), (4, (32, 64))])
def test_padded_size(split: Split, row: int, expected: tuple[int, int]) -> None:
    assert padded_size(split, row, SIZE) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_every_image_once_and_only_with_equals(split: Split, batch_size: int, workers: int) -> None:
    seen = []
    for batch, failed in load_batches(split, range(5), SIZE, batch_size, workers):
        assert batch is not None and not failed and len(batch.rows) <= batch_size
        for n, row in enumerate(batch.rows):
            assert tuple(batch.images.shape[2:]) == padded_size(split, row, SIZE)
            h, w = batch.content_sizes[n]
            assert (batch.images[n, :, :h, :w] == 10 * row).all()
            assert not batch.images[n, :, h:].any() and not batch.images[n, :, :, w:].any()
            assert tuple(batch.originals[n].shape) == (3, *SHAPES[row])
            assert batch.images.dtype == torch.uint8
            seen.append(row)
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_each_image_of_a_batch_has_its_own_sizes() -> None:
    size = InputConfig(short_side=40, max_side=100, enlarge=True, tile=None)
    shapes = [(80, 90), (80, 96)]
    batch = stack([3, 5], [prepare(np.zeros((*shape, 3), np.uint8), size) for shape in shapes])
    assert [batch.sizes(n) for n in range(2)] == [
        ((64, 64), (40, 45), (80, 90)), ((64, 64), (40, 48), (80, 96)),
    ]  # fmt: skip


def test_what_cannot_be_read_comes_with_its_reason(split: Split) -> None:
    split.image_path(1).unlink()
    cv2.imwrite(str(split.image_path(2)), np.zeros((7, 7, 3), np.uint8))
    failed = [one for _, bad in load_batches(split, range(5), SIZE, 2, 0) for one in bad]
    reasons = {one.row: one.fault for one in failed}
    assert reasons.keys() == {1, 2}
    assert "no such file" in reasons[1]
    assert "image 2: found 7 x 7 pixels; expected 40 x 40" in reasons[2]


def test_a_batch_of_unreadable_images_is_none(split: Split) -> None:
    split.image_path(3).unlink()
    assert [batch for batch, _ in load_batches(split, [3], SIZE, 2, 0)] == [None]
