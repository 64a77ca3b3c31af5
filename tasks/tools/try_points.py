"""A trial import of point files into the data set, together with its present ones; writes nothing.

Before the first ingest there are no images to look up: then only the files themselves are read.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data import storage
from data.errors import DataError, Fault
from data.points.folder import PointSet
from data.points.record import PointRecord
from data.remote.fetch import local_copy
from data.tables import REJECTED, Split
from tasks.common.config import PointsConfig
from tasks.common.stage_main import S3_CACHE, WORKSPACE
from tasks.import_points import count_kinds, count_points, count_reasons, files_read, import_files, read_files
from tasks.intake.lost_points import folded, lost_files, lost_records, rows_of_files

UNCHECKED = (
    "not checked before the first ingest: whether the data set has these images and classes, and whether the points "
    "are on their images. Next: run `points2model run --target ingest`"
)
FIRST = 3
"""Records and names of images that are shown of each file before the first ingest."""


class Trial(NamedTuple):
    """The result of a trial import.

    Attributes:
        counts: points, images, further_inside, further_outside, rejected, set_aside and files_rejected of the files by
            themselves; and new, changed, removed, same of the folder's points, if the files were put there (replacing
            files of the same name).
        reasons: numbers of records that aren't imported, by reason.
        files: each file's format and number of records.
        faults: what to correct.
        rejected: table REJECTED of the files.
        doubts: warnings about the coordinates of many points, and about files without a point.
        unchecked: before the first ingest, what can't be checked. Then `counts` has no changes of the folder's points,
            and each of `files` also its points, classes, images and first records.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    files: dict[str, dict[str, Any]]
    faults: list[Fault]
    rejected: pa.Table
    doubts: list[Fault]
    unchecked: str | None = None


def try_points(config: PointsConfig, files: Sequence[str | Path], workspace: Path = WORKSPACE) -> Trial:
    """Imports ``files`` (paths or s3:// addresses of files or folders) as the stage would, without writing.

    Raises:
        S3Error: point files in S3 can't be fetched.
        DataError: files are missing, or none of the files can be read.
    """
    given = [local_copy(str(file), workspace / S3_CACHE) for file in files]
    missing = [Fault(str(file), "file", "no such file or folder", "point files", "correct the path")
               for file in given if not file.exists()]  # fmt: skip
    if missing:
        raise DataError(missing)
    images = workspace / "dataset" / "weak"
    if not images.exists():
        return _unchecked(config, [str(file) for file in given])
    weak = Split.open(images)
    config = config.model_copy(update={"files": str(local_copy(config.files, workspace / S3_CACHE))})
    alone = import_files(config, [str(file) for file in given], weak)
    with tempfile.TemporaryDirectory() as folder:
        links = _linked(config.files, Path(folder))
        before = _by_id(config, weak, folder) if links else {}
        for file in given:
            for name, path in _as_put(file, Path(config.files)).items():
                _link(Path(folder) / name, path)
        after = _by_id(config, weak, folder)
    reasons = count_reasons(alone.rejected)
    counts = {
        **count_points(alone.points),
        **count_kinds(reasons),
        "new": len(after.keys() - before.keys()),
        "changed": sum(row != before[i] for i, row in after.items() if i in before),
        "removed": len(before.keys() - after.keys()),
        "same": sum(row == before[i] for i, row in after.items() if i in before),
    }
    return Trial(counts, reasons, files_read(alone.files), alone.faults, alone.rejected, alone.doubts)


def _unchecked(config: PointsConfig, files: Sequence[str]) -> Trial:
    """What the files contain, and the faults that show without images and classes."""
    found = read_files(config, files, None)[0]
    if found.faults and not found.files:
        raise DataError(found.faults)
    bad = [
        {
            "file": record.source_file, "record": record.source_record, "point_id": record.point_id,
            "image": None if record.image is None else str(record.image),
            "category": None if record.category is None else str(record.category), **record.problem._asdict(),
        }
        for record in found.records
        if record.problem is not None
    ]  # fmt: skip
    rejected = pa.concat_tables([rows_of_files(found.faults), pa.Table.from_pylist(bad, schema=REJECTED)])
    reasons = count_reasons(rejected)
    points = [record for record in found.records if record.problem is None]
    counts = {
        "points": len(points),
        "images": len({record.image for record in points}),
        **count_kinds(reasons),
    }
    lost = lost_files(found.faults) + lost_records(bad, config.on_reject)
    faults = [one.fault for one in folded(lost)]
    return Trial(counts, reasons, _contents(found, points), faults, rejected, found.doubts, UNCHECKED)


def _contents(found: PointSet, points: Sequence[PointRecord]) -> dict[str, dict[str, Any]]:
    files = files_read(found)
    by_file: dict[str, list[PointRecord]] = {}
    for record in points:
        by_file.setdefault(record.source_file, []).append(record)
    for name, facts in files.items():
        if "same_as" not in facts:
            own = by_file.get(name, [])
            images = Counter(str(record.image) for record in own)
            facts |= {
                "points": len(own),
                "classes": dict(Counter("" if r.category is None else str(r.category) for r in own)),
                "images": len(images),
                "first_images": list(images)[:FIRST],
                "first_points": [
                    {"image": r.image, "class": r.category, "x": r.x, "y": r.y, "shares": r.relative}
                    for r in own[:FIRST]
                ],
            }
    return files


def _as_put(file: Path, root: Path) -> dict[str, Path]:
    """The files of a file or folder, by their names in the folder `root` if they were put there."""
    inside = {file.name: file} if file.is_file() else {n: file / n for n in storage.list_files(file)}
    where = root.resolve()
    return {
        path.resolve().relative_to(where).as_posix() if path.resolve().is_relative_to(where) else name: path
        for name, path in inside.items()
    }


def _linked(files: str, folder: Path) -> int:
    """Links all present point files into `folder`, under their names in point ids; returns their number."""
    root = Path(files)
    inside = {root.name: root} if root.is_file() else {}
    if root.is_dir():
        inside = {name: root / name for name in storage.list_files(root)}
    for name, path in inside.items():
        _link(folder / name, path)
    return len(inside)


def _link(link: Path, path: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(path.resolve())


def _by_id(config: PointsConfig, weak: Split, folder: str) -> dict[str, tuple[Any, ...]]:
    """The points of a folder as point_id: (image, class, x, y, further clicks); none if no file can be read."""
    try:
        points = import_files(config, folder, weak).points
    except DataError:
        return {}
    columns = [points[name].to_pylist() for name in ("image_id", "category_id", "x", "y", "further")]
    return dict(zip(points["point_id"].to_pylist(), zip(*columns, strict=True), strict=True))
