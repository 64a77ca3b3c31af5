"""Scalabel frames written: masks as RLE, which is exact; flags, scores, ids and clicks kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from data import storage
from data.annotations.frames import FLAGS, Frame, Label
from data.errors import DataError, Fault
from data.masks import rle
from data.tables import Category


def write_scalabel(
    path: str | os.PathLike[str], frames: Iterable[Frame], categories: Iterable[Category]
) -> int:
    """Write {frames, config} whole or not at all, one frame a line; `data.annotations.scalabel.file.read_scalabel`
    reads the same back.

    Scalabel has no place for the ids of images and classes: they stand in a frame's attributes, as text, and as `id`
    of the classes where these aren't 1, 2, ... as Scalabel counts them. Boxes are the masks', their last pixels
    within, as Scalabel's own; what a COCO file says of box and area is not written.

    Returns:
        How many labels were written.

    Raises:
        DataError: two frames of one name.
    """
    table = sorted(categories)
    names = {category.id: category.name for category in table}
    seen: set[str] = set()
    count = 0
    with storage.atomic_write(path) as partial, partial.open("w", encoding="utf-8") as out:
        out.write('{"frames":[')
        for frame in frames:
            if frame.file_name in seen:
                raise DataError(
                    Fault(str(path), f"image {frame.image_id}", f"a second frame {frame.file_name!r}",
                          "names that differ", "give all labels of an image one image_id")
                )  # fmt: skip
            out.write((",\n" if seen else "\n") + _json(_frame(frame, names)))
            seen.add(frame.file_name)
            count += len(frame.labels)
        out.write('\n],"groups":null,"config":' + _json(_config(table)) + "}\n")
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


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
