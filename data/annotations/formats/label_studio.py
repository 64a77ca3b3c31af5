"""Masks in Label Studio's JSON and JSON_MIN: polygons, brushes, ellipses, and rectangles as regions to ignore.

Coordinates are percent of the image's width and height; `rotation` turns a shape clockwise. Of several annotations of a
task the newest counts, since each annotator draws the same objects; predictions and drafts are not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data.annotations.coco.checks import MAX_PIXELS, is_id
from data.annotations.coco.file import CocoFile
from data.annotations.records import ImageRow, ReadOptions, Records, ellipse
from data.annotations.strict_json import is_number, load_json
from data.images.addresses import image_names
from data.masks import rle
from data.storage import IMAGE_SUFFIXES

EXPECTED = "Label Studio's JSON or JSON_MIN: a list of tasks with their annotations"
_NO_MASKS = frozenset({"keypointlabels", "keypoint", "vectorlabels", "vector", "videorectangle"})
_LABELS = frozenset({"labels", "choices"})

Json = dict[str, Any]


class _Region(NamedTuple):
    """A region: its place for messages, its fields, and the labels in results of their own."""

    record: str
    fields: Json
    labels: list[Any]


def is_tasks(document: Any) -> bool:
    """Whether a JSON value is a list of tasks."""
    return isinstance(document, list) and any(
        isinstance(task, dict) and (_annotations(task) is not None or bool(_min_rows(task)))
        for task in document[:100]
    )


def read(path: Path, options: ReadOptions) -> CocoFile:
    """A file, or all .json files of a folder (an export has one, a storage one for each annotation).

    Raises:
        DataError: all faults of all files.
    """
    records = Records(path, options)
    for file, document in records.documents(".json", load_json):
        if not is_tasks(document):
            records.fault(
                file, "file", f"{type(document).__name__} without tasks", EXPECTED, "export it as JSON"
            )
            continue
        for n, task in enumerate(document):
            place = f"task {task.get('id', f'#{n}')}" if isinstance(task, dict) else f"task #{n}"
            if isinstance(task, dict):
                _task(file, place, task, records)
            else:
                records.fault(file, place, type(task).__name__, "a JSON object")
    return records.file()


def _annotations(task: Json) -> list[Any] | None:
    found = task.get("annotations", task.get("completions"))
    return found if isinstance(found, list) and isinstance(task.get("data"), dict) else None


def _min_rows(task: Json) -> list[tuple[str, Json]]:
    return [
        (name, row)
        for name, rows in task.items()
        if isinstance(rows, list)
        for row in rows
        if isinstance(row, dict) and "original_width" in row
    ]


def _task(file: Path, place: str, task: Json, records: Records) -> None:
    annotations = _annotations(task)
    if annotations is None:
        data, regions = (
            task,
            [_Region(f"{place}, {name} #{n}", row, []) for n, (name, row) in enumerate(_min_rows(task))],
        )
    else:
        data = task["data"]
        usable = [
            one for one in annotations if isinstance(one, dict) and one.get("was_cancelled") is not True
        ]
        if not usable and records.options.need_masks:
            records.skipped["task without annotation"] += 1
            return
        if len(usable) > 1:
            records.skipped["older annotation of a task"] += len(usable) - 1
        newest = max(usable, key=lambda one: str(one.get("updated_at") or "")) if usable else {}
        regions = list(_regions(place, newest.get("result")))
    uploaded = task.get("file_upload")
    addresses = [*_addresses(data), *([uploaded] if isinstance(uploaded, str) and uploaded else [])]
    found = records.find(file, place, *image_names(tuple(addresses)))
    if found is None:
        return
    if not records.options.need_masks:
        records.image(file, place, found, None)
        return
    sizes = [(one.fields.get("original_height"), one.fields.get("original_width")) for one in regions]
    size = next(((int(h), int(w)) for h, w in sizes if is_id(h) and is_id(w)), None)  # type: ignore[arg-type]
    if size is None:
        records.prepare([found])
        size = records.size(found)
    image = records.image(file, place, found, size) if size is not None else None
    if image is not None:
        records.mark_reviewed(image)
        for region in regions:
            _region(file, region, image, records)


def _addresses(data: Json) -> list[str]:
    """The texts of a task's data that may be its image's address; those that end as an image's come first."""
    texts = [value for value in data.values() if isinstance(value, str) and value]
    images = [text for text in texts if text.lower().split("?")[0].endswith(IMAGE_SUFFIXES)]
    return images or texts[:1]


def _regions(place: str, results: Any) -> Iterator[_Region]:
    rows = [row for row in results if isinstance(row, dict)] if isinstance(results, list) else []
    labels: dict[str, list[Any]] = {}
    for row in rows:
        value = row.get("value")
        if row.get("type") == "labels" and isinstance(value, dict) and isinstance(value.get("labels"), list):
            labels.setdefault(str(row.get("id")), []).extend(value["labels"])
    for n, row in enumerate(rows):
        value = row.get("value")
        if isinstance(value, dict) and str(row.get("type")) not in _LABELS and "original_width" in row:
            record = f"{place}, result {row.get('id', f'#{n}')}"
            yield _Region(record, {**row, **value}, labels.get(str(row.get("id")), []))


