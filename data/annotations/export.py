"""Writers of label files. They read frames one at a time, so memory doesn't grow with their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data import storage
from data.annotations.bitmasks import write_bitmasks
from data.annotations.frames import Frame, Label
from data.annotations.scalabel.out import write_scalabel
from data.annotations.strict_json import to_json
from data.annotations.writers.cvat import write_cvat
from data.annotations.writers.label_maps import write_label_maps
from data.annotations.writers.label_studio import LOCAL_FILES, write_label_studio
from data.annotations.writers.yolo import write_yolo
from data.masks import rle
from data.tables import Category

EXPORTS = {
    "coco": ".json",
    "coco-results": ".json",
    "scalabel": ".json",
    "bdd-bitmask": "",
    "yolo-seg": "",
    "cvat": ".xml",
    "label-maps": "",
    "label-studio": "",
}
"""Formats, and the ending of the file that is written; of a folder none."""
NO_CROWDS = ("yolo-seg", "cvat", "label-maps", "label-studio")
"""Formats without regions to ignore, which are left out."""
ONE_FILE_AN_IMAGE = ("bdd-bitmask", "yolo-seg", "label-maps")
"""Formats with files that are named after the images, without their suffix."""


def write_frames(
    folder: Path,
    name: str,
    format: str,
    frames: Iterable[Frame],
    categories: Sequence[Category],
    *,
    image_url: str = LOCAL_FILES,
    attributes: bool = False,
) -> dict[str, Any]:
    """Write frames in one of the formats `EXPORTS`: the file `folder`/`name` with its ending, or a folder of that name.

    Args:
        image_url: of label-studio: what precedes an image's name in its address.
        attributes: of coco: score and point_id are attributes too, which CVAT and Datumaro keep.

    Returns:
        Counts: images, labels, and what the format can't hold: hidden labels and covered pixels where masks can't
        overlap, crowds_left_out.

    Raises:
        DataError: labels that the format can't hold; see the writers.
    """
    counted = _Counted(frames, crowds=format not in NO_CROWDS)
    path = folder / f"{name}{EXPORTS[format]}"
    if format in ("bdd-bitmask", "label-maps"):
        path.mkdir()
        write = write_bitmasks if format == "bdd-bitmask" else write_label_maps
        drawn = write(path, counted, categories)
        hidden = [{"image": image, "label": label} for image, label in drawn.hidden]
        lost = {"hidden_labels": hidden, "covered_pixels": drawn.covered_pixels}
        return {"images": drawn.images, "labels": drawn.labels} | lost | counted.left_out()
    if format == "yolo-seg":
        path.mkdir()
        write_yolo(path, counted, categories)
    elif format == "label-studio":
        path.mkdir()
        write_label_studio(path, counted, categories, image_url)
    elif format == "cvat":
        write_cvat(path, counted, categories)
    elif format == "scalabel":
        write_scalabel(path, counted, categories)
    elif format == "coco":
        write_coco_frames(path, counted, categories, attributes)
    else:
        write_results_frames(path, counted)
    return {"images": counted.images, "labels": counted.labels} | counted.left_out()


class _Counted:
    """Frames, counted while they are read; without crowds where the format has none."""

    def __init__(self, frames: Iterable[Frame], crowds: bool) -> None:
        self._frames, self._crowds = frames, crowds
        self.images = 0
        self.labels = 0
        self._left_out = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            kept = tuple(label for label in frame.labels if self._crowds or not label.iscrowd)
            self.images += 1
            self.labels += len(kept)
            self._left_out += len(frame.labels) - len(kept)
            yield frame if self._crowds else replace(frame, labels=kept)

    def left_out(self) -> dict[str, int]:
        """`crowds_left_out`, if there are any."""
        return {"crowds_left_out": self._left_out} if self._left_out else {}


def write_coco_frames(
    path: Path, frames: Iterable[Frame], categories: Iterable[Category], attributes: bool = False
) -> None:
    """Write a COCO instances file, masks as compressed RLE, one annotation a line.

    Fields that COCO doesn't have are added: `attributes` for the flags, as CVAT does, and `score` and `point_id` of
    pseudo labels; with `attributes` these are also there.
    """
    images: list[dict[str, Any]] = []
    with storage.atomic_write(path) as partial, partial.open("w", encoding="utf-8") as out:
        out.write('{"annotations":[')
        first = True
        for frame in frames:
            size = {"width": frame.width, "height": frame.height}
            images.append({"id": frame.image_id, "file_name": frame.file_name, **size})
            for label in frame.labels:
                out.write(("\n" if first else ",\n") + to_json(_annotation(label, frame, attributes)))
                first = False
        out.write('\n],"images":' + to_json(images))
        table = [{"id": category.id, "name": category.name} for category in sorted(categories)]
        out.write(',"categories":' + to_json(table) + "}\n")


def _annotation(label: Label, frame: Frame, attributes: bool) -> dict[str, Any]:
    row = _mask(label, frame)
    area = rle.area(label.counts, frame.height, frame.width) if label.area is None else label.area
    row = {"id": label.label_id, **row, "area": area, "iscrowd": int(label.iscrowd)}
    named: dict[str, Any] = {}
    if label.flags - {"crowd"}:  # iscrowd holds that one
        named |= dict.fromkeys(sorted(label.flags), True)
    if attributes:
        named |= label.attributes()
    if named:
        row["attributes"] = named
    if label.score is not None:
        row["score"] = label.score
    if label.point_id is not None:
        row |= {"point_id": label.point_id, "source": "pseudo"}
    return row


def write_results_frames(path: Path, frames: Iterable[Frame]) -> None:
    """Write COCO results, one detection a line; labels without a score get 1.0."""
    with storage.atomic_write(path) as partial, partial.open("w", encoding="utf-8") as out:
        out.write("[")
        first = True
        for frame in frames:
            for label in frame.labels:
                row = _mask(label, frame) | {"score": 1.0 if label.score is None else label.score}
                row |= {} if label.point_id is None else {"point_id": label.point_id}
                out.write(("" if first else ",\n") + to_json(row))
                first = False
        out.write("]\n")


def _mask(label: Label, frame: Frame) -> dict[str, Any]:
    box = label.bbox_xywh
    return {
        "image_id": frame.image_id,
        "category_id": label.category_id,
        "segmentation": {"size": [frame.height, frame.width], "counts": label.counts.decode("ascii")},
        "bbox": list(rle.bbox_xywh(label.counts, frame.height, frame.width) if box is None else box),
    }
