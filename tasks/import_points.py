"""Reads the point files, finds each point's image and class, and writes points.parquet and rejected.parquet.

Where reviewers made decisions (docs/decisions.md), points.parquet is what they made of the points, and
decisions.parquet says what became of each decision.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data.decisions.store import AUDIT, Decisions, read_decisions
from data.errors import SHOWN_FAULTS
from data.points.classes import load_classes
from data.points.folder import PointSet, read_folder
from data.points.merge import resolve
from data.points.record import SET_ASIDE, Options
from data.remote.fetch import local_copy
from data.storage import atomic_dir, join
from data.tables import DataError, Fault, Split, write_parquet
from tasks.common.config import Params, PointsConfig
from tasks.common.stage_main import S3_CACHE, stage_main, write_json, write_manifest
from tasks.intake.decisions import FILE as DECISIONS_FILE
from tasks.intake.decisions import Reviewed, apply_decisions, unsettled
from tasks.intake.elsewhere import images_elsewhere
from tasks.intake.lost_points import BAD_FILE, Lost, folded, lost_files, lost_records, rows_of_files
from tasks.review.audit import read_sample, tally

log = logging.getLogger(__name__)

WORDS = {
    "superseded": "another file has an export of the same annotation that is as new or newer",
    "same_record": "another file has the same point",
    "duplicate_annotator": "another annotator clicked on the same object",
}
"""Of reasons to leave a record out, where the name alone doesn't say it."""


