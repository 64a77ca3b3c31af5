"""Points of DotDotGoose: a .pnt file, JSON with the points of each image by class.

Points have no ids. If all coordinates of the file are whole, they are pixel indices and moved to the pixels' centres
(+0.5); otherwise they are pixels from the image's outer corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data.points.columns import at_centres
from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.values import number, shown

EXPECTED = "DotDotGoose's .pnt: JSON with 'points' and 'classes'"


def _images(document: Any) -> dict[str, Any] | None:
    if not isinstance(document, dict) or not isinstance(document.get("classes"), list):
        return None
    points = document.get("points")
    return points if isinstance(points, dict) else None


def sniff(file: PointFile, _: Options) -> bool:
    """JSON object with points by image and a list of classes."""
    return _images(file.json) is not None


def read(file: PointFile, _: Options) -> Iterator[PointRecord]:
    """One record a point.

    Raises:
        DataError: not JSON, or no points by image.
    """
    images = _images(file.json)
    if images is None:
        found = f"invalid JSON ({file.json_error})" if file.json_error else "no 'points' and 'classes'"
        raise file.fault(found, EXPECTED, "save it again with DotDotGoose")
    records = []
    for image, classes in images.items():
        like = PointRecord(file.name, f"image {image}"[:200], image or None, None, None, None)
        if not isinstance(classes, dict):
            problem = Problem("bad_record", shown(classes), "an object of classes")
            records.append(like._replace(problem=problem))
            continue
        for category, points in classes.items():
            place = f"{like.source_record} class {category}"[:250]
            known = like._replace(category=category or None, source_record=place)
            if isinstance(points, list):
                records += [_point(known, n, point) for n, point in enumerate(points)]
            else:
                problem = Problem("bad_record", shown(points), "a list of points")
                records.append(known._replace(problem=problem))
    yield from at_centres(records)


def _point(like: PointRecord, n: int, point: Any) -> PointRecord:
    like = like._replace(source_record=f"{like.source_record} point {n}")
    x, y = (number(point.get(axis)) for axis in "xy") if isinstance(point, dict) else (None, None)
    if x is None or y is None:
        return like._replace(problem=Problem("bad_point", shown(point), "an object with x and y, in pixels"))
    return like._replace(x=x, y=y, key=f"{like.image} {like.category} {x},{y}")


IMPORTER = Importer("dotdotgoose", sniff, read)
