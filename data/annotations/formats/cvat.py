"""Masks in CVAT XML 1.1 for images: polygons, painted masks, ellipses, and boxes as regions to ignore.

Shapes of one label and group are parts of one object, as in CVAT's own COCO export. Coordinates are pixels from the
image's outer corner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt

from data.annotations.coco.file import CocoFile
from data.annotations.records import ImageRow, ReadOptions, Records, ellipse
from data.annotations.writers.cvat import REVIEWED
from data.annotations.xml_file import load_xml
from data.masks import rle
from data.masks.polygons import from_polygons

EXPECTED = "CVAT XML 1.1: <annotations> with <image> elements"
_MASKS = frozenset({"polygon", "mask", "ellipse"})
_SHAPES = _MASKS | {"box", "points", "polyline", "cuboid", "skeleton"}


def read(path: Path, options: ReadOptions) -> CocoFile:
    """A file, or all .xml files of a folder; classes have the order of the file's labels.

    Raises:
        DataError: all faults of all files.
    """
    records = Records(path, options)
    classes: dict[str, None] = {}
    for file, root in records.documents(".xml", partial(load_xml, expected=EXPECTED)):
        again = "export it as CVAT for images 1.1"
        if root.tag != "annotations":
            records.fault(file, "file", f"root <{root.tag}>", EXPECTED, again)
        elif root.find("track") is not None:
            records.fault(file, "file", "tracks of a video", EXPECTED, again)
        names = (label.findtext("name") for label in root.iterfind("meta//labels/label"))
        classes |= dict.fromkeys(name for name in names if name and options.need_masks)
        for image in root.iterfind("image") if root.tag == "annotations" else ():
            _image(file, image, records)
    return records.file(list(classes))


def _image(file: Path, element: Element, records: Records) -> None:
    name, subset = element.get("name") or "", element.get("subset")
    record = f"image {name or element.get('id')}"
    # Tasks of a project may have images of one name; an export with images puts them into the subset's folder.
    names = [f"{subset}/{name}", name] if subset and name else [name]
    found = records.find(file, record, *filter(None, names))
    if found is None:
        return
    height, width = _whole(element.get("height")), _whole(element.get("width"))
    if height is None or width is None:
        sides = f"width {element.get('width')!r}, height {element.get('height')!r}"
        records.fault(file, record, sides, "whole numbers above 0")
        return
    image = records.image(file, record, found, (height, width))
    if image is None or not records.options.need_masks:
        return
    if any(tag.get("label") == REVIEWED for tag in element.iterfind("tag")):
        records.mark_reviewed(image)
    shapes = [one for one in element if one.tag in _SHAPES]
    drawn = {(one.get("label"), one.get("group_id")) for one in shapes if one.tag in _MASKS}
    groups: dict[tuple[str, str], list[bytes]] = {}
    facts: dict[tuple[str, str], dict[str, Any]] = {}
    for n, shape in enumerate(shapes):
        place = f"{record}, shape #{n}"
        grouped = (shape.get("group_id") or "0") != "0"
        if shape.tag == "box" and grouped and (shape.get("label"), shape.get("group_id")) in drawn:
            records.skipped["box of a mask"] += 1
            continue
        label = records.class_name(file, place, shape.get("label"))
        if label is None:
            continue
        try:
            counts = _mask(file, place, label, shape, image, records)
        except (ValueError, OverflowError) as error:
            records.fault(
                file, place, f"<{shape.tag}>: {error}", "a polygon, mask, ellipse or box in the image"
            )
            continue
        if counts is None:
            continue
        more: dict[str, Any] = {"place": place, "is_polygon": shape.tag != "mask"} | _ids(shape)
        if grouped:
            group = (label, shape.get("group_id") or "")
            groups.setdefault(group, []).append(counts)
            facts[group] = more | facts.get(group, {})  # the first id of its parts
        else:
            records.add(image, label, counts, **more)
    for group, parts in groups.items():
        records.add(image, group[0], rle.union(parts, image.height, image.width), **facts[group])


def _ids(shape: Element) -> dict[str, Any]:
    """The attribute point_id, if a shape has one."""
    texts = (one.text or "" for one in shape.iterfind("attribute") if one.get("name") == "point_id")
    found = "".join(texts).strip()
    return {"point_id": found} if found else {}


def _mask(
    file: Path, place: str, label: str, shape: Element, image: ImageRow, records: Records
) -> bytes | None:
    """The RLE of a shape; None where it is none.

    Raises:
        ValueError: what is wrong with it.
    """
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"points {shape.get('points')!r}"[:100])
        return from_polygons([[_number(v) for pair in pairs for v in pair]], image.height, image.width)
    if shape.tag == "ellipse":
        x, y, rx, ry = (_number(shape.get(key)) for key in ("cx", "cy", "rx", "ry"))
        corners = ellipse(x, y, rx, ry, _number(shape.get("rotation") or "0"))
        return from_polygons([corners], image.height, image.width)
    if shape.tag == "mask":
        return _painted(shape, image)
    if shape.tag == "box":
        x0, y0, x1, y1 = (_number(shape.get(key)) for key in ("xtl", "ytl", "xbr", "ybr"))
        records.add_box(file, place, image, label, (x0, y0, x1, y1))
    else:
        records.skipped[shape.tag] += 1
    return None


def _painted(shape: Element, image: ImageRow) -> bytes:
    """A painted mask: lengths of runs off, on, off, ... along the rows of its box."""
    box = [_whole(shape.get(key)) for key in ("left", "top", "width", "height")]
    lengths = [_whole(one.strip()) for one in (shape.get("rle") or "").split(",")]
    if None in box or None in lengths:
        raise ValueError("rle, left, top, width or height that is no whole number")
    left, top, width, height = (int(one or 0) for one in box)
    if left + width > image.width or top + height > image.height:
        raise ValueError(f"a box of {width} x {height} pixels at {left},{top}, outside of the image")
    runs = [int(one or 0) for one in lengths]
    if sum(runs) > width * height:
        raise ValueError(f"an rle of {sum(runs)} pixels in a box of {width} x {height}")
    drawn = np.zeros((image.height, image.width), bool)
    drawn[top : top + height, left : left + width] = from_row_runs(runs, width * height).reshape(
        height, width
    )
    return rle.encode(drawn)


def from_row_runs(lengths: Sequence[int], pixels: int) -> npt.NDArray[np.bool_]:
    """bool [pixels] of lengths of runs off, on, off, ...; the rest is off."""
    on = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.concatenate([on, np.zeros(pixels - len(on), bool)])


def _whole(value: str | None) -> int | None:
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 10 else None


def _number(value: str | None) -> float:
    """Raises ValueError for anything but a finite number."""
    number = float(value if value is not None else "nothing")
    if not math.isfinite(number):
        raise ValueError(f"{value} is no finite number")
    return number
