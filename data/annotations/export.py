"""Writers of label files. They read frames one at a time, so memory doesn't grow with their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data import storage
from data.annotations.bitmasks import write_bitmasks
from data.annotations.frames import Frame, Label
from data.annotations.scalabel.out import write_scalabel
from data.annotations.strict_json import to_json
from data.masks import rle
from data.tables import Category

EXPORTS = ("coco", "coco-results", "scalabel", "bdd-bitmask")


def write_frames(
    folder: Path, name: str, format: str, frames: Iterable[Frame], categories: Sequence[Category]
) -> dict[str, Any]:
    """Write frames in one of the formats `EXPORTS`: `folder`/`name`.json, or a folder of bitmasks `folder`/`name`.

    Returns:
        Counts: images, labels, and for bitmasks what they can't hold (hidden labels, covered pixels).

    Raises:
        DataError: labels that the format can't hold; see `write_scalabel`, `write_bitmasks`.
    """
    counted = _Counted(frames)
    if format == "bdd-bitmask":
        (folder / name).mkdir()
        drawn = write_bitmasks(folder / name, counted, categories)
        hidden = [{"image": image, "label": label} for image, label in drawn.hidden]
        lost = {"hidden_labels": hidden, "covered_pixels": drawn.covered_pixels}
        return {"images": drawn.images, "labels": drawn.labels} | lost
    path = folder / f"{name}.json"
    if format == "scalabel":
        write_scalabel(path, counted, categories)
    elif format == "coco":
        write_coco_frames(path, counted, categories)
    else:
        write_results_frames(path, counted)
    return {"images": counted.images, "labels": counted.labels}


class _Counted:
    """Frames, counted while they are read."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = frames
        self.images = 0
        self.labels = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            self.images += 1
            self.labels += len(frame.labels)
            yield frame


def write_coco_frames(path: Path, frames: Iterable[Frame], categories: Iterable[Category]) -> None:
    """Write a COCO instances file, masks as compressed RLE, one annotation a line.

    Fields that COCO doesn't have are added: `attributes` for the flags, as CVAT does, and `score` and `point_id` of
    pseudo labels.
    """
    images: list[dict[str, Any]] = []
    with storage.atomic_write(path) as partial, partial.open("w", encoding="utf-8") as out:
        out.write('{"annotations":[')
        first = True
        for frame in frames:
            size = {"width": frame.width, "height": frame.height}
            images.append({"id": frame.image_id, "file_name": frame.file_name, **size})
            for label in frame.labels:
                out.write(("\n" if first else ",\n") + to_json(_annotation(label, frame)))
                first = False
        out.write('\n],"images":' + to_json(images))
        table = [{"id": category.id, "name": category.name} for category in sorted(categories)]
        out.write(',"categories":' + to_json(table) + "}\n")


def _annotation(label: Label, frame: Frame) -> dict[str, Any]:
    row = _mask(label, frame)
    area = rle.area(label.counts, frame.height, frame.width) if label.area is None else label.area
    row = {"id": label.label_id, **row, "area": area, "iscrowd": int(label.iscrowd)}
    if label.flags - {"crowd"}:  # iscrowd holds that one
        row["attributes"] = dict.fromkeys(sorted(label.flags), True)
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
