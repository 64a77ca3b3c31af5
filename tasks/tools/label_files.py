"""Predictions as label files of other tools, made from results.json."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from data.annotations.export import EXPORTS, ONE_FILE_AN_IMAGE, write_frames
from data.annotations.frames import Frame, Label
from data.storage import atomic_dir
from data.tables import Split
from tasks.common.errors import TaskError
from tasks.common.stage_main import write_json

NAME = "predictions"
SUMMARY = "export.json"
"""In each folder of label files, by which an export is recognised."""
FORMATS = tuple(format for format in EXPORTS if format != "coco-results")  # results.json has these


def check(out: Path, formats: Sequence[str], names: Sequence[str]) -> None:
    """Checks, before anything is predicted, that the label files can be written.

    Args:
        out: their folders are `out`/FORMAT.
        names: of the images, as in `relative_names`.

    Raises:
        TaskError: an unknown format, other files in a folder, images whose names differ only in their suffix; all.
    """
    faults = [
        f"--format: found {format!r}, expected one of {', '.join(FORMATS)}"
        for format in formats
        if format not in FORMATS
    ]
    faults += [text for format in formats if (text := foreign_files(out / format))]
    stems = Counter(PurePosixPath(name).with_suffix("").as_posix() for name in names)
    twice = [name for name in names if stems[PurePosixPath(name).with_suffix("").as_posix()] > 1]
    if twice and set(formats) & set(ONE_FILE_AN_IMAGE):
        faults.append(
            f"{', '.join(twice[:5])}: images whose names differ only in their suffix; expected a name for each label "
            "file: rename one, or choose coco or cvat with --format"
        )
    if faults:
        raise TaskError("\n".join(faults))


def foreign_files(folder: Path) -> str:
    """Why a folder can't be replaced: it has files that aren't from an export; else empty."""
    if (
        folder.exists()
        and not (folder / SUMMARY).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        return f"{folder}: found files that aren't from an export; name a new folder, since all of it is replaced"
    return ""


def relative_names(images: Sequence[Path]) -> list[str]:
    """Names of images below the folder that all have in common, as label files and other tools use them."""
    full = [Path(os.path.abspath(image)) for image in images]  # noqa: PTH100  # links stay
    root = Path(os.path.commonpath([path.parent for path in full]))
    return [path.relative_to(root).as_posix() for path in full]


def write_label_files(
    out: Path, formats: Sequence[str], results: Path, split: Split, names: Sequence[str], min_score: float
) -> dict[str, dict[str, Any]]:
    """Writes `out`/FORMAT for each format, each all or nothing; an earlier one is replaced.

    Args:
        results: results.json, a row a line, an image's rows together and in the images' order.
        split: the images.
        names: see `relative_names`.
        min_score: instances with a lower score are left out; masks at clicks stay.

    Returns:
        Counts by format.
    """
    counts = {}
    for format in formats:
        with atomic_dir(out / format) as folder:
            frames = _frames(results, split, names, min_score)
            counts[format] = write_frames(folder, NAME, format, frames, split.categories)
            write_json(
                folder / SUMMARY, {"what": NAME, "format": format, "min_score": min_score, **counts[format]}
            )
    return counts


def _frames(results: Path, split: Split, names: Sequence[str], min_score: float) -> Iterator[Frame]:
    """All images, in their order; one image's rows are in memory at a time."""
    images = zip(split.images.select(["image_id", "width", "height"]).to_pylist(), names, strict=True)
    next_id = 1
    with results.open(encoding="utf-8") as file:
        groups = groupby(filter(None, map(_row, file)), key=lambda row: row["image_id"])
        image_id, rows = next(groups, (None, iter(())))
        for image, name in images:
            labels = []
            if image["image_id"] == image_id:
                for row in rows:
                    at_click = "point" in row
                    if row.get("status") != "empty" and (at_click or row["score"] >= min_score):
                        counts = row["segmentation"]["counts"].encode("ascii")
                        labels.append(Label(next_id, row["category_id"], counts, score=row["score"]))
                        next_id += 1
                image_id, rows = next(groups, (None, iter(())))
            yield Frame(image["image_id"], name, image["width"], image["height"], tuple(labels))


def _row(line: str) -> dict[str, Any] | None:
    """The row of a line of results.json; None for its last line."""
    text = line.strip().strip(",").removeprefix("[").removesuffix("]")
    row: dict[str, Any] | None = json.loads(text) if text else None
    return row
