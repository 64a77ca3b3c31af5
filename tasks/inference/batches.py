"""Images for inference: read once, resized for the network, batched only with images of equal padded size.

An image is padded to its own next multiple of 32 and never to its neighbours' size, so its result doesn't depend
on which batch it is in.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset

from data.samples.dataset import PAD_MULTIPLE, read_ingested
from data.samples.placement import whole
from data.samples.transforms import resize_shape
from data.tables import DataError, Split
from tasks.common.config import InputConfig

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """One image ready for the network, or the reason why it isn't."""

    row: int
    """Its row in the split's images table."""
    original: Tensor | None
    """uint8 RGB [3, H0, W0]"""
    resized: Tensor | None
    """uint8 RGB [3, h, w]"""
    fault: str | None


class ImageBatch(NamedTuple):
    """Images of one padded size."""

    rows: list[int]
    originals: list[Tensor]
    images: Tensor
    """uint8 [N, 3, H, W]"""
    content_sizes: list[tuple[int, int]]


class _Images(Dataset[Loaded]):
    def __init__(self, split: Split, size: InputConfig) -> None:
        self.split, self.size = split, size

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> Loaded:
        try:
            facts = self.split.image(row)
            pixels = read_ingested(self.split, row, (facts["height"], facts["width"]))
        except DataError as error:
            return Loaded(row, None, None, str(error))
        original = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        shape = resize_shape((pixels.shape[0], pixels.shape[1]), *_limits(self.size))
        resized = whole((pixels.shape[0], pixels.shape[1]), shape).image(original)
        return Loaded(row, original, resized, None)


def _limits(size: InputConfig) -> tuple[int, int, bool]:
    return size.short_side, size.max_side, size.enlarge


def padded_size(split: Split, row: int, size: InputConfig) -> tuple[int, int]:
    """(H, W) that image `row` has in a batch."""
    facts = split.image(row)
    shape = resize_shape((facts["height"], facts["width"]), *_limits(size))
    height, width = (-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in shape)
    return height, width


def grouped(split: Split, rows: Sequence[int], size: InputConfig, batch_size: int) -> list[list[int]]:
    """The images `rows` in batches of at most `batch_size` of one padded size, small sizes first."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        groups.setdefault(padded_size(split, row, size), []).append(row)
    return [
        group[at : at + batch_size]
        for _, group in sorted(groups.items())
        for at in range(0, len(group), batch_size)
    ]


def load_batches(
    split: Split, rows: Sequence[int], size: InputConfig, batch_size: int, workers: int
) -> Iterator[tuple[ImageBatch | None, list[Loaded]]]:
    """Batches of the images `rows`, grouped by padded size, each with the images of it that could not be read.

    A batch is None when none of its images could be read.
    """
    return read_batches(split, grouped(split, rows, size, batch_size), size, workers)


def read_batches(
    split: Split, batches: Iterable[list[int]], size: InputConfig, workers: int
) -> Iterator[tuple[ImageBatch | None, list[Loaded]]]:
    """`load_batches` of batches that are asked for one by one, as many ahead as the workers read ahead.

    No worker starts where there is no batch.
    """
    asked: deque[list[int]] = deque()

    def ask(first: list[int], rest: Iterator[list[int]]) -> Iterator[list[int]]:
        for batch in chain([first], rest):
            asked.append(batch)
            yield batch

    rest = iter(batches)
    first = next(rest, None)
    if first is None:
        return
    loader: DataLoader[Any] = DataLoader(
        _Images(split, size),
        batch_sampler=ask(first, rest),
        collate_fn=list,
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
    )
    for loaded in loader:
        shape = padded_size(split, asked.popleft()[0], size)
        failed = [one for one in loaded if one.fault is not None]
        for one in failed:
            log.warning("%s", one.fault)
        rows_read, originals, images, sizes = [], [], [], []
        for one in loaded:
            if one.original is not None and one.resized is not None:
                h, w = one.resized.shape[-2:]
                rows_read.append(one.row)
                originals.append(one.original)
                images.append(pad(one.resized, (0, shape[1] - w, 0, shape[0] - h)))
                sizes.append((int(h), int(w)))
        yield (ImageBatch(rows_read, originals, torch.stack(images), sizes) if images else None), failed
