"""What `points2model predict` reads: images given by name, and the clicks on them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pyarrow as pa

from data.images.read import image_size, read_image
from data.points import read_points
from data.points.merge import resolve
from data.points.record import SET_ASIDE, PointRecord
from data.storage import IMAGE_SUFFIXES, is_s3, list_files, split_s3
from data.tables import IMAGES, INSTANCES, Category, DataError, Fault, Split
from tasks.common.config import InputConfig
from tasks.common.errors import TaskError
from tasks.common.progress import Bar
from tasks.inference.batches import ImageBatch, prepare, stack
from tasks.tools.pictures import FOLDER, LIST, SHEET

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]
FETCHED = ".fetched"
NEXT_STEP = "name a readable image file, or leave it out"


class Given(NamedTuple):
    """An image: its file, and its name in results: the path as given, or its address in S3."""

    path: Path
    name: str


def expanded(images: Sequence[str], out: Path) -> list[Given]:
    """The files that names stand for: a folder for the images in it and in its subfolders, a pattern such as
    `photos/*.jpg` for the files that match it, s3://BUCKET/PREFIX for the images below it, in the order of their names.
    Hidden files are left out, and pictures that an earlier run has drawn into `out`. Images from S3 are downloaded into
    `out`/.fetched, where a later run finds them.

    Raises:
        TaskError: a folder has no image, a pattern no match, or can't be used; all are listed.
        DataError: S3 can't be used, or an object can't be downloaded.
    """
    found: list[Given] = []
    faults: list[str] = []
    sheet, pictures = (out / SHEET).resolve(), (out / FOLDER).resolve()
    has_pictures = (pictures / LIST).is_file()

    def is_drawn(path: Path) -> bool:
        resolved = path.resolve()
        return resolved == sheet or (has_pictures and resolved.parent == pictures)

    for name in map(str, images):
        if is_s3(name):
            found += _fetched(name, out / FETCHED)
            continue
        path = Path(name)
        if path.is_dir():
            inside = [path / name for name in list_files(path, IMAGE_SUFFIXES)]
            expected = f"files {', '.join(IMAGE_SUFFIXES)} in the folder"
        elif not path.exists() and any(sign in path.as_posix() for sign in "*?["):
            try:
                matches = Path(path.anchor).glob(path.relative_to(path.anchor).as_posix())
                inside = sorted(one for one in matches if one.is_file() and not _is_hidden(one, path))
            except ValueError as error:
                faults.append(
                    f"{path}: can't be used as a pattern ({error}); expected one such as photos/**/*.jpg"
                )
                continue
            expected = "one or more files that match"
        else:
            found.append(Given(path, path.as_posix()))
            continue
        inside = [one for one in inside if not is_drawn(one)]
        if not inside:
            faults.append(f"{path}: found no image; expected {expected}")
        found += [Given(one, one.as_posix()) for one in inside]
    if faults:
        raise TaskError("\n".join(faults))
    return found


def _fetched(source: str, cache: Path) -> list[Given]:
    """The images below an address in S3, downloaded."""
    from data.remote.fetch import fetch, open_remote  # boto3 takes a second

    remote = open_remote(source)
    names = sorted(name for name in remote.objects if Path(name).suffix.lower() in IMAGE_SUFFIXES)
    if not names:
        raise TaskError(
            f"{source}: found no image; expected objects {', '.join(IMAGE_SUFFIXES)} below this prefix"
        )
    into = cache / "trees" / quote("/".join(split_s3(source)), safe="")
    with Bar("download", len(names), "image") as bar:
        refused = fetch(remote, names, cache, into, lambda _: bar.advance(1))
    if refused:
        step = "fix or remove the object, then run again"
        raise DataError(
            Fault(source, name, one.found, one.expected, step) for name, one in sorted(refused.items())
        )
    return [Given(into / name, f"s3://{remote.bucket}/{remote.objects[name].key}") for name in names]


def _is_hidden(path: Path, pattern: Path) -> bool:
    """Whether a match has a hidden part that the pattern doesn't name."""
    return any(part.startswith(".") for part in set(path.parts) - set(pattern.parts))


def split_of(images: Sequence[Given], categories: Sequence[Category]) -> Split:
    """The images as a split in memory: ids 1, 2, ... in this order, names as given.

    Raises:
        DataError: images are missing, unreadable or given twice; all are listed.
    """
    faults: list[Fault] = []
    rows = []
    for name, count in Counter(image.name for image in images).items():
        if count > 1:
            faults.append(
                Fault(name, "image", f"it {count} times", "each image once", "leave the others out")
            )
    for n, (path, name) in enumerate(images, start=1):
        try:
            with _next_step():
                width, height = image_size(path)
        except DataError as error:
            faults += error.faults
            continue
        facts = {"image_id": n, "file_name": name, "uri": name, "width": width, "height": height}
        rows.append(dict.fromkeys(IMAGES.names) | facts | {"status": "ok"})
    if faults:
        raise DataError(faults)
    table = pa.Table.from_pylist(rows, schema=IMAGES)
    return Split(Path(), table, INSTANCES.empty_table(), sorted(categories), ".")


def load(path: Path, size: InputConfig, *, like_reference: bool) -> ImageBatch:
    """An image alone in a batch, so that its result depends on no other; resized as by `prepare`.

    Raises:
        DataError: missing or unreadable.
    """
    with _next_step():
        pixels = read_image(path)
    return stack([0], [prepare(pixels, size, like_reference=like_reference)])


@contextmanager
def _next_step() -> Iterator[None]:
    """Replaces the next step of an image's faults: here it has no records that could be removed."""
    try:
        yield
    except DataError as error:
        raise DataError([replace(fault, next_step=NEXT_STEP) for fault in error.faults]) from None


def points_by_image(file: Path, split: Split) -> dict[int, Rows]:
    """The clicks on each image, in the file's order: point_id, record, category_id, x, y (pixels of the image).

    Clicks on other images are counted in the log and left out. A name in the file matches the image whose path ends
    with it.

    Raises:
        DataError: the file can't be read, or clicks have no position, no class, are outside their image or duplicates;
            all are listed.
        TaskError: no click is on any of the images.
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
        log.info("predict: %d of %d points are on other images", elsewhere, len(records))
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
