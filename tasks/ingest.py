"""Reads the user's images and masks once and writes the tables that every later step reads.

Four splits, each a folder under workspace/dataset: `strong` (masks to train on), `weak` (no masks, but points), `val`,
and `kept_aside` (masks of weak images to measure pseudo masks with; no training step may read them). They are separate,
so that new weak images don't make the teacher stale.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.annotations.coco.checks import WrongAreas
from data.annotations.coco.file import CocoFile, to_instances
from data.errors import SHOWN_FAULTS
from data.images.read import CheckedImage
from data.masks import rle
from data.storage import discard_partials, is_s3
from data.tables import INSTANCES, DataError, Fault, write_parquet, write_split
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
from tasks.intake.labels import SPLITS, Labels, read_labels
from tasks.intake.sources import Sources

log = logging.getLogger(__name__)

SHOWN_REASONS = 3
CVAT_CROWDS = "CVAT's COCO export writes painted masks so; if they are objects, set ingest.crowd: objects"
LABELS = {"strong": "mask", "weak": "point", "val": "mask", "kept_aside": "mask"}


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
    labels = read_labels(config, origin)
    records = [fault for coco in labels.files.values() if coco is not None for fault in coco.rejected]
    if config.on_reject == "stop":
        labels.faults += records
    if labels.faults and is_s3(config.images):  # before gigabytes are downloaded
        raise DataError(map(origin.renamed, labels.faults))
    root = origin.bring(row["file_name"] for rows in labels.images.values() for row in rows)
    root = replace(root, problems={**root.problems, **labels.ambiguous})
    images, rejected = _check_images(labels, root)
    rejected["weak"] += labels.unsafe
    faults = list(dict.fromkeys(one.fault for name in SPLITS for one in rejected[name]))
    if config.on_reject == "stop":
        labels.faults += faults
    faults = records + faults
    instances = {name: _instances(name, labels, images, config) for name in SPLITS}
    for name in ("strong", "val") if config.on_reject == "report" or not records else ():
        labels.faults += _without_objects(name, labels, rejected[name], instances[name], config)
    if labels.faults:
        raise DataError(map(origin.renamed, labels.faults))
    for fault in faults[:SHOWN_FAULTS]:
        log.warning("ingest: rejected: %s", when_reported(fault))
    if len(faults) > SHOWN_FAULTS:
        log.warning("ingest: and %d more, all in rejected.parquet", len(faults) - SHOWN_FAULTS)
    origin.publish()
    for name in SPLITS:
        folder = workspace / "dataset" / name
        write_split(folder, images[name], instances[name], labels.categories, origin.image_root().as_posix())
        counts = {
            "images": len(images[name]),
            "instances": len(instances[name]),
            "categories": len(labels.categories),
        }
        _write_rejected(
            folder, name, labels.files[name], rejected[name], counts, _share(name, labels, config)
        )


def _write_rejected(
    folder: Path,
    name: str,
    coco: CocoFile | None,
    rejected: list[Rejection],
    counts: dict[str, int],
    share: Mapping[str, Any],
) -> None:
    """rejected.parquet and manifest.json of a split; `share` are more facts of the manifest."""
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
    write_manifest(folder, "ingest", counts, rejected_because=reasons, **areas, **share)
    more = f", {len(rejected)} images rejected" if rejected else ""
    more += f", {len(annotations)} annotations rejected" if annotations else ""
    log.info("ingest: %s: %d images, %d instances%s", name, counts["images"], counts["instances"], more)


def _share(name: str, labels: Labels, config: IngestConfig) -> dict[str, Any]:
    """Facts of the manifest of a val split that is a share of the strong images; nothing for others."""
    if name != "val" or not isinstance(config.val, float):
        return {}
    chosen = len(labels.images["val"])
    of = chosen + len(labels.images["strong"])
    log.info("ingest: val: %d of the %d images of strong, for a share of %g", chosen, of, config.val)
    return {"share_of_strong": {"share": config.val, "images": chosen, "of": of}}


def _instances(name: str, labels: Labels, images: Mapping[str, pa.Table], config: IngestConfig) -> pa.Table:
    """INSTANCES rows of a split's usable images; none of weak ones."""
    coco = labels.files[name]
    if coco is None or name == "weak":
        return INSTANCES.empty_table()
    table = to_instances(coco)
    if config.crowd == "objects":
        table = _as_objects(table)
    if len(images[name]) < len(labels.images[name]):
        table = table.filter(pc.is_in(table["image_id"], images[name]["image_id"].combine_chunks()))
    return table


def _as_objects(instances: pa.Table) -> pa.Table:
    """INSTANCES rows with `iscrowd` false."""
    at = instances.schema.get_field_index("iscrowd")
    return instances.set_column(
        at, INSTANCES.field("iscrowd"), pa.array([False] * len(instances), pa.bool_())
    )


def _check_images(labels: Labels, root: ImageRoot) -> tuple[dict[str, pa.Table], dict[str, list[Rejection]]]:
    """IMAGES rows of each split, and the images that can't be used. Images kept aside are weak ones, read once."""
    tables, rejected = {}, {}
    checked: dict[int, CheckedImage] = {}
    for name in ("strong", "weak", "val"):
        checked, rejected[name] = check_rows(f"ingest: {name}", labels.images[name], root)
        tables[name] = images_table(labels.images[name], checked, name, LABELS[name])
        if name == "weak":
            rows, weak = labels.images["kept_aside"], {one.row["id"]: one for one in rejected["weak"]}
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
    name: str, labels: Labels, rejected: list[Rejection], instances: pa.Table, config: IngestConfig
) -> list[Fault]:
    """The fault of a split (to train on, or to measure with) that has no object with a mask, and its rejected parts."""
    coco = labels.files[name]
    # Faults of the file, and with `stop` those of its images, are listed already.
    if coco is None or (rejected and config.on_reject == "stop") or _has_object(instances):
        return []
    lost = [*coco.rejected, *(one.fault for one in rejected)]
    crowds, count = len(instances), len(labels.images[name])
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
    file = f"{config.annotations}/{', '.join(config.files(name) or config.files('strong'))}"
    return [Fault(file, "annotations", found, expected, step), *map(when_reported, lost)]


def _has_object(instances: pa.Table) -> bool:
    """Whether there is a mask of one or more pixels that isn't a crowd."""
    rows = zip(instances["iscrowd"], instances["rle_counts"], strict=True)
    return any(not crowd.as_py() and rle.runs(counts.as_py())[1::2].any() for crowd, counts in rows)


if __name__ == "__main__":
    stage_main("ingest", run)
