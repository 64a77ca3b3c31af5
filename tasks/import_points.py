"""Reads the point files, looks up each point's image and class, and writes the points and the rejects."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data.errors import SHOWN_FAULTS
from data.points.classes import load_classes
from data.points.elsewhere import Elsewhere
from data.points.folder import PointSet, read_folder
from data.points.merge import resolve
from data.points.record import SET_ASIDE, Options
from data.remote.fetch import local_copy
from data.storage import atomic_dir, join
from data.tables import IMAGES, INSTANCES, DataError, Fault, Split, read_arrow, write_parquet
from tasks.common.config import Params, PointsConfig
from tasks.common.stage_main import S3_CACHE, stage_main, write_manifest
from tasks.intake.lost_points import BAD_FILE, Lost, folded, lost_files, lost_records, rows_of_files
from tasks.intake.rejected import rejected_images

log = logging.getLogger(__name__)


class Imported(NamedTuple):
    """The points of some point files, and what can't be used of them.

    Attributes:
        points: table POINTS.
        rejected: table REJECTED, with the records that need no correction (such as boxes).
        files: as read, for the manifest.
        lost: files that can't be read, and records that need a correction.
        doubts: what is probably wrong with the coordinates of many points; they are imported nevertheless.
    """

    points: pa.Table
    rejected: pa.Table
    files: PointSet
    lost: list[Lost]
    doubts: list[Fault]

    @property
    def faults(self) -> list[Fault]:
        """Of `lost`, many of one cause as one."""
        return [one.fault for one in folded(self.lost)]


def import_files(config: PointsConfig, paths: str | Sequence[str], weak: Split) -> Imported:
    """Reads point files and looks up their points; writes nothing.

    Raises:
        DataError: the file of `points.classes` is at fault; or no file could be read.
    """
    found, classes_file = read_files(config, paths, weak)
    classes = None if classes_file is None else load_classes(classes_file, weak.categories)
    if found.faults and not found.files:
        raise DataError(found.faults)
    doubts: list[Fault] = []
    points, rejected = resolve(
        found.records,
        weak,
        holders=found.holders,
        classes=classes,
        radius=config.duplicate_radius or 0.0,
        elsewhere=_elsewhere(weak),
        scale=config.factors,
        doubts=doubts,
    )
    lost = lost_files(found.faults) + lost_records(rejected.to_pylist(), config.on_reject)
    return Imported(points, pa.concat_tables([rows_of_files(found.faults), rejected]), found, lost, doubts)


def _elsewhere(weak: Split) -> Elsewhere:
    """Images that take no clicks: weak ones that were rejected, and those of the splits beside ``weak``'s folder."""
    splits = {}
    for name in ("strong", "val"):
        folder = weak.root.parent / name
        if (folder / "images.arrow").is_file():
            images = read_arrow(folder / "images.arrow", IMAGES)
            splits[name] = Split(folder, images, INSTANCES.empty_table(), weak.categories, weak.image_root)
    return Elsewhere(rejected_images(weak), splits)


def read_files(
    config: PointsConfig, paths: str | Sequence[str], weak: Split | None
) -> tuple[PointSet, Path | None]:
    """The records of point files as these say them, and the file of `points.classes`, which isn't one of them."""
    columns = None if config.columns is None else {str(field): name for field, name in config.columns.items()}
    options = Options(columns, config.frame_name)
    classes_file = None if config.classes is None else join(config.files, config.classes)
    return read_folder(paths, config.format, options, classes_file, weak), classes_file


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/points: points.parquet, rejected.parquet, manifest.json.

    Raises:
        S3Error: point files in S3 can't be had.
        DataError: no point file can be read; or, where `points.on_reject` is `stop`, any file can't, or any point has
            no image, no class, lies outside its image or is there twice. All of them are listed, those that one
            unknown image or class explains in one fault, and nothing is written.
    """
    config = params.points
    weak = Split.open(workspace / "dataset" / "weak")
    files = local_copy(config.files, workspace / S3_CACHE)
    imported = import_files(config.model_copy(update={"files": str(files)}), str(files), weak)
    points, rejected, faults = imported.points, imported.rejected, imported.faults
    if faults and config.on_reject == "stop":
        raise DataError([*imported.doubts, *faults])
    for doubt in imported.doubts:
        log.warning("import_points: %s", doubt)
    for fault in faults[:SHOWN_FAULTS]:
        log.warning("import_points: rejected: %s", fault)
    if len(faults) > SHOWN_FAULTS:
        log.warning("import_points: and %d more, all in rejected.parquet", len(faults) - SHOWN_FAULTS)
    reasons = count_reasons(rejected)
    counts = {
        "points": len(points),
        "images": len(points["image_id"].unique()),
        "weak_images": len(weak),
        **count_kinds(reasons),
    }
    with atomic_dir(workspace / "points") as folder:
        write_parquet(points, folder / "points.parquet")
        write_parquet(rejected, folder / "rejected.parquet")
        write_manifest(
            folder, "import_points", counts, rejected_because=reasons, files=told_files(imported.files)
        )
    for file in imported.files.files:
        if file.same_as is not None:
            log.info("import_points: %s: the content of %s, which counts", file.name, file.same_as)
        elif not file.records:
            log.warning("import_points: %s: no record in it", file.name)
    log.info(
        "import_points: %d points on %d of %d weak images, %d rejected%s%s",
        counts["points"],
        counts["images"],
        len(weak),
        counts["rejected"],
        f", {counts['set_aside']} set aside" if counts["set_aside"] else "",
        f"; whole files not read: {counts['files_rejected']}" if counts["files_rejected"] else "",
    )


def told_files(files: PointSet) -> dict[str, dict[str, Any]]:
    """Each file's format and number of records, or whose content it has."""
    return {
        file.name: {"format": file.format, "records": file.records}
        if file.same_as is None
        else {"same_as": file.same_as}
        for file in files.files
    }


def count_kinds(reasons: Mapping[str, int]) -> dict[str, int]:
    """Records rejected and set aside, and whole files that couldn't be read."""
    kinds = {"rejected": 0, "set_aside": 0, "files_rejected": 0}
    for reason, count in reasons.items():
        kind = "set_aside" if reason in SET_ASIDE else "files_rejected" if reason == BAD_FILE else "rejected"
        kinds[kind] += count
    return kinds


def count_reasons(rejected: pa.Table) -> dict[str, int]:
    """How many rows there are of each reason."""
    return dict(sorted(Counter(rejected["reason"].to_pylist()).items()))


if __name__ == "__main__":
    stage_main("import_points", run)
