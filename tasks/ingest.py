"""Reads the user's images and COCO masks once and writes the tables that every later step reads.

Four splits, each a folder under workspace/dataset: `strong` (masks to train on), `weak` (no masks; points will
come), `val`, and `kept_aside` (weak images whose masks exist only to measure pseudo masks; no training step may
read them). They are separate so that new weak images never retrain the teacher.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from data.coco import CocoFile, read_coco, to_instances
from data.images import image_size, verify
from data.storage import IMAGE_SUFFIXES, join, list_files
from data.tables import IMAGES, INSTANCES, Category, DataError, Fault, write_split
from tasks.config import IngestConfig, Params
from tasks.progress import Bar
from tasks.step import stage_main, write_manifest

log = logging.getLogger(__name__)

SPLITS = ("strong", "weak", "val", "kept_aside")
LABELS = {"strong": "mask", "weak": "point", "val": "mask", "kept_aside": "mask"}


@dataclass
class _Sources:
    """What the annotation files say, before the images are looked at."""

    files: dict[str, CocoFile | None]
    images: dict[str, list[dict[str, Any]]]
    faults: list[Fault] = field(default_factory=list)


def run(params: Params, workspace: Path) -> None:
    """Writes workspace/dataset/{strong,weak,val,kept_aside}.

    Raises:
        DataError: every fault of every annotation file, every missing or unreadable image, every image whose size
            isn't what its record says, every image in two splits.
    """
    config = params.ingest
    sources = _read(config)
    categories = _categories(sources)
    tables = {name: _images_table(name, sources, config.images) for name in SPLITS if name != "kept_aside"}
    if sources.faults:
        raise DataError(sources.faults)
    kept_ids = [row["id"] for row in sources.images["kept_aside"]]
    weak = tables["weak"]
    kept = weak.filter(pa.compute.is_in(weak["image_id"], pa.array(kept_ids, pa.int64())))
    for column, value in (("split", "kept_aside"), ("label", LABELS["kept_aside"])):
        kept = kept.set_column(
            IMAGES.get_field_index(column), column, pa.array([value] * len(kept), pa.string())
        )
    tables["kept_aside"] = kept
    for name in SPLITS:
        coco = sources.files[name]
        instances = INSTANCES.empty_table() if coco is None or name == "weak" else to_instances(coco)
        folder = workspace / "dataset" / name
        write_split(folder, tables[name], instances, categories, config.images)
        counts = {"images": len(tables[name]), "instances": len(instances), "categories": len(categories)}
        write_manifest(folder, "ingest", counts)
        log.info("ingest: %s: %d images, %d instances", name, counts["images"], counts["instances"])


def _read(config: IngestConfig) -> _Sources:
    """All annotation files; their faults are collected, so that one run shows them all."""
    sources = _Sources({}, {})
    for name in SPLITS:
        file_name: str | None = getattr(config, name)
        sources.files[name], sources.images[name] = None, []
        if file_name is None:
            continue
        try:
            coco = read_coco(Path(config.annotations) / file_name, need_masks=name != "weak")
        except DataError as error:
            sources.faults += error.faults
            continue
        sources.files[name], sources.images[name] = coco, coco.images
    if config.weak is None and not sources.faults:
        sources.images["weak"] = _unlisted(config, sources)
    sources.faults += _overlaps(sources, config)
    return sources


def _unlisted(config: IngestConfig, sources: _Sources) -> list[dict[str, Any]]:
    """Without a file of weak images, every image file that no other file lists is one.

    The id of such an image is a hash of its path, so that images added later don't change it.
    """
    listed = {row["file_name"] for name in ("strong", "val") for row in sources.images[name]}
    given = {row["file_name"]: row["id"] for row in sources.images["kept_aside"]}
    rows = []
    for path in list_files(config.images, IMAGE_SUFFIXES):
        if path not in listed:
            hashed = int.from_bytes(hashlib.sha256(path.encode()).digest()[:6], "big")
            rows.append({"id": given.get(path, hashed), "file_name": path})
    return rows


def _overlaps(sources: _Sources, config: IngestConfig) -> list[Fault]:
    """Images in two splits or twice in one, names written in two ways, kept-aside images that aren't weak ones."""
    faults = [
        Fault(
            f"{config.annotations}/{getattr(config, name)}",
            f"image {row['id']}",
            f"file_name {row['file_name']!r}",
            PurePosixPath(row["file_name"]).as_posix(),
            "write the name without './' and '//', so that it is the same in all files",
        )
        for name in SPLITS
        for row in sources.images[name]
        if PurePosixPath(row["file_name"]).as_posix() != row["file_name"]
    ]
    for name in SPLITS:
        names = Counter(row["file_name"] for row in sources.images[name])
        faults += [
            Fault(
                f"{config.annotations}/{getattr(config, name)}",
                f"file_name {file_name!r}",
                f"{count} images of this name",
                "one image a file",
                "give all its annotations one image_id",
            )
            for file_name, count in names.items()
            if count > 1
        ]
    for key in ("id", "file_name"):
        first: dict[Any, str] = {}
        for name in ("strong", "weak", "val"):
            for row in sources.images[name]:
                other = first.setdefault(row[key], name)
                if other != name:
                    faults.append(
                        Fault(
                            f"{config.annotations}/{getattr(config, name)}",
                            f"image {row['id']} ({row['file_name']})",
                            f"{key} {row[key]!r} in {other} too",
                            "each image in one of strong, weak and val, ids that differ",
                            "leave it in one of the files",
                        )
                    )
    weak = {row["id"]: row["file_name"] for row in sources.images["weak"]}
    for row in sources.images["kept_aside"]:
        if weak.get(row["id"]) != row["file_name"]:
            faults.append(
                Fault(
                    f"{config.annotations}/{config.kept_aside}",
                    f"image {row['id']} ({row['file_name']})",
                    "an image that isn't among the weak ones",
                    "weak images, with the same id and file_name",
                    "list it among the weak images too, or take it out here",
                )
            )
    return faults


