"""Makes the parts of the pseudo labels that a process is to make: images in the ledger are reused, others computed.

Loader processes read images ahead and the networks draw masks, while threads turn masks into rows.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.masks.rle import BoolArray, IntArray
from data.tables import Split, class_indices
from tasks.common.config import Params
from tasks.common.ordered_threads import ordered_thread_map
from tasks.common.progress import Bar
from tasks.inference.batches import ImageBatch, grouped, read_batches
from tasks.labelling.cache import Found, Keys, Ledger, image_keys
from tasks.labelling.crowded import label_crowd
from tasks.labelling.labeller import Labeller
from tasks.labelling.parts import Part, PointParts
from tasks.labelling.rows import failed_rows, rows_of
from tasks.labelling.types import Clicks, PointMasks

MASK_PIXELS = 1 << 28
"""Pixels of an image's masks that are in memory at once; the clicks of a more crowded image are processed in chunks."""
QUEUE_BYTES = 1 << 30
"""Memory of the masks that wait for the threads."""


class Plan(NamedTuple):
    """A part that isn't in the ledger as a whole."""

    number: int
    keys: Keys
    rows: list[int]
    """Its images, as rows of the weak split's table."""
    found: Found
    """Which of them the ledger has."""
    bounds: IntArray
    """int64 [n + 1]: image i has the ids from bounds[i] to bounds[i + 1]."""
    ids: pa.ChunkedArray
    """Of their points."""


@dataclass
class Window:
    """Parts that are computed together: one of new images, or many with a few new images each."""

    plans: list[Plan] = field(default_factory=list)
    clicks: dict[int, Clicks] = field(default_factory=dict)
    """Of the images to compute, by their row."""
    batches: int = 0
    """Batches of images still to compute."""
    made: dict[int, list[pa.Table]] = field(default_factory=dict)
    """Computed PSEUDO rows of each image, in one or more pieces."""
    failed: set[int] = field(default_factory=set)
    """Images that can't be read."""


class Result(NamedTuple):
    """PSEUDO rows of an image, or of some of its clicks; None for the end of the window."""

    window: Window
    image: int
    table: pa.Table | None


Job = tuple[int, Callable[[], Result]]
"""Bytes that it holds, and the work for a thread."""


