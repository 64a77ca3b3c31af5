"""Ultralytics' YOLO for segmentation: labels/IMAGE.txt with a polygon a line, and data.yaml with the classes.

A line is one polygon, so parts and holes of a mask are joined by lines that run there and back, as Ultralytics' own
converter does. Scores aren't written: YOLO reads them as a coordinate.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data.annotations.frames import Frame, Label
from data.annotations.writers.names import NewFiles
from data.masks import rle
from data.masks.outlines import outlines
from data.tables import Category

TOLERANCE = 0.3
"""Pixels that a polygon may deviate from its mask."""


def write_yolo(folder: Path, frames: Iterable[Frame], categories: Sequence[Category]) -> None:
    """Writes labels and data.yaml into `folder`, for which the user puts the images beside; see `write_yolo_labels`."""
    write_yolo_labels(folder / "labels", frames, categories)
    (folder / "data.yaml").write_text(
        "# Put the images into a folder images next to labels.\npath: .\n"
        + _data(categories, "images", "images"),
        encoding="utf-8",
    )


def write_data_yaml(path: Path, categories: Sequence[Category], *, train: str, val: str) -> None:
    """Writes the classes, and the folders of images relative to the file's own: without `path`, YOLO takes that one."""
    path.write_text(_data(categories, train, val), encoding="utf-8")


def write_yolo_labels(folder: Path, frames: Iterable[Frame], categories: Sequence[Category]) -> None:
    """Writes a file an image into a new folder; class numbers are 0, 1, ... in the order of the category ids.

    Raises:
        DataError: two images whose names differ only in their suffix.
    """
    number = {category.id: n for n, category in enumerate(sorted(categories))}
    files = NewFiles(folder, ".txt")
    for frame in frames:
        lines = [_line(label, frame, number[label.category_id]) for label in frame.labels]
        files.path(frame).write_text("".join(lines), encoding="ascii")


def _data(categories: Sequence[Category], train: str, val: str) -> str:
    names = "".join(
        f"  {n}: {json.dumps(c.name, ensure_ascii=False)}\n" for n, c in enumerate(sorted(categories))
    )
    return f"train: {train}\nval: {val}\nnames:\n{names}"


def _line(label: Label, frame: Frame, number: int) -> str:
    """A line of a label file; empty for an empty mask."""
    rings = outlines(rle.decode(label.counts, frame.height, frame.width), TOLERANCE)
    if not rings:
        return ""
    start = rings[0][:1]
    corners = [rings[0]] + [part for ring in rings[1:] for part in (start, ring, ring[:1])]
    shares = np.concatenate(corners) / (frame.width, frame.height)
    return f"{number} " + " ".join(f"{value:.6f}" for value in np.clip(shares, 0, 1).ravel()) + "\n"