class Imported(NamedTuple):
    """The points of some point files, and what can't be used of them.

    Attributes:
        points: table POINTS.
        rejected: table REJECTED, with the records that need no correction (such as boxes).
        files: as read, for the manifest.
        lost: files that can't be read, and records that need a correction.
        doubts: what is probably wrong with the coordinates of many points, which are imported nevertheless; and files
            that have no point but shapes or predictions.
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
    """Reads point files and finds the image and class of each point; writes nothing.

    Raises:
        DataError: the file of `points.classes` has faults; or no file can be read.
    """
    found, classes_file = read_files(config, paths, weak)
    classes = None if classes_file is None else load_classes(classes_file, weak.categories)
    if found.faults and not found.files:
        raise DataError(found.faults)
    doubts = list(found.doubts)
    points, rejected = resolve(
        found.records,
        weak,
        holders=found.holders,
        classes=classes,
        radius=config.duplicate_radius or 0.0,
        elsewhere=images_elsewhere(weak),
        scale=config.factors,
        doubts=doubts,
    )
    lost = lost_files(found.faults) + lost_records(rejected.to_pylist(), config.on_reject)
    return Imported(points, pa.concat_tables([rows_of_files(found.faults), rejected]), found, lost, doubts)


def read_files(
    config: PointsConfig, paths: str | Sequence[str], weak: Split | None
) -> tuple[PointSet, Path | None]:
    """The records of point files, unchanged; and the file of `points.classes`, which isn't a point file."""
    columns = None if config.columns is None else {str(field): name for field, name in config.columns.items()}
    options = Options(columns, config.frame_name)
    classes_file = None if config.classes is None else join(config.files, config.classes)
    return read_folder(paths, config.format, options, classes_file, weak), classes_file


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/points: points.parquet, rejected.parquet, manifest.json; decisions.parquet, if there are some;
    audit.json, if there is a random sample.

    Raises:
        S3Error: point files in S3 can't be downloaded.
        DataError: files of decisions have faults, all of them are listed.
        DataError: no point file can be read. With `points.on_reject: stop`, also: a file can't be read, or a point has
            no image, no class, is outside its image or there twice. All are listed, those of one cause as one fault.
    """
    config = params.points
    weak = Split.open(workspace / "dataset" / "weak")
    folder = Path(params.review.decisions)
    decisions = read_decisions(folder)
    sample = read_sample(folder)
    files = local_copy(config.files, workspace / S3_CACHE)
    imported = import_files(config.model_copy(update={"files": str(files)}), str(files), weak)
    faults = imported.faults
    if faults and config.on_reject == "stop":
        raise DataError([*imported.doubts, *faults])
    for doubt in imported.doubts:
        log.warning("import_points: %s", doubt)
    for fault in faults[:SHOWN_FAULTS]:
        log.warning("import_points: rejected: %s", fault)
    if len(faults) > SHOWN_FAULTS:
        log.warning("import_points: and %d more, all in rejected.parquet", len(faults) - SHOWN_FAULTS)
    reviewed = review(decisions, imported.points, weak)
    if reviewed is not None:
        imported = imported._replace(points=reviewed.points)
        _log_review(folder, decisions, reviewed)
    audit = None if sample is None else tally(sample, decisions.decisions)
    _write(imported, reviewed, audit, len(weak), workspace)


def review(decisions: Decisions, points: pa.Table, weak: Split) -> Reviewed | None:
    """The points with the decisions of reviewers; None if there are no decisions."""
    if not decisions.decisions:
        return None
    return apply_decisions(decisions.decisions, points, weak, images_elsewhere(weak))


def _log_review(folder: Path, decisions: Decisions, reviewed: Reviewed) -> None:
    for fault in decisions.torn:
        log.warning("import_points: not a decision: %s", fault)
    left = [fault for faults in unsettled(reviewed.decisions, str(folder)).values() for fault in faults]
    for fault in left[:SHOWN_FAULTS]:
        log.warning("import_points: decision not honoured: %s", fault)
    if len(left) > SHOWN_FAULTS:
        log.warning("import_points: and %d more, all in %s", len(left) - SHOWN_FAULTS, DECISIONS_FILE)
    found = reviewed.summary
    log.info(
        "import_points: %d decisions of %s: %s",
        found["decisions"],
        ", ".join(found["reviewers"]),
        ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in found["states"].items()),
    )


def _write(
    imported: Imported,
    reviewed: Reviewed | None,
    audit: dict[str, Any] | None,
    weak_images: int,
    workspace: Path,
) -> None:
    reasons = count_reasons(imported.rejected)
    counts = {
        **count_points(imported.points),
        "weak_images": weak_images,
        **count_kinds(reasons),
    }
    files = files_read(imported.files)
    with atomic_dir(workspace / "points") as folder:
        write_parquet(imported.points, folder / "points.parquet")
        write_parquet(imported.rejected, folder / "rejected.parquet")
        more = {}
        if reviewed is not None:
            write_parquet(reviewed.decisions, folder / DECISIONS_FILE)
            more = {"review": reviewed.summary}
        if audit is not None:
            write_json(folder / AUDIT, audit)
        write_manifest(folder, "import_points", counts, rejected_because=reasons, files=files, **more)
    for file in imported.files.files:
        if file.same_as is not None:
            log.info("import_points: %s: ignored, has the same content as %s", file.name, file.same_as)
        elif (
            not file.records and file.format != "yolo_pose"
        ):  # its data.yaml and labels of empty images have none
            log.warning("import_points: %s: has no records", file.name)
    log.info(
        "import_points: %d points%s on %d of %d weak images, %d rejected%s%s",
        counts["points"],
        in_words(counts),
        counts["images"],
        weak_images,
        counts["rejected"],
        f", {counts['set_aside']} left out ({_why_left_out(reasons)})" if counts["set_aside"] else "",
        f"; whole files not read: {counts['files_rejected']}" if counts["files_rejected"] else "",
    )


def _why_left_out(reasons: Mapping[str, int]) -> str:
    """`superseded by a newer or other file 55, ...`, the most frequent first."""
    found = sorted((-n, reason) for reason, n in reasons.items() if reason in SET_ASIDE)
    return ", ".join(f"{WORDS.get(reason, reason.replace('_', ' '))} {-n}" for n, reason in found)


def count_points(points: pa.Table) -> dict[str, int]:
    """Points, their images, and further clicks inside their objects and outside."""
    inside = [click["inside"] for clicks in points["further"].drop_null().to_pylist() for click in clicks]
    return {
        "points": len(points),
        "images": len(points["image_id"].unique()),
        "further_inside": sum(inside),
        "further_outside": len(inside) - sum(inside),
    }


def in_words(counts: Mapping[str, int]) -> str:
    """` with 5 further clicks inside their objects and 2 outside`, or nothing."""
    inside, outside = (counts.get(f"further_{side}", 0) for side in ("inside", "outside"))
    return (
        f" with {inside} further clicks inside their objects and {outside} outside"
        if inside + outside
        else ""
    )


def files_read(files: PointSet) -> dict[str, dict[str, Any]]:
    """Format and number of records of each file, or the file with the same content."""
    return {
        file.name: {"format": file.format, "records": file.records}
        if file.same_as is None
        else {"same_as": file.same_as}
        for file in files.files
    }


def count_kinds(reasons: Mapping[str, int]) -> dict[str, int]:
    """Records that need a correction, records that need none (such as boxes), and files that can't be read."""
    kinds = {"rejected": 0, "set_aside": 0, "files_rejected": 0}
    for reason, count in reasons.items():
        kind = "set_aside" if reason in SET_ASIDE else "files_rejected" if reason == BAD_FILE else "rejected"
        kinds[kind] += count
    return kinds


def count_reasons(rejected: pa.Table) -> dict[str, int]:
    """Number of rows for each reason."""
    return dict(sorted(Counter(rejected["reason"].to_pylist()).items()))


if __name__ == "__main__":
    stage_main("import_points", run)
