"""Reads the user's images and masks once and writes the tables that every later step reads.

Four splits, each a folder under workspace/dataset: `strong` (masks to train on), `weak` (no masks, but points), `val`,
and `kept_aside` (masks of weak images to measure pseudo masks with; no training step may read them). They are separate,
so that new weak images don't make the teacher stale.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import pyarrow as pa
import pyarrow.compute as pc

from data.annotations.coco.checks import WrongAreas
from data.annotations.coco.file import CocoFile, to_instances
from data.annotations.frames import name_id
from data.annotations.read import read_annotations
from data.errors import SHOWN_FAULTS
from data.images.read import CheckedImage
from data.masks import rle
from data.storage import discard_partials, is_s3, list_files
from data.tables import INSTANCES, Category, DataError, Fault, write_parquet, write_split
from tasks.common.config import IngestConfig, Params
from tasks.common.stage_main import stage_main, write_manifest
from tasks.intake.images import (
    ImageRoot,
    Rejection,
    check_rows,
    images_table,
    rejected_table,
    size_rejection,
    when_reported,
)
from tasks.intake.sources import SourceImages, Sources

log = logging.getLogger(__name__)

ARCHIVES = (".7z", ".rar", ".tar", ".tar.gz", ".tgz", ".zip")
SPLITS = ("strong", "weak", "val", "kept_aside")
SHOWN_REASONS = 3
CVAT_CROWDS = "CVAT's COCO export writes painted masks so; if they are objects, set ingest.crowd: objects"
LABELS = {"strong": "mask", "weak": "point", "val": "mask", "kept_aside": "mask"}


@dataclass
class _Sources:
    """The content of the annotation files, before images are read."""

    files: dict[str, CocoFile | None]
    images: dict[str, list[dict[str, Any]]]
    faults: list[Fault] = field(default_factory=list)
    unsafe: list[Rejection] = field(default_factory=list)
    """Image files whose names no record can hold."""


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/dataset/{strong,weak,val,kept_aside}, and workspace/fetched: what came from S3.

    Raises:
        S3Error: a source in S3 can't be used.
        DataError: every fault of every annotation file, every image in two splits; where `ingest.on_reject` is
            `stop`, every annotation at fault, every image that can't be read or isn't of its record's size.
    """
    config = params.ingest
    for folder in (workspace, workspace / "dataset"):
        discard_partials(folder)
    origin = Sources(config, workspace)
    sources = _read(config, origin)
    categories = _categories(sources)
    if sources.faults and is_s3(config.images):  # before gigabytes are downloaded
        raise DataError(map(origin.renamed, sources.faults))
    root = origin.bring(row["file_name"] for rows in sources.images.values() for row in rows)
    images, rejected = _check_images(sources, root)
    rejected["weak"] += sources.unsafe
    faults = list(dict.fromkeys(one.fault for name in SPLITS for one in rejected[name]))
    if config.on_reject == "stop":
        sources.faults += faults
    faults = [fault for coco in sources.files.values() if coco for fault in coco.rejected] + faults
    instances = {name: _instances(name, sources, images, config) for name in SPLITS}
    for name in ("strong", "val"):
        sources.faults += _without_objects(name, sources, rejected[name], instances[name], config)
    if sources.faults:
        raise DataError(map(origin.renamed, sources.faults))
    for fault in faults[:SHOWN_FAULTS]:
        log.warning("ingest: rejected: %s", when_reported(fault))
    if len(faults) > SHOWN_FAULTS:
        log.warning("ingest: and %d more, all in rejected.parquet", len(faults) - SHOWN_FAULTS)
    origin.publish()
    for name in SPLITS:
        folder = workspace / "dataset" / name
        write_split(folder, images[name], instances[name], categories, origin.image_root().as_posix())
        counts = {
            "images": len(images[name]),
            "instances": len(instances[name]),
            "categories": len(categories),
        }
        _write_rejected(folder, name, sources.files[name], rejected[name], counts)


def _write_rejected(
    folder: Path, name: str, coco: CocoFile | None, rejected: list[Rejection], counts: dict[str, int]
) -> None:
    """rejected.parquet and manifest.json of a split."""
    lost = coco is not None and name != "weak" and rejected
    per_image = Counter(to_instances(coco)["image_id"].to_pylist() if coco is not None and lost else ())
    annotations = coco.rejected if coco is not None else ()
    table = rejected_table(rejected, per_image, annotations)
    write_parquet(table, folder / "rejected.parquet")
    counts |= {
        "rejected": len(rejected),
        "annotations_rejected": len(annotations),
        "instances_left_out": pc.sum(table["annotations"]).as_py() or 0,
    }
    reasons = dict(sorted(Counter(table["reason"].to_pylist()).items()))
    wrong = coco.wrong_areas if coco is not None and name != "weak" else WrongAreas()
    # Only where there are such areas: other manifests don't change.
    areas = {"areas_replaced": {"annotations": wrong.count, "first": wrong.first}} if wrong.count else {}
    write_manifest(folder, "ingest", counts, rejected_because=reasons, **areas)
    more = f", {len(rejected)} images rejected" if rejected else ""
    more += f", {len(annotations)} annotations rejected" if annotations else ""
    log.info("ingest: %s: %d images, %d instances%s", name, counts["images"], counts["instances"], more)


