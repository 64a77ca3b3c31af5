"""The objects to review: the pseudo masks of a project, as columns; their run-length codes stay in their files.

N objects, in the order of their images; those of an image lie side by side.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.decisions.record import Decision
from data.masks.rle import BoolArray, IntArray
from data.points.lookup import Images
from data.tables import POINTS, PSEUDO, Fault, Split, read_parquet, stream_parquet
from tasks.common.errors import TaskError
from tasks.intake.decisions import added_ids
from tasks.labelling.judge import DRAWN_BY

COLUMNS = (
    "point_id", "image_id", "category_id", "status", "reason", "score", "iou_rough_refined", "bbox_xywh", "area",
    "contains_point",
)  # fmt: skip
STATUSES = ("ok", "rough", "empty", "failed")
ROWS_AT_ONCE = 1 << 16
MOST_BYTES = 256 << 20
"""Of run-length codes that are kept in memory."""
MOST_OPEN = 256
"""Files that are held open, so that they can still be read when a run has removed them."""

Float32 = NDArray[np.float32]


class Objects:
    """All pseudo masks of a project.

    Attributes:
        weak: the split.
        added: ids of points that reviewers added.
        ids: of the points, N.
        image: int64 [N], rows of the split's images.
        category: int64 [N], the data set's ids.
        status: int64 [N], indices of STATUSES.
        proposer: int64 [N], indices of `proposers`, -1 where it isn't recorded.
        score: float32 [N], the predicted IoU; NaN without a mask.
        agreement: float32 [N], IoU of rough and refined mask; NaN where there is one mask.
        box: float32 [N, 4], x, y, width, height in pixels; zeros without a mask.
        area: float32 [N], pixels; 0 without a mask.
        misses_click: bool [N], a mask without its click.
        xy: float32 [N, 2], the click; NaN if its point is gone.
    """

    def __init__(self, workspace: Path) -> None:
        """
        Raises:
            TaskError: there are no pseudo masks, or they are of other images or classes than the data set has now.
            DataError: a table is missing or of another format.
        """
        self.weak = Split.open(workspace / "dataset" / "weak")
        self._points = read_parquet(workspace / "points" / "points.parquet", POINTS)
        self.added = added_ids(self._points)
        files = sorted((workspace / "pseudo").glob("part-*.parquet"))
        if not files:
            step = "points2model run"
            where = str(workspace / "pseudo")
            raise TaskError(str(Fault(where, "files", "no pseudo masks", "part-*.parquet", step)))
        opened = _open(files)
        table, part, row = _read(files, opened)
        check_current(table, self.weak, workspace / "pseudo")
        row_of = self.weak.images["image_id"].to_numpy()
        image = np.searchsorted(row_of, table["image_id"].to_numpy())
        order = np.argsort(image, kind="stable")
        if (np.diff(order) != 1).any():
            table, part, row, image = table.take(pa.array(order)), part[order], row[order], image[order]
        self.image: IntArray = image.astype(np.int64)
        rows = np.arange(len(self.weak))
        self._begin = np.searchsorted(image, rows, side="left")
        self._end = np.searchsorted(image, rows, side="right")
        self.ids: list[str] = table["point_id"].to_pylist()
        self.category: IntArray = table["category_id"].to_numpy().astype(np.int64)
        self.status: IntArray = (
            pc.index_in(table["status"], pa.array(STATUSES)).fill_null(len(STATUSES) - 1).to_numpy()
        ).astype(np.int64)
        self._reason = table["reason"]
        self.proposers, self.proposer = _proposers(table["reason"])
        self.score = _floats(table["score"])
        self.agreement = _floats(table["iou_rough_refined"])
        self.box: Float32 = _boxes(table["bbox_xywh"])
        self.area: Float32 = np.nan_to_num(_floats(table["area"]))
        self.score[self.area == 0] = np.nan
        self.misses_click: BoolArray = ~(
            table["contains_point"].fill_null(True).to_numpy(zero_copy_only=False).astype(np.bool_)
        )
        self._point = pc.index_in(table["point_id"], self._points["point_id"].combine_chunks())
        at = self._point.fill_null(-1).to_numpy()
        self._point = at
        known = at >= 0
        self.xy: Float32 = np.full((len(at), 2), np.nan, np.float32)
        for k, name in enumerate(("x", "y")):
            self.xy[known, k] = self._points[name].to_numpy()[at[known]]
        self._codes = _Codes(files, opened, part, row)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each id."""
        return {name: n for n, name in enumerate(self.ids)}

    @cached_property
    def names(self) -> Images:
        """Of the images, to look them up."""
        return Images(self.weak)

    @cached_property
    def image_row(self) -> dict[int, int]:
        """The row of each image id."""
        return {image_id: n for n, image_id in enumerate(self.weak.images["image_id"].to_pylist())}

    def of_image(self, image: int) -> range:
        """The rows of the objects of an image, by its row."""
        return range(int(self._begin[image]), int(self._end[image]))

    def reason(self, row: int) -> str | None:
        """Why it has no mask, or a rough one, without the proposer's name."""
        found: str | None = self._reason[row].as_py()
        if found is None:
            return None
        return found.partition(DRAWN_BY)[0].removesuffix("; ") or None

    def further(self, row: int) -> list[dict[str, Any]]:
        """Its further clicks: x, y, inside."""
        at = int(self._point[row])
        return [] if at < 0 else self._points["further"][at].as_py() or []

    def has_clicks(self, row: int, decision: Decision) -> bool:
        """Whether its clicks are those of a decision, main one and further ones, so that its mask came of them."""
        wanted = [(*(decision.point or ()), True), *sorted(decision.further or ())]
        further = sorted((one["x"], one["y"], one["inside"]) for one in self.further(row))
        here = [(*self.xy[row].tolist(), True), *further]
        return len(here) == len(wanted) and bool(
            (np.array(here, np.float32) == np.array(wanted, np.float32)).all()
        )

    def masks(self, rows: Sequence[int]) -> list[bytes | None]:
        """The run-length codes of the masks that are learnt: refined, or rough where there is no refined one."""
        return self._codes.take(rows)


