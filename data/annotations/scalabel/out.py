"""Writer of Scalabel frames: masks as RLE, which is exact; flags, scores, ids and clicks are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from data import storage
from data.annotations.frames import FLAGS, Frame, Label
from data.annotations.strict_json import to_json
from data.errors import DataError, Fault
from data.masks import rle
from data.tables import Category


def write_scalabel(
    path: str | os.PathLike[str], frames: Iterable[Frame], categories: Iterable[Category]
) -> int:
    """Write {frames, config} atomically, one frame a line; `data.annotations.scalabel.file.read_scalabel` restores it.

    Scalabel has no ids of images and classes. Image ids are written as text into a frame's attributes, class ids as
    `id` of the classes unless they are 1, 2, ... as in Scalabel. Boxes are computed from the masks, up to their last
    pixels, as in Scalabel; box and area of a COCO file are not written.

    Returns:
        How many labels were written.

    Raises:
        DataError: two frames of one name.
    """
    table = sorted(categories)
    names = {category.id: category.name for category in table}
    names_written: set[str] = set()
    count = 0
    with storage.atomic_write(path) as partial, partial.open("w", encoding="utf-8") as out:
        out.write('{"frames":[')
        for frame in frames:
            if frame.file_name in names_written:
                raise DataError(
                    Fault(str(path), f"image {frame.image_id}", f"a second frame {frame.file_name!r}",
                          "names that differ", "give all labels of an image one image_id")
                )  # fmt: skip
            out.write((",\n" if names_written else "\n") + to_json(_frame(frame, names)))
            names_written.add(frame.file_name)
            count += len(frame.labels)
        out.write('\n],"groups":null,"config":' + to_json(_config(table)) + "}\n")
    return count


def _frame(frame: Frame, names: dict[int, str]) -> dict[str, Any]:
    return {
        "name": frame.file_name,
        "size": {"width": frame.width, "height": frame.height},
        "attributes": {"image_id": str(frame.image_id)},
        "labels": [_label(label, frame, names) for label in frame.labels],
    }


def _label(label: Label, frame: Frame, names: dict[int, str]) -> dict[str, Any]:
    attributes: dict[str, Any] = {flag: flag in label.flags for flag in FLAGS}
    row: dict[str, Any] = {"id": str(label.label_id), "category": names[label.category_id]}
    if label.score is not None:
        row["score"] = label.score
    if label.point_id is not None:
        attributes["point_id"] = label.point_id
    row["attributes"] = attributes
    x, y, width, height = rle.bbox_xywh(label.counts, frame.height, frame.width)
    if width and height:
        row["box2d"] = {"x1": x, "y1": y, "x2": x + width - 1, "y2": y + height - 1}
    row["rle"] = {"counts": label.counts.decode("ascii"), "size": [frame.height, frame.width]}
    return row


def _config(table: list[Category]) -> dict[str, Any]:
    as_counted = [category.id for category in table] == list(range(1, len(table) + 1))
    return {
        "attributes": [{"name": flag, "type": "switch", "tag": flag[0]} for flag in FLAGS],
        "categories": [{"name": c.name} if as_counted else {"name": c.name, "id": c.id} for c in table],
    }