def _instances(
    name: str, sources: _Sources, images: Mapping[str, pa.Table], config: IngestConfig
) -> pa.Table:
    """INSTANCES rows of a split's usable images; none of weak ones."""
    coco = sources.files[name]
    if coco is None or name == "weak":
        return INSTANCES.empty_table()
    table = to_instances(coco)
    if config.crowd == "objects":
        table = _as_objects(table)
    if len(images[name]) < len(sources.images[name]):
        table = table.filter(pc.is_in(table["image_id"], images[name]["image_id"].combine_chunks()))
    return table


def _as_objects(instances: pa.Table) -> pa.Table:
    """INSTANCES rows with `iscrowd` false."""
    at = instances.schema.get_field_index("iscrowd")
    return instances.set_column(
        at, INSTANCES.field("iscrowd"), pa.array([False] * len(instances), pa.bool_())
    )


def _check_images(
    sources: _Sources, root: ImageRoot
) -> tuple[dict[str, pa.Table], dict[str, list[Rejection]]]:
    """IMAGES rows of each split, and the images that can't be used. Images kept aside are weak ones, read once."""
    tables, rejected = {}, {}
    checked: dict[int, CheckedImage] = {}
    for name in ("strong", "weak", "val"):
        checked, rejected[name] = check_rows(f"ingest: {name}", sources.images[name], root)
        tables[name] = images_table(sources.images[name], checked, name, LABELS[name])
        if name == "weak":
            rows, weak = sources.images["kept_aside"], {one.row["id"]: one for one in rejected["weak"]}
            rejected["kept_aside"] = [weak[row["id"]] for row in rows if row["id"] in weak]
            for row in rows:
                found = checked.get(row["id"])
                wrong = size_rejection(row, found, root) if found is not None else None
                if wrong is not None:  # its masks would be in other places
                    rejected["kept_aside"].append(wrong)
                    del checked[row["id"]]
            tables["kept_aside"] = images_table(rows, checked, "kept_aside", LABELS["kept_aside"])
    return tables, rejected


def _without_objects(
    name: str, sources: _Sources, rejected: list[Rejection], instances: pa.Table, config: IngestConfig
) -> list[Fault]:
    """The fault of a split (to train on, or to measure with) that has no object with a mask, and its rejected parts."""
    coco = sources.files[name]
    # Faults of the file, and with `stop` those of its images, are listed already.
    if coco is None or (rejected and config.on_reject == "stop") or _has_object(instances):
        return []
    lost = [*coco.rejected, *(one.fault for one in rejected)]
    crowds, count = len(instances), len(sources.images[name])
    found = f"no object with a mask on {count:,} images"
    step = f"give images with masks in ingest.{name}"
    if lost:
        reasons = Counter(fault.found[:80] for fault in lost)
        listed = "; ".join(f"{reason}: {some:,}" for reason, some in reasons.most_common(SHOWN_REASONS))
        found += f": {len(coco.rejected):,} annotations and {len(rejected):,} images were rejected ({listed})"
        step = "correct what was rejected"
    elif crowds:
        found += f": all {crowds:,} annotations are crowds, or empty"
        step = CVAT_CROWDS
    expected = "one or more to " + ("train on" if name == "strong" else "measure with")
    file = f"{config.annotations}/{getattr(config, name)}"
    return [Fault(file, "annotations", found, expected, step), *map(when_reported, lost)]


def _has_object(instances: pa.Table) -> bool:
    """Whether there is a mask of one or more pixels that isn't a crowd."""
    rows = zip(instances["iscrowd"], instances["rle_counts"], strict=True)
    return any(not crowd.as_py() and rle.runs(counts.as_py())[1::2].any() for crowd, counts in rows)


def _read(config: IngestConfig, origin: Sources) -> _Sources:
    """All annotation files, and all of their faults, so that one run lists them."""
    sources = _Sources({}, {})
    files = SourceImages(origin)
    for name in SPLITS:
        file_name: str | None = getattr(config, name)
        sources.files[name], sources.images[name] = None, []
        if file_name is None:
            continue
        try:
            coco = read_annotations(
                origin.annotations / file_name,
                "auto" if name == "weak" else config.format,
                need_masks=name != "weak",
                images=files,
                folder=getattr(config.folders, name),
                keep_unsized=config.on_reject == "report",
                keep_annotations=False,
                reject=config.on_reject == "report",
            )
        except DataError as error:
            sources.faults += error.faults
            continue
        sources.files[name], sources.images[name] = coco, coco.images
    if config.weak is None and not sources.faults:
        names, sources.unsafe = origin.image_files()
        _warn_of_archives(config)
        sources.images["weak"] = _unlisted(names, sources)
    sources.faults += _overlaps(sources, config)
    return sources


