"""Makes the parts of the pseudo labels that a process is to make: images in the ledger are reused, others computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.masks.rle import BoolArray, IntArray
from data.tables import Split
from tasks.common.config import Params
from tasks.common.progress import Bar
from tasks.labelling.cache import Found, Keys, Ledger, image_keys
from tasks.labelling.compute import Window
from tasks.labelling.parts import Part, PointParts


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
class PlannedWindow(Window):
    """Parts that are computed together: one of new images, or many with a few new images each."""

    plans: list[Plan] = field(default_factory=list)


Compute = Callable[[Iterator[PlannedWindow], Bar], Iterator[PlannedWindow]]
"""Returns the windows, in any order, once the rows of all their images are made; the bar counts the images."""


class Maker:
    """Fills the ledger.

    Attributes:
        names: the name in the ledger of each part, by its number.
        images: how many images were `computed`, `carried` over and `failed`.
        faults: why images can't be read.
    """

    def __init__(self, params: Params, weak: Split, parts: PointParts, ledger: Ledger) -> None:
        self.params, self.weak, self.parts, self.ledger = params, weak, parts, ledger
        self.names: dict[int, str] = {}
        self.images: Counter[str] = Counter(computed=0, carried=0, failed=0)
        self.faults: list[str] = []

    def make(self, compute: Compute, numbers: Iterable[int], bar: Bar) -> None:
        """Adds the parts `numbers`, which ascend, to the ledger."""
        for window in compute(self._windows(numbers, bar), bar):
            self._write(window, bar)

    def _windows(self, numbers: Iterable[int], bar: Bar) -> Iterator[PlannedWindow]:
        """Parts to make; in each window about one part's worth of images or points is to be computed."""
        config = self.params.pseudo
        window, points = PlannedWindow(), 0
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
                window, points = PlannedWindow(), 0
        if window.plans:
            yield window

    def _carry(self, images: int, bar: Bar) -> None:
        self.images["carried"] += images
        bar.advance(images)

    def _write(self, window: PlannedWindow, bar: Bar) -> None:
        """Writes the parts of a window."""
        for plan in window.plans:
            tables, failed = self._tables(window, plan)
            self.names[plan.number] = self.ledger.add(plan.keys, failed, tables)
            self._carry(sum(row not in window.made for row in plan.rows), bar)
        self.faults += window.failed.values()
        self.images["failed"] += len(window.failed)
        self.images["computed"] += len(window.made) - len(window.failed)

    def _tables(self, window: PlannedWindow, plan: Plan) -> tuple[list[pa.Table], BoolArray]:
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


def _plan(window: PlannedWindow, part: Part, keys: Keys, found: Found) -> int:
    """Adds a part to a window; returns how many of its points are to be computed."""
    rows = part.rows.tolist()
    window.plans.append(Plan(part.number, keys, rows, found, part.bounds, part.points["point_id"]))
    points = 0
    for n in np.flatnonzero(found.file < 0).tolist():
        window.clicks[rows[n]] = part.clicks(n)
        points += len(window.clicks[rows[n]])
    return points