def check_current(pseudo: pa.Table, weak: Split, where: Path) -> None:
    """
    Args:
        pseudo: with columns image_id and category_id.
        where: it is from.

    Raises:
        TaskError: it has images or classes that the split doesn't have.
    """
    known = {
        "image_id": weak.images["image_id"].combine_chunks(),
        "category_id": pa.array([one.id for one in weak.categories], pa.int64()),
    }
    for name, values in known.items():
        ids = pc.unique(pseudo[name].cast(pa.int64()))
        gone = ids.filter(pc.invert(pc.is_in(ids, values)))
        if len(gone):
            found = f"{len(gone):,} that the data set doesn't have, such as {gone[0]}"
            expected = "pseudo masks of the present data set: ingest has run since they were made"
            raise TaskError(str(Fault(str(where), name, found, expected, "points2model run")))


def _open(files: Sequence[Path]) -> list[pa.NativeFile | None]:
    """Each file, or None beyond `MOST_OPEN`."""
    try:
        opened = [pa.OSFile(str(path)) for path in files[:MOST_OPEN]]
    except OSError as error:  # a run has begun
        raise TaskError(
            f"{files[0].parent}: {error}; points2model run makes the pseudo masks again"
        ) from None
    return [*opened, *[None] * (len(files) - len(opened))]


def _read(
    files: Sequence[Path], opened: Sequence[pa.NativeFile | None]
) -> tuple[pa.Table, IntArray, IntArray]:
    """COLUMNS of all parts, and of each row its part and its place in it."""
    schema = pa.schema([PSEUDO.field(name) for name in COLUMNS])
    batches, sizes = [], []
    for path, file in zip(files, opened, strict=True):
        of_part = list(stream_parquet(path, PSEUDO, COLUMNS, ROWS_AT_ONCE, file))
        batches += of_part
        sizes.append(sum(map(len, of_part)))
    part = np.repeat(np.arange(len(files)), sizes)
    starts = np.cumsum(sizes) - sizes
    table = pa.Table.from_batches(batches, schema).combine_chunks()
    return table, part, np.arange(len(part)) - np.repeat(starts, sizes)


def _floats(column: pa.ChunkedArray) -> Float32:
    """float32 [N], NaN for null; a copy."""
    return np.array(column.fill_null(np.nan).to_numpy(), np.float32)


def _boxes(column: pa.ChunkedArray) -> Float32:
    boxes = np.zeros((len(column), 4), np.float32)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    flat = pc.list_flatten(column.drop_null()).to_numpy()
    boxes[valid] = flat.reshape(-1, 4)
    return boxes


def _proposers(reason: pa.ChunkedArray) -> tuple[list[str], IntArray]:
    """The names of proposers that are recorded, and for each row the index of its own or -1."""
    found = pc.extract_regex(reason, rf"(?:^|; ){DRAWN_BY}(?P<name>[^;]+)$")
    codes = pc.struct_field(found, "name").combine_chunks().dictionary_encode()
    if isinstance(codes, pa.ChunkedArray):
        codes = codes.combine_chunks()
    names = codes.dictionary.to_pylist()
    index = codes.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    by_name = np.argsort(names) if names else np.zeros(0, np.int64)
    place = np.empty(len(names) + 1, np.int64)
    place[by_name] = np.arange(len(names))
    place[-1] = -1
    return [names[n] for n in by_name], place[index]


class _Codes:
    """Run-length codes by row, read a file at a time; the latest `MOST_BYTES` of them are kept."""

    def __init__(
        self, files: Sequence[Path], opened: Sequence[pa.NativeFile | None], part: IntArray, row: IntArray
    ) -> None:
        self._files, self._opened, self._part, self._row = files, opened, part, row
        self._held: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, rows: Sequence[int]) -> list[bytes | None]:
        return [self._of(int(self._part[row]))[int(self._row[row])].as_py() for row in rows]

    def _of(self, part: int) -> pa.ChunkedArray:
        with self._lock:
            if part not in self._held:
                names = ("refined_rle", "rough_rle")
                file = self._opened[part]
                batches = stream_parquet(self._files[part], PSEUDO, names, ROWS_AT_ONCE, file)
                self._held[part] = pa.chunked_array(
                    [pc.coalesce(*(batch[name] for name in names)) for batch in batches], pa.binary()
                )
            self._held.move_to_end(part)
            while len(self._held) > 1 and sum(one.nbytes for one in self._held.values()) > MOST_BYTES:
                self._held.popitem(last=False)
            return self._held[part]