def _region(file: Path, region: _Region, image: ImageRow, records: Records) -> None:
    fields = region.fields
    kind = str(fields.get("type") or next((key for key in fields if key.endswith("labels")), ""))
    if kind in _NO_MASKS or ("x" in fields and not fields.keys() & {"points", "rle", "width", "radiusX"}):
        records.skipped[kind or "point"] += 1
        return
    given = fields.get(kind) or region.labels
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or len(given) != 1:
        records.fault(file, region.record, f"labels {given!r}", "one label a region")
        return
    if (fields.get("original_height"), fields.get("original_width")) != (image.height, image.width):
        size = f"{fields.get('original_width')} x {fields.get('original_height')} pixels"
        records.fault(
            file, region.record, size, f"{image.width} x {image.height}, as other regions of the task"
        )
        return
    try:
        _draw(file, region, given[0], image, records)
    except (ValueError, TypeError, OverflowError) as error:
        records.fault(file, region.record, str(error), "a polygon, brush, ellipse or rectangle in the image")


def _draw(file: Path, region: _Region, label: Any, image: ImageRow, records: Records) -> None:
    """Raises ValueError, TypeError for what is wrong with a region."""
    fields = region.fields
    more: Json = {"place": region.record, "is_polygon": "rle" not in fields, "tool_ids": _ids(fields)}
    across, down = image.width / 100, image.height / 100
    if "rle" in fields:
        name = records.class_name(file, region.record, label)
        if name is not None:
            mask = decode_brush(fields["rle"], image.height, image.width)
            records.add(image, name, rle.encode(mask), **more)
        return
    if "points" in fields:
        pairs = [(float(x) * across, float(y) * down) for x, y in fields["points"]]
        records.add_polygons(file, region.record, image, label, [[v for pair in pairs for v in pair]], **more)
        return
    names = ("x", "y", "radiusX", "radiusY") if "radiusX" in fields else ("x", "y", "width", "height")
    numbers = [fields.get(name) for name in names]
    if not all(is_number(number) for number in numbers):
        raise ValueError(f"{', '.join(names)} {numbers}")
    x, y, w, h = (
        float(v or 0) * scale for v, scale in zip(numbers, (across, down, across, down), strict=True)
    )
    turn = fields.get("rotation") or 0
    if "radiusX" in fields:
        records.add_polygons(file, region.record, image, label, [ellipse(x, y, w, h, float(turn))], **more)
        return
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))  # around the top left corner
    corners = [
        v for a, b in ((0, 0), (w, 0), (w, h), (0, h)) for v in (x + a * cos - b * sin, y + a * sin + b * cos)
    ]
    records.boxes += 1
    records.add_polygons(file, region.record, image, label, [corners], True)


def _ids(fields: Json) -> tuple[str, ...]:
    """A region's own id, and the words of its note: an export of ours has the point_id in both."""
    meta = fields.get("meta")
    text = meta.get("text") if isinstance(meta, dict) else None
    notes = text if isinstance(text, list) else [text]
    return tuple(one for one in dict.fromkeys([fields.get("id"), *notes]) if isinstance(one, str))


def decode_brush(data: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Mask [H, W] of Label Studio's run-length code for a brush.

    Args:
        data: a list of bytes. They are a stream of bits: 32 bits for the number of values, 5 for the bits of a value
            (less 1), four times 4 for the bits of a length (less 1). Then runs: a bit that is 1 if all values of the
            run are one, 2 bits that choose among the four, the length (less 1), and the one value, or each value. The
            values are an RGBA image, row by row; a pixel is of the mask where alpha is above 0.

    Raises:
        ValueError: another form, or of another size than the image.
    """
    if not isinstance(data, list) or not all(isinstance(one, int) and 0 <= one < 256 for one in data):
        raise ValueError("rle that is no list of bytes")
    bits = _Bits(bytes(data))
    count = bits.read(32)
    if count != height * width * 4 or height * width > MAX_PIXELS:
        raise ValueError(f"rle of {count:,} values, not 4 for each of {width} x {height} pixels")
    value_bits = bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        is_run = bits.read(1)
        end = at + bits.read(length_bits[bits.read(2)]) + 1
        if end > count:
            raise ValueError("rle that is longer than the image")
        if is_run:
            values[at:end] = min(bits.read(value_bits), 255)
        else:
            for n in range(at, end):
                values[n] = min(bits.read(value_bits), 255)
        at = end
    mask: npt.NDArray[np.bool_] = values.reshape(height, width, 4)[..., 3] > 0
    return mask


class _Bits:
    """A stream of bits, the highest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._end = data + bytes(8), 0, 8 * len(data)

    def read(self, count: int) -> int:
        """The next `count` bits, at most 32, as a number."""
        first, skip = divmod(self._at, 8)
        self._at += count
        if self._at > self._end:
            raise ValueError("rle that ends too early")
        return int.from_bytes(self._data[first : first + 8], "big") >> (64 - skip - count) & (
            (1 << count) - 1
        )