def _warn_of_archives(config: IngestConfig) -> None:
    """Images in archives aren't read."""
    found = [] if is_s3(config.images) else list_files(config.images, ARCHIVES)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        log.warning(
            "ingest: %d archives below %s are not opened (%s%s); unpack them if they hold images",
            len(found), config.images, ", ".join(found[:3]), more,
        )  # fmt: skip


def _unlisted(names: list[str], sources: _Sources) -> list[dict[str, Any]]:
    """Without a file of weak images, all image files that no other file lists are weak.

    The id of such an image is a hash of its path, so that images added later don't change it.
    """
    listed = {row["file_name"] for name in ("strong", "val") for row in sources.images[name]}
    given = {row["file_name"]: row["id"] for row in sources.images["kept_aside"]}
    rows = []
    for path in names:
        if path not in listed:
            rows.append({"id": given.get(path, name_id(path)), "file_name": path})
    return rows


def _overlaps(sources: _Sources, config: IngestConfig) -> list[Fault]:
    """Images in two splits or twice in one, names written in two ways, kept-aside images that aren't weak ones."""
    files = {name: f"{config.annotations}/{getattr(config, name)}" for name in SPLITS}
    faults: list[Fault] = []
    for name, rows in sources.images.items():
        faults += _other_spellings(files[name], rows)
    for name, rows in sources.images.items():
        faults += _doubled_names(files[name], rows)
    faults += _in_two_splits(files, sources.images)
    weak = {row["id"]: row["file_name"] for row in sources.images["weak"]}
    faults += [
        Fault(
            files["kept_aside"],
            f"image {row['id']} ({row['file_name']})",
            "an image that isn't among the weak ones",
            "weak images, with the same id and file_name",
            "list it among the weak images too, or remove it here",
        )
        for row in sources.images["kept_aside"]
        if weak.get(row["id"]) != row["file_name"]
    ]
    return faults


def _other_spellings(file: str, rows: list[dict[str, Any]]) -> list[Fault]:
    return [
        Fault(
            file,
            f"image {row['id']}",
            f"file_name {row['file_name']!r}",
            PurePosixPath(row["file_name"]).as_posix(),
            "write the name without './' and '//', so that it is the same in all files",
        )
        for row in rows
        if PurePosixPath(row["file_name"]).as_posix() != row["file_name"]
    ]


def _doubled_names(file: str, rows: list[dict[str, Any]]) -> list[Fault]:
    step = "give all its annotations one image_id"
    return [
        Fault(file, f"file_name {name!r}", f"{count} images of this name", "one image a file", step)
        for name, count in Counter(row["file_name"] for row in rows).items()
        if count > 1
    ]


def _in_two_splits(files: Mapping[str, str], images: Mapping[str, list[dict[str, Any]]]) -> list[Fault]:
    """By id, and by name."""
    faults: list[Fault] = []
    for key in ("id", "file_name"):
        first: dict[Any, str] = {}
        for name in ("strong", "weak", "val"):
            faults += [
                Fault(
                    files[name],
                    f"image {row['id']} ({row['file_name']})",
                    f"{key} {row[key]!r} in {first[row[key]]} too",
                    "each image in one of strong, weak and val, ids that differ",
                    "leave it in one of the files",
                )
                for row in images[name]
                if first.setdefault(row[key], name) != name
            ]
    return faults


def _categories(sources: _Sources) -> list[Category]:
    """The class table of all files; adds a fault where two files disagree."""
    table: dict[int, tuple[str, str]] = {}
    ids: dict[str, int] = {}
    seen: dict[str, str] = {}
    for coco in sources.files.values():
        for category in coco.categories if coco else []:
            known, file = table.setdefault(category.id, (category.name, coco.path if coco else ""))
            if known != category.name or ids.setdefault(category.name, category.id) != category.id:
                sources.faults.append(
                    Fault(
                        coco.path if coco else "",
                        f"category {category.id}",
                        f"name {category.name!r}",
                        f"the same classes in all files ({file} has {known!r})",
                        "use one category table in all annotation files",
                    )
                )
            # Names in two forms of Unicode, or with a space at the end, are meant to be one class.
            other = seen.setdefault(normalize("NFC", category.name).strip(), category.name)
            if other != category.name and coco:
                found = f"name {category.name!r}, which looks the same as another one, {other!a}"
                record = f"category {category.id}"
                step = "give both one id, or other names"
                sources.faults.append(Fault(coco.path, record, found, "names that differ", step))
    return [Category(id, name) for id, (name, _) in sorted(table.items())]


if __name__ == "__main__":
    stage_main("ingest", run)
