"""The points of the weak images in parts. A part becomes one file of the result; a killed run loses at most one.

Parts depend on the data, `pseudo.part_images` and `pseudo.part_points` alone. Points are read as a stream, with one
part in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data.masks.rle import IntArray
from data.tables import POINTS, Split, stream_parquet
from tasks.common.errors import TaskError
from tasks.labelling.types import Clicks

COLUMNS = ("point_id", "image_id", "category_id", "x", "y", "further")
ORDER = ("image_id", "x", "y", "category_id", "point_id")
ROWS_AT_ONCE = 1 << 16


class Part(NamedTuple):
    """Some images and their points."""

    number: int
    rows: IntArray
    """int64 [n]: the images, as rows of the weak split's table, ascending"""
    bounds: IntArray
    """int64 [n + 1]: image i has the points from bounds[i] to bounds[i + 1]"""
    points: pa.Table
    """COLUMNS, sorted by image_id, and within an image as Clicks"""

    def clicks(self, i: int) -> Clicks:
        """A copy of the points of image i of the part."""
        low = int(self.bounds[i])
        mine = self.points.slice(low, int(self.bounds[i + 1]) - low)
        xy = np.stack([mine[name].to_numpy() for name in ("x", "y")], axis=1)
        image_id = mine["image_id"][0].as_py()
        further = mine["further"]
        return Clicks(
            image_id, mine["point_id"].to_pylist(), mine["category_id"].to_numpy().copy(), xy,
            None if further.null_count == len(further) else further.to_pylist(),
        )  # fmt: skip


class PointParts:
    """The parts of points.parquet.

    Attributes:
        points: their number.
        rows: int64 [n], the images that have points, as rows of the weak split's table.
    """

    def __init__(self, path: Path, weak: Split, part_images: int, part_points: int) -> None:
        """Reads the image ids alone.

        Args:
            part_images: most images per part.
            part_points: most points per part; an image with more is a part of its own.

        Raises:
            TaskError: points aren't sorted by image_id, or are on images that `weak` doesn't have.
            DataError: the file is missing or no table of points.
        """
        self.path = path
        image_ids, counts = _points_an_image(path)
        known = weak.images["image_id"].to_numpy()
        unknown = np.setdiff1d(image_ids, known)
        if len(unknown):
            raise TaskError(
                f"{path}: points on images {unknown[:10].tolist()}, which dataset/weak doesn't have; "
                "run `dvc repro import_points`"
            )
        self.rows: IntArray = np.searchsorted(known, image_ids).astype(np.int64)
        self._ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.points = int(self._ends[-1])
        starts = [0]
        while starts[-1] < len(self.rows):
            at = starts[-1]
            full = int(np.searchsorted(self._ends, self._ends[at] + part_points, side="right")) - 1
            starts.append(max(at + 1, min(at + part_images, full, len(self.rows))))
        self._starts = starts if len(starts) > 1 else [0, 0]

    def __len__(self) -> int:
        """The number of parts; without points there is one, empty part."""
        return len(self._starts) - 1

    def images(self, number: int) -> int:
        """The number of images in a part."""
        return self._starts[number + 1] - self._starts[number]

    def read(self, numbers: Iterable[int]) -> Iterator[Part]:
        """The parts `numbers`, which ascend."""
        batches = stream_parquet(self.path, POINTS, COLUMNS, ROWS_AT_ONCE)
        schema = pa.schema([POINTS.field(name) for name in COLUMNS])
        held: list[pa.RecordBatch] = []
        end = 0  # rows read so far
        for number in numbers:
            first, last = self._starts[number], self._starts[number + 1]
            low, high = int(self._ends[first]), int(self._ends[last])
            while end < high:
                held.append(next(batches))
                end += len(held[-1])
                if end <= low:
                    held.clear()
            begin = end - sum(map(len, held))
            points = pa.Table.from_batches(held, schema).slice(low - begin, high - low)
            # Sorting copies: the rows read can be freed.
            points = points.sort_by([(name, "ascending") for name in ORDER])
            held = held[-1:] if end > high else []
            yield Part(number, self.rows[first:last], self._ends[first : last + 1] - low, points)


def _points_an_image(path: Path) -> tuple[IntArray, IntArray]:
    """Ids of the images that have points, ascending, and each one's number of points."""
    ids: list[IntArray] = []
    counts: list[IntArray] = []
    for batch in stream_parquet(path, POINTS, ["image_id"], ROWS_AT_ONCE):
        column = batch["image_id"].to_numpy()
        if (np.diff(column) < 0).any() or (ids and len(column) and column[0] < ids[-1][-1]):
            raise TaskError(
                f"{path}: points that aren't in the order of their image_id; run `dvc repro -f import_points`"
            )
        found, times = np.unique(column, return_counts=True)
        if ids and len(found) and found[0] == ids[-1][-1]:
            counts[-1][-1] += times[0]
            found, times = found[1:], times[1:]
        if len(found):
            ids.append(found)
            counts.append(times.astype(np.int64))
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *ids]), np.concatenate([nothing, *counts])
