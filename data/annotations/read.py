"""Masks of any format: COCO instances, Scalabel frames, BDD100K's bitmasks."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data.annotations.bitmasks import read_bitmasks
from data.annotations.coco.file import CocoFile, read_coco
from data.annotations.frames import ImageFiles
from data.annotations.scalabel.file import read_scalabel
from data.annotations.strict_json import load_json
from data.errors import DataError, Fault
from data.storage import is_safe, list_files, open_regular

FORMATS = ("coco", "scalabel", "bdd-bitmask")
_HEAD = 4096  # bytes in which the first key of a JSON file is searched
_FIRST_KEYS = {
    "frames": "scalabel", "groups": "scalabel", "config": "scalabel", "images": "coco", "annotations": "coco",
    "categories": "coco", "info": "coco", "licenses": "coco",
}  # fmt: skip


def read_annotations(
    path: str | os.PathLike[str],
    format: str = "auto",
    *,
    need_masks: bool = True,
    images: ImageFiles | None = None,
    folder: str = "",
    keep_unsized: bool = False,
    keep_annotations: bool = True,
    reject: bool = False,
    any_place: bool = False,
) -> CocoFile:
    """Read and validate images and masks as the records of a COCO file.

    Args:
        path: a COCO or Scalabel JSON file, or a folder: of bitmasks, or of Scalabel files.
        format: one of `FORMATS`, or `auto`: detected from the content.
        need_masks: whether an annotation without a mask is a fault.
        images: where sizes and names that the file lacks are looked up.
        folder: the folder of the images below the image root; prepended to each file name.
        keep_unsized: see `read_scalabel`.
        keep_annotations: see `read_coco`; other formats always keep them.
        any_place: see `read_coco`.
        reject: see `read_coco`; in other formats a faulty annotation is always a fault of the file.

    Raises:
        DataError: every fault of the file, or an unknown format.
    """
    if folder and not is_safe(folder):
        raise DataError(
            Fault(
                str(path), "folder", repr(folder), "a folder below the image root", "correct ingest.folders"
            )
        )
    found = format_of(path) if format == "auto" else format
    if found == "scalabel":
        return read_scalabel(
            path, need_masks=need_masks, images=images, folder=folder, keep_unsized=keep_unsized
        )
    if found == "bdd-bitmask":
        return read_bitmasks(path, images=images, folder=folder)
    if found != "coco":
        expected = f"auto, {', '.join(FORMATS)}"
        raise DataError(Fault(str(path), "format", repr(format), expected, "correct the format"))
    coco = read_coco(
        path, need_masks=need_masks, keep_annotations=keep_annotations, reject=reject, any_place=any_place
    )
    if not folder:
        return coco
    rows = [
        row | {"file_name": (PurePosixPath(folder) / row["file_name"]).as_posix()}
        if is_safe(row["file_name"])
        else row
        for row in coco.images
    ]
    return replace(coco, images=rows)


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of a file or folder, detected from its content.

    A folder with a PNG has bitmasks, any other folder Scalabel files. A JSON list has Scalabel frames; the format of an
    object is detected from its keys. The whole file is read only if the first key is unknown.

    Raises:
        DataError: a missing file, or a JSON file of another kind.
    """
    where = Path(path)
    if where.is_dir():
        return "bdd-bitmask" if list_files(where, (".png",)) else "scalabel"
    try:
        with open_regular(where) as file:
            head = file.read(_HEAD).decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    except OSError:
        load_json(where)  # raises a DataError with the reason
        raise
    if head.startswith("["):
        return "scalabel"
    key = re.match(r'\{\s*"([^"\\]*)"', head)
    if key is not None and key[1] in _FIRST_KEYS:
        return _FIRST_KEYS[key[1]]
    document = load_json(where)
    for name in document if isinstance(document, dict) else ():
        if name in _FIRST_KEYS:
            return _FIRST_KEYS[name]
    found = type(document).__name__
    if isinstance(document, dict):
        found = (
            f"an object with {', '.join(repr(name)[:40] for name in list(document)[:5]) or 'nothing in it'}"
        )
    expected = "COCO instances (images, annotations, categories) or Scalabel frames"
    raise DataError(Fault(str(path), "file", found, expected, "name a file of annotations here"))
