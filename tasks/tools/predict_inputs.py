"""What `points2model predict` reads: images given by name, and the clicks on them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from torch import Tensor

from data.images.read import image_size, read_image
from data.points import read_points
from data.points.merge import resolve
from data.points.record import SET_ASIDE, PointRecord
from data.tables import IMAGES, INSTANCES, Category, DataError, Fault, Split
from tasks.common.config import InputConfig
from tasks.common.errors import TaskError
from tasks.inference.batches import prepare, stack

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]
NEXT_STEP = "name an image file that is there and whole, or leave it out"


class Ready(NamedTuple):
    """An image for the network, alone, so that no neighbour can change its result."""

    original: Tensor
    """uint8 RGB [3, H0, W0]"""
    padded: Tensor
    """uint8 RGB [1, 3, H, W]"""
    content_size: tuple[int, int]
    """(h, w) of the image in it, at the top left"""

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W)"""
        return self.padded.shape[2], self.padded.shape[3]

    @property
    def original_size(self) -> tuple[int, int]:
        """(H0, W0)"""
        return self.original.shape[1], self.original.shape[2]


def split_of(images: Sequence[Path], categories: Sequence[Category]) -> Split:
    """The images as a split in memory: ids 1, 2, ... in the order given, names as given.

    Raises:
        DataError: images that are missing or unreadable, or given twice; all of them.
    """
    faults: list[Fault] = []
    rows = []
    for name, count in Counter(image.as_posix() for image in images).items():
        if count > 1:
            faults.append(
                Fault(name, "image", f"it {count} times", "each image once", "leave the others out")
            )
    for n, path in enumerate(images, start=1):
        try:
            with _told_for_predict():
                width, height = image_size(path)
        except DataError as error:
            faults += error.faults
            continue
        name = path.as_posix()
        facts = {"image_id": n, "file_name": name, "uri": name, "width": width, "height": height}
        rows.append(dict.fromkeys(IMAGES.names) | facts | {"status": "ok"})
    if faults:
        raise DataError(faults)
    table = pa.Table.from_pylist(rows, schema=IMAGES)
    return Split(Path(), table, INSTANCES.empty_table(), sorted(categories), ".")


def load(path: Path, size: InputConfig, *, like_reference: bool) -> Ready:
    """Reads, resizes and pads an image; as the reference does, by Pillow's bilinear filter, if so asked.

    Raises:
        DataError: missing or unreadable.
    """
    with _told_for_predict():
        pixels = read_image(path)
    batch = stack([0], [prepare(pixels, size, like_reference=like_reference)])
    return Ready(batch.originals[0], batch.images, batch.content_sizes[0])


@contextmanager
def _told_for_predict() -> Iterator[None]:
    """Faults of images come with what helps here: there are no records that could be removed."""
    try:
        yield
    except DataError as error:
        raise DataError([replace(fault, next_step=NEXT_STEP) for fault in error.faults]) from None


def points_by_image(file: Path, split: Split) -> dict[int, Rows]:
    """The clicks on each image, in the file's order: point_id, record, category_id, x, y (pixels of the image).

    Clicks on other images are counted in the log and left out. A name in the file stands for the image whose path
    ends with it.

    Raises:
        DataError: the file can't be read, or clicks have no place, no class, or lie outside their image or twice at
            the same place; all of them.
        TaskError: no click lies on any of the images.
    """
    names = split.images["file_name"].to_pylist()
    records = [_with_whole_name(record, names) for record in read_points(file, images=split)]
    points, rejected = resolve(records, split)
    faults, elsewhere = [], 0
    for row in rejected.to_pylist():
        if row["reason"] == "unknown_image" and row["image"] is not None:
            elsewhere += 1
        elif row["reason"] not in SET_ASIDE:
            found = f"{row['found']} ({row['reason']}) on image {row['image']}"
            faults.append(
                Fault(row["file"], row["record"], found, row["expected"], "correct or remove the record")
            )
    if faults:
        raise DataError(faults)
    if elsewhere:
        log.info("predict: %d of %d points lie on other images", elsewhere, len(records))
    if not len(points):
        known = ", ".join(names[:5])
        raise TaskError(
            f"{file}: found no point on an image given ({known}), of {len(records)} records; correct one of them"
        )
    order = {record.point_id: n for n, record in enumerate(records)}
    by_image: dict[int, Rows] = {image_id: [] for image_id in split.images["image_id"].to_pylist()}
    for row in sorted(points.to_pylist(), key=lambda row: order[row["point_id"]]):
        by_image[row["image_id"]].append(row)
    return by_image


def _with_whole_name(record: PointRecord, names: Sequence[str]) -> PointRecord:
    if not isinstance(record.image, str) or record.image in names:
        return record
    ends = [name for name in names if name.endswith("/" + record.image)]
    return record._replace(image=ends[0]) if len(ends) == 1 else record
