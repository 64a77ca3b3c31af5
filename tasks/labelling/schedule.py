"""Makes the parts of the pseudo labels that a process has to make: what the ledger has is taken over, else computed.

Loader processes read images ahead, the network answers, threads turn masks into rows meanwhile.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.masks.rle import BoolArray, IntArray
from data.tables import Split
from tasks.common.config import Params
from tasks.common.progress import Bar
from tasks.inference.batches import ImageBatch, UnreadImage, grouped, read_batches
from tasks.labelling.cache import Found, Keys, Ledger, image_keys
from tasks.labelling.labeller import Labeller
from tasks.labelling.parts import Clicks, Part, PointParts
from tasks.labelling.rows import failed_rows, rows_of

ENCODERS = 2
"""Threads that encode masks."""
WAITING_PIXELS = 1 << 29
"""Pixels of the masks that may wait for them."""


class Waiting(NamedTuple):
    """Masks that are being encoded."""

    rows: Future[pa.Table]
    pixels: int


class Plan(NamedTuple):
    """A part that isn't in the ledger as it is to be."""

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
    """Parts that are computed together: one of new images, or many that have a few."""

    plans: list[Plan] = field(default_factory=list)
    clicks: dict[int, Clicks] = field(default_factory=dict)
    """Of the images to compute, by their row."""
    batches: int = 0
    """That are yet to come."""
    made: dict[int, list[Future[pa.Table]]] = field(default_factory=dict)
    """Rows of images, some in several pieces."""
    failed: set[int] = field(default_factory=set)


class Maker:
    """Fills the ledger.

    Attributes:
        names: of each part that was made or found, by its number.
        images: how many were `computed`, `carried` over and `failed`.
        faults: why images could not be read.
    """

    def __init__(self, params: Params, weak: Split, parts: PointParts, ledger: Ledger) -> None:
        self.params, self.weak, self.parts, self.ledger = params, weak, parts, ledger
        self.names: dict[int, str] = {}
        self.images: Counter[str] = Counter(computed=0, carried=0, failed=0)
        self.faults: list[str] = []

    def make(self, labeller: Labeller, numbers: Iterable[int], bar: Bar) -> None:
        """Has the parts `numbers`, which ascend, in the ledger."""
        windows: deque[Window] = deque()
        with ThreadPoolExecutor(ENCODERS, "encoder") as encoders:
            waiting: deque[Waiting] = deque()
            batches = read_batches(
                self.weak,
                self._batches(numbers, windows, bar),
                self.params.input,
                self.params.runtime.workers,
            )
            for batch, unread in batches:
                self._finish(windows, bar)  # those that had nothing to compute
                window = windows[0]
                self._fail(window, unread, encoders)
                if batch is not None:
                    self._label(window, batch, labeller, encoders, waiting)
                window.batches -= 1
                bar.advance((len(batch.rows) if batch else 0) + len(unread))
                self._finish(windows, bar)
            self._finish(windows, bar)

    def _batches(self, numbers: Iterable[int], windows: deque[Window], bar: Bar) -> Iterator[list[int]]:
        """Batches to compute; their windows are put into `windows`, in the same order."""
        config = self.params.pseudo
        for window in self._windows(numbers, bar):
            batches = grouped(self.weak, list(window.clicks), self.params.input, config.batch_size)
            window.batches = len(batches)
            windows.append(window)
            yield from batches

    def _windows(self, numbers: Iterable[int], bar: Bar) -> Iterator[Window]:
        """Parts to make, so many at a time that a part's worth of images or points is to be computed."""
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
            points += self._plan(window, part, keys, found)
            if len(window.clicks) >= config.part_images or points >= config.part_points:
                yield window
                window, points = Window(), 0
        if window.plans:
            yield window

    @staticmethod
    def _plan(window: Window, part: Part, keys: Keys, found: Found) -> int:
        """Adds a part to a window; returns how many of its points are to be computed."""
        rows = part.rows.tolist()
        window.plans.append(Plan(part.number, keys, rows, found, part.bounds, part.points["point_id"]))
        points = 0
        for n in np.flatnonzero(found.file < 0).tolist():
            window.clicks[rows[n]] = part.clicks(n)
            points += len(window.clicks[rows[n]])
        return points

    def _carry(self, images: int, bar: Bar) -> None:
        self.images["carried"] += images
        bar.advance(images)

    def _fail(self, window: Window, unread: list[UnreadImage], encoders: ThreadPoolExecutor) -> None:
        for one in unread:
            self.faults.append(one.fault)
            window.failed.add(one.row)
            window.made[one.row] = [encoders.submit(failed_rows, window.clicks[one.row], one.fault)]

    def _label(
        self,
        window: Window,
        batch: ImageBatch,
        labeller: Labeller,
        encoders: ThreadPoolExecutor,
        waiting: deque[Waiting],
    ) -> None:
        for row, answer in labeller.label(batch, [window.clicks[row] for row in batch.rows]):
            pixels = answer.rough.numel()
            while waiting and (
                waiting[0].rows.done() or sum(one.pixels for one in waiting) + pixels > WAITING_PIXELS
            ):
                waiting.popleft().rows.result()
            rows = encoders.submit(rows_of, answer)
            window.made.setdefault(row, []).append(rows)
            waiting.append(Waiting(rows, pixels))

    def _finish(self, windows: deque[Window], bar: Bar) -> None:
        """Writes the parts of the first windows, as far as nothing of them is left to compute."""
        while windows and windows[0].batches == 0:
            window = windows.popleft()
            for plan in window.plans:
                tables, failed = self._rows(window, plan)
                self.names[plan.number] = self.ledger.add(plan.keys, failed, tables)
                self._carry(sum(row not in window.made for row in plan.rows), bar)
            self.images["failed"] += len(window.failed)
            self.images["computed"] += len(window.made) - len(window.failed)

    def _rows(self, window: Window, plan: Plan) -> tuple[list[pa.Table], BoolArray]:
        """Rows of each image of a part, in the order of its points, and which could not be read."""
        tables = []
        for n, row in enumerate(plan.rows):
            low, high = plan.bounds[n : n + 2].tolist()
            ids = plan.ids.slice(low, high - low)
            if row in window.made:
                made = pa.concat_tables([piece.result() for piece in window.made[row]])
                tables.append(made.take(pc.index_in(ids, value_set=made["point_id"].combine_chunks())))
            else:
                file, first, rows = (int(column[n]) for column in plan.found)
                tables.append(self.ledger.rows(file, first, rows, ids))
        return tables, np.array([row in window.failed for row in plan.rows], dtype=np.bool_)
