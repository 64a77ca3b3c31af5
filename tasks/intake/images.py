"""The images of a split: each file is read once, decoded as in training and hashed, or rejected."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.images.content import ImageError
from data.images.read import CheckedImage, check_image
from data.remote.fetch import Refused
from data.storage import join, opener_inside
from data.tables import IMAGES, DataError, Fault
from tasks.common.progress import Bar
from tasks.intake.rejected import ANNOTATION, REJECTED_IMAGES

OR_REPORT = "; ingest.on_reject: report goes on without it"
"""The end of the next step of faults that needn't end the run; `when_reported` removes it."""
NEXT_STEP = f"restore the file, or remove its records{OR_REPORT}"


@dataclass(frozen=True)
class Rejection:
    """An image that can't be used."""

    fault: Fault
    reason: str
    row: Mapping[str, Any]
    """Its record: id (None where none names it), file_name."""


@dataclass(frozen=True)
class ImageRoot:
    """The folder of the images, and its name in messages: the folder, or the s3:// address they came from."""

    folder: Path
    shown: str
    problems: Mapping[str, Refused]
    """Files that couldn't be downloaded, by name."""


def when_reported(fault: Fault) -> Fault:
    """The fault as it is logged with `ingest.on_reject: report`, without the advice to set that."""
    return replace(fault, next_step=fault.next_step.removesuffix(OR_REPORT))


def check_rows(
    what: str, rows: Sequence[dict[str, Any]], root: ImageRoot
) -> tuple[dict[int, CheckedImage], list[Rejection]]:
    """Reads, decodes and hashes the file of every record, in threads; results are in the order of the records.

    Args:
        what: the label of the progress bar.
        rows: COCO image records: id, file_name, and width and height if the file has them.
        root: the folder that file names are relative to.

    Returns:
        The images that can be used, by id, and a rejection for each other one.
    """
    checked: dict[int, CheckedImage] = {}
    rejected: list[Rejection] = []
    with ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 1)) as pool, Bar(what, len(rows), "image") as bar:
        for row, found in zip(rows, pool.map(lambda row: _check(row, root), rows), strict=True):
            bar.advance()
            if isinstance(found, Rejection):
                rejected.append(found)
            else:
                checked[row["id"]] = found
    return checked, rejected


def _check(row: dict[str, Any], root: ImageRoot) -> CheckedImage | Rejection:
    name = row["file_name"]
    if name in root.problems:
        return _rejection(row, root, *root.problems[name])
    try:
        # join refuses names that lead out of the root, as later steps do.
        found = check_image(join(root.folder, name), opener_inside(root.folder))
    except DataError as error:
        reason = error.reason if isinstance(error, ImageError) else "unsafe_path"
        return _rejection(row, root, reason, error.faults[0].found, error.faults[0].expected)
    return size_rejection(row, found, root) or found


def size_rejection(row: Mapping[str, Any], found: CheckedImage, root: ImageRoot) -> Rejection | None:
    """A rejection if the record has another size than the file. Labels are of the image as it is displayed."""
    recorded = (row.get("width", found.width), row.get("height", found.height))
    if recorded == (found.width, found.height):
        return None
    pixels = f"{found.width} x {found.height} pixels"
    if found.orientation > 4 and recorded == (found.height, found.width):
        pixels += f" as shown (EXIF orientation {found.orientation} turns it)"
    return _rejection(row, root, "size", pixels, f"{recorded[0]} x {recorded[1]}, as its record says")


def _rejection(row: Mapping[str, Any], root: ImageRoot, reason: str, found: str, expected: str) -> Rejection:
    next_step = (
        "restore the file that was annotated, or correct the record" if reason == "size" else NEXT_STEP
    )
    file = f"{root.shown.rstrip('/')}/{row['file_name']}"
    return Rejection(Fault(file, f"image {row['id']}", found, expected, next_step), reason, row)


def images_table(
    rows: Sequence[Mapping[str, Any]], checked: Mapping[int, CheckedImage], split: str, label: str
) -> pa.Table:
    """IMAGES rows of the records whose images can be used."""
    usable = [row for row in rows if row["id"] in checked]
    facts = [checked[row["id"]] for row in usable]
    names = pa.array([row["file_name"] for row in usable], pa.string())
    columns = {
        "image_id": [row["id"] for row in usable],
        "file_name": names,
        "uri": names,
        "width": [fact.width for fact in facts],
        "height": [fact.height for fact in facts],
        "sha256": [fact.sha256 for fact in facts],
        "split": [split] * len(usable),
        "label": [label] * len(usable),
        "status": ["ok"] * len(usable),
    }
    return pa.table(columns, schema=IMAGES)


def rejected_table(
    rejected: Sequence[Rejection], annotations: Counter[int], faults: Sequence[Fault] = ()
) -> pa.Table:
    """REJECTED_IMAGES rows; `annotations` counts those of each image id, `faults` are those of annotations."""
    rows = [
        {
            "file": one.fault.file,
            "record": one.fault.record,
            "reason": one.reason,
            "found": one.fault.found,
            "expected": one.fault.expected,
            "image_id": one.row["id"],
            "file_name": one.row["file_name"],
            "annotations": annotations[one.row["id"]],
        }
        for one in rejected
    ]
    rows += [
        {
            "file": fault.file, "record": fault.record, "reason": ANNOTATION, "found": fault.found,
            "expected": fault.expected, "image_id": None, "file_name": None, "annotations": 1,
        }
        for fault in faults
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=REJECTED_IMAGES)
