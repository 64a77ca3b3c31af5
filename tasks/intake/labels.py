"""The annotation files of a run: each is read and checked, those of a split are joined."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from data.annotations.coco.file import CocoFile
from data.annotations.detect import format_of
from data.annotations.frames import name_id
from data.annotations.join import ImageIds, join_classes, join_files
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions
from data.remote.fetch import Refused
from data.storage import is_s3, list_files
from data.tables import Category, DataError, Fault
from tasks.common.config import IngestConfig
from tasks.intake.image_names import ImageNames
from tasks.intake.images import Rejection
from tasks.intake.sources import SourceImages, Sources
from tasks.intake.val_share import split_val

log = logging.getLogger(__name__)

ARCHIVES = (".7z", ".rar", ".tar", ".tar.gz", ".tgz", ".zip")
SPLITS = ("strong", "weak", "val", "kept_aside")


@dataclass
class Labels:
    """The content of the annotation files, before images are read."""

    files: dict[str, CocoFile | None]
    """The joined files of each split; None where it has none, or where one of them has faults."""
    images: dict[str, list[dict[str, Any]]]
    categories: list[Category] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    unsafe: list[Rejection] = field(default_factory=list)
    """Image files whose names no record can hold."""
    ambiguous: dict[str, Refused] = field(default_factory=dict)
    """Names of images that fit several image files."""


def read_labels(config: IngestConfig, origin: Sources) -> Labels:
    """All annotation files, and all of their faults, so that one run lists them."""
    labels = Labels(dict.fromkeys(SPLITS), {name: [] for name in SPLITS})
    images = SourceImages(origin)
    names = ImageNames(images)
    parts = {name: _read(name, config, origin, images, names, labels.faults) for name in SPLITS}
    labels.faults += _name_faults(parts)
    labels.categories, classes, faults = join_classes([file for name in SPLITS for file in parts[name]])
    labels.faults += faults
    labels.ambiguous = names.ambiguous
    ids = ImageIds()
    for name in SPLITS:
        own, classes = classes[: len(parts[name])], classes[len(parts[name]) :]
        if parts[name]:
            labels.files[name], faults = join_files(parts[name], ids, own)
            labels.faults += faults
    if isinstance(config.val, float) and (strong := labels.files["strong"]) is not None and not labels.faults:
        labels.files["strong"], labels.files["val"] = split_val(strong, config.val, config.crowd == "objects")
    for name, file in labels.files.items():
        labels.images[name] = file.images if file is not None else []
    if config.weak is None and not labels.faults:
        found, labels.unsafe = origin.image_files()
        _warn_of_archives(config)
        maps = frozenset[str]().union(*(one.not_images for own in parts.values() for one in own))
        labels.images["weak"] = _unlisted([name for name in found if name not in maps], labels.images, ids)
    if labels.images["weak"] or not labels.faults:
        labels.faults += _not_weak(labels, listed=config.weak is not None)
    labels.faults = list(dict.fromkeys(labels.faults))  # a missing folder of images is one fault
    return labels


def _read(
    name: str,
    config: IngestConfig,
    origin: Sources,
    images: SourceImages,
    names: ImageNames,
    faults: list[Fault],
) -> list[CocoFile]:
    """The files of a split that can be read, with the paths of their images."""
    found: list[CocoFile] = []
    given = config.files(name)
    for path, count in Counter(PurePosixPath(one).as_posix() for one in given).items():
        if count > 1:
            step = f"name it once in ingest.{name}"
            faults.append(
                Fault(str(origin.annotations / path), "file", f"{count} times in {name}", "once", step)
            )
    for path in given:
        try:
            file = _read_file(name, origin.annotations / path, config, images)
            rows, wrong = names.resolve(file.images, file.path)
        except DataError as error:
            faults += error.faults
            continue
        faults += wrong
        if not wrong:
            found.append(replace(file, images=rows))
    return found


def _read_file(name: str, path: Path, config: IngestConfig, images: SourceImages) -> CocoFile:
    """A file or folder of a split. Faults of records are in `rejected`, so that images are checked in the same run.

    Raises:
        DataError: faults of the file; with `on_reject: stop` those of records of COCO files too.
    """
    format = format_of(path) if name == "weak" or config.format == "auto" else config.format
    options = ReadOptions(
        need_masks=name != "weak",
        images=images,
        folder=getattr(config.folders, name),
        keep_unsized=config.on_reject == "report",
        keep_annotations=False,
        reject=config.on_reject == "report" or format != "coco",
        any_place=True,
        mask_class=config.mask_class,
    )
    return read_annotations(path, format, options)


def _warn_of_archives(config: IngestConfig) -> None:
    """Images in archives aren't read."""
    found = [] if is_s3(config.images) else list_files(config.images, ARCHIVES)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        log.warning(
            "ingest: %d archives below %s are not opened (%s%s); unpack them if they hold images",
            len(found), config.images, ", ".join(found[:3]), more,
        )  # fmt: skip


def _unlisted(
    names: list[str], images: Mapping[str, list[dict[str, Any]]], ids: ImageIds
) -> list[dict[str, Any]]:
    """Without a file of weak images, all image files that no other file lists are weak.

    The id of such an image is a hash of its path, so that images added later don't change it.
    """
    listed = {row["file_name"] for name in ("strong", "val") for row in images[name]}
    return [
        {"id": ids.assign(path, name_id(path)), "file_name": path} for path in names if path not in listed
    ]


def _not_weak(labels: Labels, listed: bool) -> list[Fault]:
    """Images kept aside that aren't weak ones. `listed`: whether files list the weak images."""
    kept = labels.files["kept_aside"]
    if kept is None:
        return []
    split = {row["file_name"]: name for name in ("strong", "val", "weak") for row in labels.images[name]}
    missing = "list it among the weak images too" if listed else "correct its file_name"
    faults = []
    for row in kept.images:
        name = split.get(row["file_name"])
        if name == "weak":
            continue
        found = "an image that isn't among the weak ones" if name is None else f"an image of {name} too"
        step = f"{missing}, or remove it here" if name is None else f"leave it in {name} alone"
        record = f"image {row['id']} ({row['file_name']})"
        faults.append(Fault(kept.path, record, found, "weak images, with the same file_name", step))
    return faults


def _name_faults(parts: Mapping[str, Sequence[CocoFile]]) -> list[Fault]:
    """Images in two splits, or twice in one file."""
    files = [file for name in SPLITS for file in parts[name]]
    faults = [fault for file in files for fault in _doubled_names(file)]
    first: dict[str, str] = {}
    for name in ("strong", "weak", "val"):
        faults += [
            Fault(
                file.path,
                f"image {row['id']} ({row['file_name']})",
                f"file_name {row['file_name']!r} in {first[row['file_name']]} too",
                "each image in one of strong, weak and val",
                "leave it in one of the files",
            )
            for file in parts[name]
            for row in file.images
            if first.setdefault(row["file_name"], name) != name
        ]
    return faults


def _doubled_names(file: CocoFile) -> list[Fault]:
    step = "give all its annotations one image_id"
    return [
        Fault(file.path, f"file_name {name!r}", f"{count} images of this name", "one image a file", step)
        for name, count in Counter(row["file_name"] for row in file.images).items()
        if count > 1
    ]
