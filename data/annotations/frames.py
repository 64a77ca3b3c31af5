"""Labelled images, one at a time, as the writers of label files read them, and their sources."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from data.annotations.coco.checks import WrongAreas
from data.annotations.coco.file import CocoFile, tidy
from data.annotations.strict_json import is_number
from data.errors import DataError, Fault
from data.images.read import image_size
from data.masks.polygons import from_segmentation
from data.storage import IMAGE_SUFFIXES, join, list_files
from data.tables import Split
from data.text import clean, is_text

log = logging.getLogger(__name__)

FLAGS = ("truncated", "occluded", "crowd", "ignored")
"""Flags of an object. `crowd` and `ignored` both make it a region that is neither trained on nor scored; our tables and
COCO call it iscrowd."""


@dataclass(frozen=True)
class Label:
    """One mask of an image.

    Attributes:
        label_id: unique in its file.
        category_id: the data set's own.
        counts: compressed RLE, of the frame's size.
        flags: those of `FLAGS` that are set.
        score: of a prediction or a pseudo label, else None.
        point_id: the click that a pseudo label was made from, else None.
        area: pixels, as in an annotation file, used by COCO's evaluation; None: the mask's.
        bbox_xywh: pixels, as in an annotation file; None: the mask's.
    """

    label_id: int
    category_id: int
    counts: bytes
    flags: frozenset[str] = frozenset()
    score: float | None = None
    point_id: str | None = None
    area: float | None = None
    bbox_xywh: tuple[float, ...] | None = None

    @property
    def iscrowd(self) -> bool:
        """Whether it is a region to ignore."""
        return bool(self.flags & {"crowd", "ignored"})

    def attributes(self) -> dict[str, str | float]:
        """point_id and score, those that it has."""
        found = {"point_id": self.point_id, "score": self.score}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Frame:
    """One image (width and height in pixels) and its labels, in the order of their ids."""

    image_id: int
    file_name: str
    width: int
    height: int
    labels: tuple[Label, ...]


class ImageFiles(Protocol):
    """The image files of a data set and their sizes, which label files may lack."""

    def names(self) -> frozenset[str]:
        """All image files, as paths relative to the image root."""

    def below_root(self, path: Path) -> str | None:
        """A local path relative to the image root, "." for the root itself; None if it isn't below."""

    def prepare(self, names: Collection[str]) -> None:
        """Called once with the files whose `size` will be read, so that they can be downloaded together."""

    def size(self, file_name: str) -> tuple[int, int]:
        """(width, height) in pixels. Raises DataError if the file is missing or no image."""


class ImageFolder:
    """The image files below a local folder, which is listed once, at the first use."""

    def __init__(self, root: str | Path) -> None:
        self._root = root
        self._names: frozenset[str] | None = None

    def names(self) -> frozenset[str]:
        """See `ImageFiles`."""
        if self._names is None:
            self._names = frozenset(filter(is_text, list_files(self._root, IMAGE_SUFFIXES)))
        return self._names

    def below_root(self, path: Path) -> str | None:
        """See `ImageFiles`."""
        return below(self._root, path)

    def prepare(self, names: Collection[str]) -> None:
        """See `ImageFiles`; nothing to do for local files."""

    def size(self, file_name: str) -> tuple[int, int]:
        """See `ImageFiles`."""
        return image_size(join(self._root, file_name))


def below(root: str | Path, path: Path) -> str | None:
    """A path relative to a folder, links in both followed except for the path's last part; None if it isn't below."""
    top, folder = _real(os.path.abspath(root)), _real(os.path.abspath(path.parent))  # noqa: PTH100
    full = folder / path.name
    return full.relative_to(top).as_posix() if full.is_relative_to(top) else None


@lru_cache(maxsize=1024)
def _real(folder: str) -> Path:
    return Path(folder).resolve()


def name_id(file_name: str) -> int:
    """The image_id of an image whose label file has only names: a hash of its path below the image root, 48 bits.

    It is the same in every file and doesn't change when images are added.
    """
    return int.from_bytes(hashlib.sha256(file_name.encode()).digest()[:6], "big")


