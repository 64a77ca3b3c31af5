"""Computes pseudo labels of images: processes read ahead, networks draw masks, threads turn them into rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import pyarrow as pa

from data.tables import Split, class_indices
from tasks.common.config import Params
from tasks.common.ordered_threads import ordered_thread_map
from tasks.common.progress import Bar
from tasks.inference.batches import ImageBatch, grouped, read_batches
from tasks.labelling.crowded import label_crowd
from tasks.labelling.labeller import GatedRefiner, Labeller
from tasks.labelling.rows import failed_rows, rows_of
from tasks.labelling.types import Clicks, PointMasks

MASK_PIXELS = 1 << 28
"""Pixels of an image's masks that are in memory at once; the clicks of a more crowded image are processed in chunks."""
QUEUE_BYTES = 1 << 30
"""Memory of the masks that wait for the threads."""


@dataclass
class Window:
    """Images that are computed together."""

    clicks: dict[int, Clicks] = field(default_factory=dict)
    """Of the images to compute, by their row in the split."""
    batches: int = 0
    """Batches of images still to compute."""
    made: dict[int, list[pa.Table]] = field(default_factory=dict)
    """Computed PSEUDO rows of each image, in one or more pieces."""
    failed: dict[int, str] = field(default_factory=dict)
    """Images that can't be read, and why."""


AnyWindow = TypeVar("AnyWindow", bound=Window)


class _Result(NamedTuple, Generic[AnyWindow]):
    """PSEUDO rows of an image, or of some of its clicks; None for the end of the window."""

    window: AnyWindow
    image: int
    table: pa.Table | None


_Job = tuple[int, Callable[[], _Result[AnyWindow]]]
"""Bytes that it holds, and the work for a thread."""


class Computation:
    """Computes windows of one split's images in this process.

    Args:
        threads: threads that read images ahead, in place of `runtime.workers` processes; see `read_batches`.
    """

    def __init__(self, params: Params, labeller: Labeller, split: Split, threads: int = 0) -> None:
        self.params, self.labeller, self.split, self.threads = params, labeller, split, threads
        self.class_of = class_indices(split.categories)

    def run(self, windows: Iterator[AnyWindow], bar: Bar) -> Iterator[AnyWindow]:
        """Each window, in order, once the rows of all its images are made."""
        for window, image, table in ordered_thread_map(self._jobs(windows, bar), most_bytes=QUEUE_BYTES):
            if table is None:
                yield window
            else:
                window.made.setdefault(image, []).append(table)

    def _jobs(self, windows: Iterator[AnyWindow], bar: Bar) -> Iterator[_Job[AnyWindow]]:
        """Jobs that make rows; each window's are followed by one that marks its end."""
        begun: deque[AnyWindow] = deque()
        batches = read_batches(
            self.split,
            self._batches(windows, begun),
            self.params.input,
            self.params.runtime.workers,
            self.threads,
        )
        for batch, unread in batches:
            yield from _ended(begun)  # those with nothing to compute
            window = begun[0]
            for image, fault in unread:
                window.failed[image] = fault
                yield 0, partial(_failed_rows, window, image, fault)
            if batch is not None:
                for image, clicks, masks in self._label(window, batch):
                    size = masks.rough.nbytes + masks.final.nbytes
                    yield size, partial(_rows, window, image, clicks, masks, self.labeller.refiner)
            window.batches -= 1
            bar.advance((len(batch.rows) if batch else 0) + len(unread))
            yield from _ended(begun)
        yield from _ended(begun)

    def _label(self, window: Window, batch: ImageBatch) -> Iterator[tuple[int, Clicks, PointMasks]]:
        """The masks of each image, whatever else is in the batch; those of a crowded image in several pieces."""
        labeller = self.labeller
        for image, context in zip(batch.rows, labeller.proposer.encode(batch), strict=True):
            clicks = window.clicks[image]
            tensors = clicks.tensors(self.class_of, labeller.device)
            further = clicks.further_tensors(labeller.device)
            height, width = context.sizes.original
            chunk_size = max(1, MASK_PIXELS // (height * width * labeller.masks_a_click))
            if len(clicks) <= chunk_size:
                yield image, clicks, labeller.label(context, *tensors, further)
            else:
                for rows, masks in label_crowd(labeller, context, *tensors, chunk_size, further):
                    yield image, clicks.take(rows), masks

    def _batches(self, windows: Iterator[AnyWindow], begun: deque[AnyWindow]) -> Iterator[list[int]]:
        """Batches to compute; their windows are appended to `begun`, in the same order."""
        for window in windows:
            batches = grouped(
                self.split, list(window.clicks), self.params.input, self.params.pseudo.batch_size
            )
            window.batches = len(batches)
            begun.append(window)
            yield from batches


def _ended(begun: deque[AnyWindow]) -> Iterator[_Job[AnyWindow]]:
    """Removes the first windows as far as all their batches are done, with a job that marks the end of each."""
    while begun and begun[0].batches == 0:
        yield 0, partial(_Result, begun.popleft(), -1, None)


def _rows(
    window: AnyWindow, image: int, clicks: Clicks, masks: PointMasks, refiner: GatedRefiner
) -> _Result[AnyWindow]:
    return _Result(window, image, rows_of(clicks, masks, refiner))


def _failed_rows(window: AnyWindow, image: int, fault: str) -> _Result[AnyWindow]:
    return _Result(window, image, failed_rows(window.clicks[image], fault))
