"""Masks in labelme's JSON, one file an image: polygons, painted masks, circles, and rectangles as regions to ignore.

Shapes of one label and `group_id` are parts of one object. Coordinates are pixels from the image's outer corner.
"""

from __future__ import annotations

import base64
import binascii
import io
import posixpath
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.annotations.coco.checks import MAX_PIXELS, is_id
from data.annotations.coco.file import CocoFile
from data.annotations.records import ImageRow, ReadOptions, Records, ellipse
from data.annotations.strict_json import is_number, load_json
from data.masks import rle
from data.masks.polygons import from_polygons

EXPECTED = "labelme's JSON with 'shapes' and 'imagePath'"
_NO_MASKS = ("point", "points", "line", "linestrip")


def read(path: Path, options: ReadOptions) -> CocoFile:
    """A file, or all .json files of a folder.

    Raises:
        DataError: all faults of all files.
    """
    records = Records(path, options)
    for file, document in records.documents(".json", load_json):
        if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
            records.fault(file, "file", "no list 'shapes'", EXPECTED, "save it again with labelme")
            continue
        _read(file, document, records)
    return records.file()


def _read(file: Path, document: dict[str, Any], records: Records) -> None:
    given = document.get("imagePath")
    names = [file.with_suffix("").name]
    if isinstance(given, str) and given:
        given = given.replace("\\", "/")
        names = [given, posixpath.basename(given)]
    name = records.find(file, "imagePath", *names)
    if name is None:
        return
    height, width = document.get("imageHeight"), document.get("imageWidth")
    size = (int(height), int(width)) if is_id(height) and is_id(width) else None  # type: ignore[arg-type]
    if not records.options.need_masks:
        records.image(file, "image", name, size)
        return
    if size is None:
        records.prepare([name])
        size = records.size(name)
    image = records.image(file, "image", name, size) if size is not None else None
    if image is None:
        return
    groups: dict[tuple[str, str], list[bytes]] = {}
    for n, shape in enumerate(document["shapes"]):
        record = f"shape #{n}"
        if not isinstance(shape, dict):
            records.fault(file, record, type(shape).__name__, "a JSON object")
            continue
        label = records.class_name(file, record, shape.get("label"))
        counts = None if label is None else _mask(file, record, label, shape, image, records)
        if label is None or counts is None:
            continue
        group = shape.get("group_id")
        if group is None:
            records.add(image, label, counts)
        else:
            groups.setdefault((label, repr(group)), []).append(counts)
    for (name, _), parts in groups.items():
        records.add(image, name, rle.union(parts, image.height, image.width))


def _mask(
    file: Path, record: str, label: str, shape: dict[str, Any], image: ImageRow, records: Records
) -> bytes | None:
    """The RLE of a shape; None where it is none, or after a fault."""
    kind: Any = shape.get("shape_type") or "polygon"
    points: Any = shape.get("points")
    if kind in _NO_MASKS:
        records.skipped[kind] += 1
        return None
    sound = isinstance(points, list) and all(
        isinstance(p, list) and len(p) == 2 and all(map(is_number, p)) for p in points
    )
    if not sound or (kind != "polygon" and len(points) != 2):
        found = f"points {points!r}"
        records.fault(file, record, found, "points [[x, y], ...] in pixels" + ", two" * (kind != "polygon"))
        return None
    try:
        if kind == "rectangle":
            (x0, y0), (x1, y1) = points
            records.add_box(file, record, image, label, (x0, y0, x1, y1))
            return None
        return _drawn(kind, points, shape.get("mask"), image)
    except (ValueError, OverflowError) as error:
        records.fault(file, record, str(error), "a polygon, mask, circle or rectangle in the image")
        return None


def _drawn(kind: str, points: list[list[float]], mask: Any, image: ImageRow) -> bytes:
    """The RLE of a polygon, a circle or a painted mask.

    Raises:
        ValueError: what is wrong with it.
    """
    if kind == "polygon":
        return from_polygons([[v for point in points for v in point]], image.height, image.width)
    (x0, y0), (x1, y1) = points
    if kind == "mask":
        return _painted(mask, int(x0), int(y0), image)
    if kind != "circle":
        raise ValueError(f"shape_type {kind!r}")
    radius = float(np.hypot(x1 - x0, y1 - y0))
    return from_polygons([ellipse(x0, y0, radius, radius)], image.height, image.width)


def _painted(data: Any, x: int, y: int, image: ImageRow) -> bytes:
    """A PNG in base64 whose top left pixel is (x, y)."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=("PNG",)) as png:
            if png.width * png.height > min(MAX_PIXELS, image.height * image.width):
                raise ValueError(f"a mask of {png.width} x {png.height} pixels, larger than the image")
            part = np.asarray(png.convert("L")) > 0
    except (OSError, SyntaxError, TypeError, binascii.Error, Image.DecompressionBombError) as error:
        raise ValueError(f"a mask that can't be read ({type(error).__name__})") from None
    if x < 0 or y < 0 or x + part.shape[1] > image.width or y + part.shape[0] > image.height:
        raise ValueError(
            f"a mask of {part.shape[1]} x {part.shape[0]} pixels at {x},{y}, outside of the image"
        )
    drawn = np.zeros((image.height, image.width), bool)
    drawn[y : y + part.shape[0], x : x + part.shape[1]] = part
    return rle.encode(drawn)