class Maker:
    """Fills the ledger.

    Attributes:
        names: the name in the ledger of each part, by its number.
        images: how many images were `computed`, `carried` over and `failed`.
        faults: why images can't be read.
    """

    def __init__(self, params: Params, weak: Split, parts: PointParts, ledger: Ledger) -> None:
        self.params, self.weak, self.parts, self.ledger = params, weak, parts, ledger
        self.class_of = class_indices(weak.categories)
        self.names: dict[int, str] = {}
        self.images: Counter[str] = Counter(computed=0, carried=0, failed=0)
        self.faults: list[str] = []

    def make(self, labeller: Labeller, numbers: Iterable[int], bar: Bar) -> None:
        """Adds the parts `numbers`, which ascend, to the ledger."""
        for window, image, table in ordered_thread_map(
            self._jobs(labeller, numbers, bar), most_bytes=QUEUE_BYTES
        ):
            if table is None:
                self._write(window, bar)
            else:
                window.made.setdefault(image, []).append(table)

    def _jobs(self, labeller: Labeller, numbers: Iterable[int], bar: Bar) -> Iterator[Job]:
        """Jobs that make rows; each window's are followed by one that marks its end."""
        windows: deque[Window] = deque()
        batches = read_batches(
            self.weak,
            self._batches(numbers, windows, bar),
            self.params.input,
            self.params.runtime.workers,
        )
        for batch, unread in batches:
            yield from _ended(windows)  # those with nothing to compute
            window = windows[0]
            for image, fault in unread:
                self.faults.append(fault)
                window.failed.add(image)
                yield 0, partial(_failed_rows, window, image, fault)
            if batch is not None:
                for image, clicks, masks in self._label(labeller, window, batch):
                    size = masks.rough.nbytes + masks.final.nbytes
                    yield size, partial(_rows, window, image, clicks, masks)
            window.batches -= 1
            bar.advance((len(batch.rows) if batch else 0) + len(unread))
            yield from _ended(windows)
        yield from _ended(windows)

    def _label(
        self, labeller: Labeller, window: Window, batch: ImageBatch
    ) -> Iterator[tuple[int, Clicks, PointMasks]]:
        """The masks of each image, whatever else is in the batch; those of a crowded image in several pieces."""
        for image, context in zip(batch.rows, labeller.proposer.encode(batch), strict=True):
            clicks = window.clicks[image]
            tensors = clicks.tensors(self.class_of, labeller.device)
            chunk_size = max(1, MASK_PIXELS // (context.sizes.original[0] * context.sizes.original[1]))
            if len(clicks) <= chunk_size:
                yield image, clicks, labeller.label(context, *tensors)
            else:
                for rows, masks in label_crowd(labeller, context, *tensors, chunk_size):
                    yield image, clicks.take(rows), masks

    def _batches(self, numbers: Iterable[int], windows: deque[Window], bar: Bar) -> Iterator[list[int]]:
        """Batches to compute; their windows are appended to `windows`, in the same order."""
        config = self.params.pseudo
        for window in self._windows(numbers, bar):
            batches = grouped(self.weak, list(window.clicks), self.params.input, config.batch_size)
            window.batches = len(batches)
            windows.append(window)
            yield from batches

    def _windows(self, numbers: Iterable[int], bar: Bar) -> Iterator[Window]:
        """Parts to make; in each window about one part's worth of images or points is to be computed."""
        config = self.params.pseudo
        window, points = Window(), 0
        for part in self.parts.read(numbers):
            keys = image_keys(part, self.weak)
            found = self.ledger.find(keys)
            ids = part.points["point_id"]
            if self.ledger.holds(keys, ids, found):
                self.names[part.number] = self.ledger.name_of(keys, ids)
                self._carry(len(keys), bar)
                continue
            points += _plan(window, part, keys, found)
            if len(window.clicks) >= config.part_images or points >= config.part_points:
                yield window
                window, points = Window(), 0
        if window.plans:
            yield window

    def _carry(self, images: int, bar: Bar) -> None:
        self.images["carried"] += images
        bar.advance(images)

    def _write(self, window: Window, bar: Bar) -> None:
        """Writes the parts of a window."""
        for plan in window.plans:
            tables, failed = self._tables(window, plan)
            self.names[plan.number] = self.ledger.add(plan.keys, failed, tables)
            self._carry(sum(row not in window.made for row in plan.rows), bar)
        self.images["failed"] += len(window.failed)
        self.images["computed"] += len(window.made) - len(window.failed)

    def _tables(self, window: Window, plan: Plan) -> tuple[list[pa.Table], BoolArray]:
        """PSEUDO rows of each image of a part, in the order of its points, and which images can't be read."""
        tables = []
        for n, row in enumerate(plan.rows):
            low, high = plan.bounds[n : n + 2].tolist()
            ids = plan.ids.slice(low, high - low)
            if row in window.made:
                made = pa.concat_tables(window.made[row])
                tables.append(made.take(pc.index_in(ids, value_set=made["point_id"].combine_chunks())))
            else:
                file, first, rows = (int(column[n]) for column in plan.found)
                tables.append(self.ledger.rows(file, first, rows, ids))
        return tables, np.array([row in window.failed for row in plan.rows], dtype=np.bool_)


def _plan(window: Window, part: Part, keys: Keys, found: Found) -> int:
    """Adds a part to a window; returns how many of its points are to be computed."""
    rows = part.rows.tolist()
    window.plans.append(Plan(part.number, keys, rows, found, part.bounds, part.points["point_id"]))
    points = 0
    for n in np.flatnonzero(found.file < 0).tolist():
        window.clicks[rows[n]] = part.clicks(n)
        points += len(window.clicks[rows[n]])
    return points


def _ended(windows: deque[Window]) -> Iterator[Job]:
    """Removes the first windows as far as all their batches are done, with a job that marks the end of each."""
    while windows and windows[0].batches == 0:
        yield 0, partial(Result, windows.popleft(), -1, None)


def _rows(window: Window, image: int, clicks: Clicks, masks: PointMasks) -> Result:
    return Result(window, image, rows_of(clicks, masks))


def _failed_rows(window: Window, image: int, fault: str) -> Result:
    return Result(window, image, failed_rows(window.clicks[image], fault))
