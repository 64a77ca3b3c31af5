"""Tries point files against the data set, beside those that are there; writes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data import storage
from data.errors import DataError, Fault
from data.fetch import local_copy
from data.points.record import SET_ASIDE
from data.tables import Split
from tasks.config import PointsConfig
from tasks.import_points import count_reasons, import_files, told_files
from tasks.step import S3_CACHE, WORKSPACE


class Trial(NamedTuple):
    """What an import of the files would do.

    Attributes:
        counts: points, images, rejected and set_aside of the files by themselves; and new, changed, removed, same of
            the folder's points, if the files were put there (a file of the same name is replaced).
        reasons: records that aren't points, by reason.
        files: each file's format and records.
        faults: what asks for a correction.
        rejected: table REJECTED of the files.
    """

    counts: dict[str, int]
    reasons: dict[str, int]
    files: dict[str, dict[str, Any]]
    faults: list[Fault]
    rejected: pa.Table


def try_points(config: PointsConfig, files: Sequence[Path], workspace: Path = WORKSPACE) -> Trial:
    """Imports ``files`` as the stage would, without writing.

    Raises:
        S3Error: point files in S3 can't be had.
        DataError: no weak split yet (run the stage `ingest`), or none of the files can be read.
    """
    weak = Split.open(workspace / "dataset" / "weak")
    config = config.model_copy(update={"files": str(local_copy(config.files, workspace / S3_CACHE))})
    alone = import_files(config, [str(file) for file in files], weak)
    with tempfile.TemporaryDirectory() as folder:
        links = _linked(config.files, Path(folder))
        before = _by_id(config, weak, folder) if links else {}
        for file in files:
            inside = {file.name: file} if file.is_file() else {n: file / n for n in storage.list_files(file)}
            for name, path in inside.items():
                _link(Path(folder) / name, path)
        after = _by_id(config, weak, folder)
    reasons = count_reasons(alone.rejected)
    counts = {
        "points": len(alone.points),
        "images": len(alone.points["image_id"].unique()),
        "rejected": sum(count for reason, count in reasons.items() if reason not in SET_ASIDE),
        "set_aside": sum(count for reason, count in reasons.items() if reason in SET_ASIDE),
        "new": len(after.keys() - before.keys()),
        "changed": sum(row != before[i] for i, row in after.items() if i in before),
        "removed": len(before.keys() - after.keys()),
        "same": sum(row == before[i] for i, row in after.items() if i in before),
    }
    return Trial(counts, reasons, told_files(alone.files), alone.faults, alone.rejected)


def _linked(files: str, folder: Path) -> int:
    """Links to all point files that are there, under the names that they have in ids; how many."""
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
    """Each point of a folder as point_id: (image, class, x, y); none where no file can be read."""
    try:
        points = import_files(config, folder, weak).points
    except DataError:
        return {}
    columns = [points[name].to_pylist() for name in ("image_id", "category_id", "x", "y")]
    return dict(zip(points["point_id"].to_pylist(), zip(*columns, strict=True), strict=True))