def frames_of_file(coco: CocoFile) -> Iterator[Frame]:
    """The frames of an annotation file, by image_id.

    Raises:
        DataError: annotations without a mask, or with a score that is no number.
    """
    by_image: dict[int, list[Mapping[str, Any]]] = {}
    for row in coco.annotations:
        by_image.setdefault(row["image_id"], []).append(row)
    faults = [
        Fault(coco.path, f"annotation {row['id']}", "no segmentation", "polygons or an RLE", "give it a mask")
        for row in coco.annotations
        if row.get("segmentation") in (None, [], {})
    ]
    faults += [
        Fault(
            coco.path,
            f"annotation {row['id']}",
            f"score {row['score']!r}"[:100],
            "a finite number",
            "correct it",
        )
        for row in coco.annotations
        if row.get("score") is not None and not is_number(row["score"])
    ]
    if faults:
        raise DataError(faults)
    areas = WrongAreas()
    for image in coco.images:
        height, width = image["height"], image["width"]
        own = by_image.get(image["id"], [])
        codes = [from_segmentation(row["segmentation"], height, width) for row in own]
        labels = tuple(
            Label(
                label_id=row["id"],
                category_id=row["category_id"],
                counts=counts,
                flags=_flags(row),
                score=row.get("score"),
                point_id=clean(row["point_id"]) if isinstance(row.get("point_id"), str) else None,
                area=areas.usable(row["id"], row.get("area"), counts, height, width),
                bbox_xywh=None if row.get("bbox") is None else tuple(row["bbox"]),
            )
            for row, counts in zip(own, codes, strict=True)
        )
        yield Frame(image["id"], image["file_name"], width, height, labels)
    if areas.count:
        log.warning("%s: %s", coco.path, areas)


def _flags(row: Mapping[str, Any]) -> frozenset[str]:
    """Flags of a COCO annotation: its `attributes` (as CVAT writes them too) and iscrowd."""
    given = row.get("attributes")
    flags = {name for name in FLAGS if isinstance(given, dict) and given.get(name) is True}
    if row.get("iscrowd") and not flags & {"crowd", "ignored"}:
        flags.add("crowd")
    return frozenset(flags)


def frames_of_split(split: Split) -> Iterator[Frame]:
    """The frames of a split. Tables hold one flag, so regions to ignore are crowds."""
    for i in range(len(split)):
        image = split.image(i)
        labels = tuple(
            Label(
                label_id=row["instance_id"],
                category_id=row["category_id"],
                counts=row["rle_counts"],
                flags=frozenset({"crowd"} if row["iscrowd"] else ()),
                score=tidy(row["score"]),
                area=tidy(row["area"]),
                bbox_xywh=tuple(tidy(value) for value in row["bbox_xywh"]),
            )
            for row in split.instances_of(i).to_pylist()
        )
        yield Frame(image["image_id"], image["file_name"], image["width"], image["height"], labels)


def frames_of_results(split: Split, results: Sequence[dict[str, Any]]) -> Iterator[Frame]:
    """Detections (rows of `data.annotations.results.read_results`) as frames, on all the images of a split."""
    found: dict[int, list[Label]] = {}
    for n, row in enumerate(results, start=1):
        label = Label(n, row["category_id"], row["segmentation"]["counts"], score=row["score"])
        found.setdefault(row["image_id"], []).append(label)
    for image in split.images.to_pylist():
        labels = tuple(found.get(image["image_id"], []))
        yield Frame(image["image_id"], image["file_name"], image["width"], image["height"], labels)


def frames_of_pseudo(weak: Split, pseudo: pa.Table, masks: str, min_score: float) -> Iterator[Frame]:
    """Pseudo labels (PSEUDO rows) that have a mask, as frames; images without any are left out.

    Args:
        weak: the split with the images of the points.
        pseudo: PSEUDO rows, of any order; label ids are numbers from 1 by image and point.
        masks: `refined`: the refined mask, or the rough one if there is none; `rough`: always the rough one.
        min_score: masks of a lower score are left out.
    """
    order = pseudo.sort_by([("image_id", "ascending"), ("point_id", "ascending")])
    image_of = order["image_id"].to_numpy()
    next_id = 1
    for image in weak.images.to_pylist():
        begin, end = np.searchsorted(image_of, [image["image_id"], image["image_id"] + 1])
        labels = []
        for row in order.slice(begin, end - begin).to_pylist():
            counts = (row["refined_rle"] if masks == "refined" else None) or row["rough_rle"]
            if row["status"] in ("ok", "rough") and counts and row["score"] >= min_score:
                score = tidy(row["score"])
                labels.append(
                    Label(next_id, row["category_id"], counts, score=score, point_id=row["point_id"])
                )
                next_id += 1
        if labels:
            yield Frame(image["image_id"], image["file_name"], image["width"], image["height"], tuple(labels))
