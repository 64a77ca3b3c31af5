"""Points in labelme's JSON, one file per image: shapes of type "point".

Shapes have no ids. A record's key consists of its label and coordinates, so its id doesn't change when other shapes are
added or removed. Coordinates are pixels from the image's outer corner.

Points of one label and `group_id` are clicks on one object, as its masks are parts of one. One with the flag `outside`
or `negative` is outside of it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.values import number, shown, text

OUTSIDE = ("outside", "negative")
EXPECTED = "labelme's JSON with 'shapes' and 'imagePath'"


def sniff(file: PointFile, _: Options) -> bool:
    """JSON object with a list of shapes and other keys of labelme."""
    document = file.json
    return (
        isinstance(document, dict)
        and isinstance(document.get("shapes"), list)
        and bool({"imagePath", "imageData", "imageHeight"} & document.keys())
    )


def read(file: PointFile, _: Options) -> Iterator[PointRecord]:
    """One record a shape; those that aren't points are set aside.

    Raises:
        DataError: not JSON, or no list of shapes.
    """
    document = file.json
    if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
        found = f"invalid JSON ({file.json_error})" if file.json_error else "no list 'shapes'"
        raise file.fault(found, EXPECTED, "save it again with labelme")
    names = _image_names(file, text(document.get("imagePath")))
    width, height = number(document.get("imageWidth")), number(document.get("imageHeight"))
    size = None if width is None or height is None else (int(width), int(height))
    for n, shape in enumerate(document["shapes"]):
        place = f"shape #{n}"
        like = PointRecord(file.name, place, names[0], None, None, None, also=names[1:], size=size)
        if not isinstance(shape, dict):
            problem = Problem("bad_record", type(shape).__name__, "a JSON object")
            yield like._replace(problem=problem)
            continue
        like = like._replace(category=text(shape.get("label")))
        kind = shape.get("shape_type")
        if kind != "point":
            yield like._replace(problem=Problem("not_a_point", f"shape_type {shown(kind)}", "point"))
            continue
        xy = _point(shape.get("points"))
        if xy is None:
            found = f"points {shown(shape.get('points'))}"
            yield like._replace(problem=Problem("bad_point", found, "points [[x, y]] in pixels"))
        else:
            group = shape.get("group_id")
            yield like._replace(
                x=xy[0], y=xy[1], key=f"{like.category} {xy[0]},{xy[1]}", inside=not _is_outside(shape.get("flags")),
                object=None if group is None else f"{like.category}, group {shown(group)}",
            )  # fmt: skip


def _is_outside(flags: Any) -> bool:
    return isinstance(flags, dict) and any(flags.get(name) is True for name in OUTSIDE)


def _point(points: Any) -> tuple[float, float] | None:
    if not isinstance(points, list) or len(points) != 1:
        return None
    if not isinstance(points[0], list) or len(points[0]) != 2:
        return None
    x, y = map(number, points[0])
    return None if x is None or y is None else (x, y)


def _image_names(file: PointFile, path: str | None) -> tuple[str, ...]:
    """imagePath joined to the file's folder, then as it is; without imagePath the file's own stem."""
    if path is None:
        return (PurePosixPath(file.name).with_suffix("").as_posix(),)
    path = path.replace("\\", "/")
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(file.name), path))
    # The folder of the images may have another name in the data set.
    bare = [posixpath.basename(path)] if path.startswith("../") else []
    return tuple(dict.fromkeys(name for name in (joined, path, *bare) if name))


IMPORTER = Importer("labelme", sniff, read)
