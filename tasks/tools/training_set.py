"""A folder that other trainers read as it is: what the student learns from, and the val images.

`coco`: {train,valid}/_annotations.coco.json with the images beside, as Roboflow and RF-DETR have it. `yolo-seg`:
{images,labels}/{train,val} and data.yaml, as Ultralytics has it. Images are links to the files that were ingested.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.annotations.export import write_coco_frames
from data.annotations.frames import Frame, frames_of_split
from data.annotations.writers.yolo import write_data_yaml, write_yolo_labels
from data.storage import is_safe
from data.tables import POINTS, Category, Split, read_parquet
from tasks.common.config import StudentConfig
from tasks.common.errors import TaskError
from tasks.intake.decisions import read_reviewed
from tasks.training.student_labels import with_pseudo_masks

FORMATS = ("coco", "yolo-seg")
COCO_FILE = "_annotations.coco.json"


def write_training_set(
    folder: Path, format: str, workspace: Path, pseudo: pa.Table, student: StudentConfig
) -> dict[str, dict[str, Any]]:
    """Writes into `folder` the val images, and what a student of these settings learns from: strong images with their
    masks, weak ones with the masks that are used, with their scores.

    What the student ignores is a crowd in COCO, and left out of YOLO's files.

    Args:
        pseudo: table PSEUDO.

    Returns:
        Counts of both parts: images, labels, pseudo (those of weak images), ignored regions.

    Raises:
        DataError: images whose labels YOLO can't hold.
        TaskError: an image's file is missing, or its name leads out of the folder; there are no images with labels.
    """
    dataset = workspace / "dataset"
    strong, weak, val = (Split.open(dataset / name) for name in ("strong", "weak", "val"))
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    decisions = read_reviewed(workspace / "points")
    # Its losses needn't be weighted by scores for these to be in the files.
    student = student.model_copy(update={"weight_by_score": "both", "classes_from": "mask"})
    with tempfile.TemporaryDirectory() as scratch:
        parts = {"train": [strong], "val": [val]}
        if student.masks != "none":
            parts["train"].append(
                with_pseudo_masks(weak, strong, points, pseudo, student, Path(scratch) / "weak", decisions)
            )
        return {
            name: _write(folder, format, name, splits, splits[0].categories) for name, splits in parts.items()
        }


def _write(
    folder: Path, format: str, name: str, splits: Sequence[Split], categories: Sequence[Category]
) -> dict[str, Any]:
    if format == "coco":
        images = folder / ("valid" if name == "val" else name)
        images.mkdir()
        frames = _Frames(splits, images)
        write_coco_frames(images / COCO_FILE, frames, categories)
    else:
        images = folder / "images" / name
        images.mkdir(parents=True)
        frames = _Frames(splits, images, crowds=False)
        write_yolo_labels(folder / "labels" / name, frames, categories)
        write_data_yaml(folder / "data.yaml", categories, train="images/train", val="images/val")
    if not frames.counts["images"]:
        raise TaskError(f"{splits[0].root}: found no usable image for {name}; other trainers need some")
    return dict(frames.counts)


class _Frames:
    """The usable images of splits, linked into a folder and counted while they are read; labels are numbered anew."""

    def __init__(self, splits: Iterable[Split], images: Path, crowds: bool = True) -> None:
        self._splits, self._images, self._crowds = splits, images, crowds
        self.counts = Counter[str](images=0, labels=0, pseudo=0, ignored=0)

    def __iter__(self) -> Iterator[Frame]:
        numbers = count(1)
        for split in self._splits:
            usable = split.images["status"].to_pylist()
            for row, frame in enumerate(frames_of_split(split)):
                if usable[row] != "ok":
                    continue
                self._link(split.image_path(row), frame.file_name)
                kept = [label for label in frame.labels if self._crowds or not label.iscrowd]
                ignored = sum(label.iscrowd for label in frame.labels)
                self.counts["images"] += 1
                self.counts["labels"] += len(frame.labels) - ignored
                self.counts["pseudo"] += sum(label.score is not None for label in frame.labels)
                self.counts["ignored"] += ignored
                yield replace(frame, labels=tuple(replace(one, label_id=next(numbers)) for one in kept))

    def _link(self, file: Path, name: str) -> None:
        if not is_safe(name):
            raise TaskError(
                f"image {name!r}: found a name that leads out of the folder, expected one below it"
            )
        if not file.is_file():
            raise TaskError(
                f"{file}: not found; expected the image where it was ingested: run the ingest stage again"
            )
        link = self._images / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