def _categories(sources: _Sources) -> list[Category]:
    """The class table of all files together; adds a fault where two files disagree."""
    table: dict[int, tuple[str, str]] = {}
    ids: dict[str, int] = {}
    for coco in sources.files.values():
        for category in coco.categories if coco else []:
            known, file = table.setdefault(category.id, (category.name, coco.path if coco else ""))
            if known != category.name or ids.setdefault(category.name, category.id) != category.id:
                sources.faults.append(
                    Fault(
                        coco.path if coco else "",
                        f"category {category.id}",
                        f"name {category.name!r}",
                        f"the same classes in all files ({file} says {known!r})",
                        "use one category table in all annotation files",
                    )
                )
    return [Category(id, name) for id, (name, _) in sorted(table.items())]


def _images_table(name: str, sources: _Sources, root: str) -> pa.Table:
    """IMAGES rows of one split, each file opened and hashed; adds a fault for each that isn't as its record says."""
    columns: dict[str, list[Any]] = {column: [] for column in IMAGES.names}
    with Bar(f"ingest: {name}", len(sources.images[name]), "image") as bar:
        for row in sources.images[name]:
            bar.advance()
            path = Path(root) / row["file_name"]
            try:
                join(root, row["file_name"])  # refuses what leads out of the root, as later steps will
                width, height = image_size(path)
                digest = verify(path)
            except DataError as error:
                sources.faults += [_of_image(fault, row) for fault in error.faults]
                continue
            if (width, height) != (row.get("width", width), row.get("height", height)):
                sources.faults.append(
                    Fault(
                        str(path),
                        f"image {row['id']}",
                        f"{width} x {height} pixels",
                        f"{row['width']} x {row['height']}, as its record says",
                        "restore the file that was annotated, or correct the record",
                    )
                )
                continue
            values = (
                row["id"], row["file_name"], row["file_name"], width, height, digest, name, LABELS[name], "ok",
            )  # fmt: skip
            for column, value in zip(IMAGES.names, values, strict=True):
                columns[column].append(value)
    return pa.table(columns, schema=IMAGES)


def _of_image(fault: Fault, row: dict[str, Any]) -> Fault:
    return Fault(fault.file, f"image {row['id']}", fault.found, fault.expected, fault.next_step)


if __name__ == "__main__":
    stage_main("ingest", run)
