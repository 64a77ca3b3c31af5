"""Masks of any format, detected from the content of a file or folder, as the records of a COCO file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data.annotations.bitmasks import read_bitmasks
from data.annotations.coco.file import CocoFile, read_coco
from data.annotations.detect import format_of
from data.annotations.formats import cityscapes, cvat, label_maps, label_studio, labelme, voc, yolo
from data.annotations.records import ReadOptions
from data.annotations.scalabel.file import read_scalabel
from data.errors import DataError, Fault
from data.storage import is_safe, list_files


def _read_coco(path: Path, options: ReadOptions) -> CocoFile:
    if path.is_dir():
        path = _only_file(path)
    coco = read_coco(
        path, need_masks=options.need_masks, keep_annotations=options.keep_annotations, reject=options.reject,
        any_place=options.any_place,
    )  # fmt: skip
    if not options.folder:
        return coco
    rows = [
        row | {"file_name": (PurePosixPath(options.folder) / row["file_name"]).as_posix()}
        if is_safe(row["file_name"])
        else row
        for row in coco.images
    ]
    return replace(coco, images=rows)


def _only_file(folder: Path) -> Path:
    """The only JSON file of a folder."""
    names = list_files(folder, (".json",))
    if len(names) == 1:
        return folder / names[0]
    shown = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
    raise DataError(
        Fault(str(folder), "folder", f"{len(names)} JSON files ({shown})", "one COCO file", "name the file")
    )


def _read_scalabel(path: Path, options: ReadOptions) -> CocoFile:
    return read_scalabel(
        path, need_masks=options.need_masks, images=options.images, folder=options.folder,
        keep_unsized=options.keep_unsized,
    )  # fmt: skip


def _read_bitmasks(path: Path, options: ReadOptions) -> CocoFile:
    return read_bitmasks(path, images=options.images, folder=options.folder)


_READERS: dict[str, Callable[[Path, ReadOptions], CocoFile]] = {
    "coco": _read_coco,
    "yolo-seg": yolo.read,
    "label-maps": label_maps.read,
    "voc": voc.read,
    "cityscapes": cityscapes.read,
    "labelme": labelme.read,
    "cvat": cvat.read,
    "label-studio": label_studio.read,
    "scalabel": _read_scalabel,
    "bdd-bitmask": _read_bitmasks,
}
FORMATS = tuple(_READERS)
_OPTIONS = ReadOptions()


def read_annotations(
    path: str | os.PathLike[str], format: str = "auto", options: ReadOptions = _OPTIONS
) -> CocoFile:
    """Read and validate images and masks.

    Args:
        path: a file or a folder.
        format: one of `FORMATS`, or `auto`: detected from the content.
        options: see `ReadOptions`.

    Raises:
        DataError: every fault of the file, or an unknown format.
    """
    if options.folder and not is_safe(options.folder):
        step = "correct ingest.folders"
        raise DataError(
            Fault(str(path), "folder", repr(options.folder), "a folder below the image root", step)
        )
    where = Path(path)
    if not where.exists():
        format_of(where)  # raises a DataError with the reason
    found = format_of(where) if format == "auto" else format
    if found not in _READERS:
        expected = f"auto, {', '.join(FORMATS)}"
        raise DataError(Fault(str(path), "format", repr(format), expected, "correct the format"))
    return _READERS[found](where, options)
