"""Images for inference: read, resized, batched with images of equal padded size.

An image is padded to its own next multiple of 32, never to its neighbours' size, so its result doesn't depend on its
batch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.images.read import read_ingested
from data.images.resize import pad_to, padded_shape, resize, resize_shape
from data.tables import DataError, Split
from models.masks.resize import Sizes
from tasks.common.config import InputConfig
from tasks.common.ordered_threads import ordered_thread_map

log = logging.getLogger(__name__)


class InputImage(NamedTuple):
    """An image and its resized copy for the network."""

    original: Tensor
    """uint8 RGB [3, H0, W0]"""
    resized: Tensor
    """uint8 RGB [3, h, w]"""


class UnreadImage(NamedTuple):
    """An image that can't be read."""

    row: int
    """in the split's images table"""
    fault: str


class ImageBatch(NamedTuple):
    """N images of one padded size."""

    rows: list[int]
    """in the split's images table"""
    originals: list[Tensor]
    """uint8 RGB [3, H0, W0] each"""
    images: Tensor
    """uint8 RGB [N, 3, H, W], padded at the bottom and right"""
    content_sizes: list[tuple[int, int]]
    """(h, w) of each image without its padding"""

    def sizes(self, n: int) -> Sizes:
        """Of image `n` of the batch."""
        (_, _, height, width), (_, h0, w0) = self.images.shape, self.originals[n].shape
        return Sizes((height, width), self.content_sizes[n], (h0, w0))


def resized_shape(original: tuple[int, int], size: InputConfig) -> tuple[int, int]:
    """(h, w) of an image (H0, W0) after resizing."""
    return resize_shape(original, size.short_side, size.max_side, size.enlarge)


def prepare(pixels: npt.NDArray[np.uint8], size: InputConfig, *, like_reference: bool = False) -> InputImage:
    """Resizes an image uint8 RGB [H0, W0, 3]; `like_reference` by Pillow's bilinear filter."""
    original = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    height, width = shape = resized_shape((pixels.shape[0], pixels.shape[1]), size)
    if like_reference:
        picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        return InputImage(original, torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    return InputImage(original, resize(original, shape))


def stack(rows: list[int], images: Sequence[InputImage]) -> ImageBatch:
    """A batch of images of one padded size, which are these rows of a split."""
    sizes = [(int(one.resized.shape[1]), int(one.resized.shape[2])) for one in images]
    padded = torch.stack([pad_to(one.resized, padded_shape(sizes[0])) for one in images])
    return ImageBatch(rows, [one.original for one in images], padded, sizes)


def padded_size(split: Split, row: int, size: InputConfig) -> tuple[int, int]:
    """(H, W) that image `row` has in a batch."""
    image = split.image(row)
    return padded_shape(resized_shape((image["height"], image["width"]), size))


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
) -> Iterator[tuple[ImageBatch | None, list[UnreadImage]]]:
    """`read_batches` of the images `rows`, grouped by padded size."""
    return read_batches(split, grouped(split, rows, size, batch_size), size, workers)


class _Images(Dataset[tuple[int, InputImage] | UnreadImage]):
    def __init__(self, split: Split, size: InputConfig) -> None:
        self.split, self.size = split, size

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> tuple[int, InputImage] | UnreadImage:
        try:
            return row, prepare(read_ingested(self.split, row), self.size)
        except DataError as error:
            return UnreadImage(row, str(error))

    def load(self, rows: Sequence[int]) -> list[tuple[int, InputImage] | UnreadImage]:
        return [self[row] for row in rows]

    def bytes_of(self, rows: Sequence[int]) -> int:
        """Memory of these images, originals and resized."""
        sizes = self.split.images.select(["height", "width"]).take(rows).to_pylist()
        shapes = [(one["height"], one["width"]) for one in sizes]
        return 3 * sum(h * w + math.prod(resized_shape((h, w), self.size)) for h, w in shapes)


def read_batches(
    split: Split, batches: Iterable[list[int]], size: InputConfig, workers: int, threads: int = 0
) -> Iterator[tuple[ImageBatch | None, list[UnreadImage]]]:
    """Each batch of rows, and those of its images that can't be read; the batch is None if none can.

    `batches` is iterated only as far as the workers read ahead. Without a batch no worker starts.

    Args:
        workers: processes that read ahead; 0 reads in this one.
        threads: read ahead in place of the workers, for few batches: a process takes seconds to start.
    """
    rest = iter(batches)
    first = next(rest, None)
    if first is None:
        return
    images, numbers = _Images(split, size), chain([first], rest)
    loader: Iterable[list[tuple[int, InputImage] | UnreadImage]]
    if threads:
        loader = ordered_thread_map(
            ((images.bytes_of(rows), partial(images.load, rows)) for rows in numbers), threads
        )
    else:
        loader = DataLoader(
            images,
            batch_sampler=numbers,
            collate_fn=list,
            num_workers=workers,
            multiprocessing_context="forkserver" if workers else None,
        )
    for loaded in loader:
        unread = [one for one in loaded if isinstance(one, UnreadImage)]
        for one in unread:
            log.warning("%s", one.fault)
        read = [one for one in loaded if not isinstance(one, UnreadImage)]
        batch = stack([row for row, _ in read], [image for _, image in read]) if read else None
        yield batch, unread
