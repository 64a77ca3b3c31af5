"""Points in COCO style: annotations with ``"point": [x, y]``, or keypoints with one visible point.

A ``point`` is in pixels from the image's outer corner. Whole-numbered COCO keypoints are pixel
indices; where every keypoint of the file is whole, each is moved to its pixel's centre (+0.5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from data.points.record import Importer, PointFile, PointRecord, Problem

EXPECTED_POINT = "point [x, y], or keypoints with one visible point"


def sniff(file: PointFile) -> bool:
    """JSON object with a list of annotations and a list of images or categories."""
    document = file.json
    return (
        isinstance(document, dict)
        and isinstance(document.get("annotations"), list)
        and (isinstance(document.get("images"), list) or isinstance(document.get("categories"), list))
    )


def read(file: PointFile) -> Iterator[PointRecord]:
    """One record an annotation, in the file's order, those at fault with their ``problem``.

    Images and classes go by the names that the file gives their ids; an id that it doesn't list is
    taken for the data set's own.

    Raises:
        DataError: the file is not JSON, or has no list of annotations.
    """
    if file.json is None:
        raise file.fault(f"no JSON ({file.json_error})", "a COCO-style JSON file", "export the file again")
    document = file.json
    if not isinstance(document, dict) or not isinstance(document.get("annotations"), list):
        raise file.fault("no list 'annotations'", "a COCO-style JSON file", "export the points as COCO JSON")
    images = _names(document.get("images"), "file_name")
    categories = _names(document.get("categories"), "name")
    rows = document["annotations"]
    shift = 0.5 if _keypoints_are_indices(rows) else 0.0
    for n, row in enumerate(rows):
        if isinstance(row, dict):
            yield _record(file.path.name, n, row, images=images, categories=categories, shift=shift)
        else:
            problem = Problem("bad_record", type(row).__name__, "a JSON object")
            yield PointRecord(file.path.name, f"annotation #{n}", None, None, None, None, problem=problem)


def _names(rows: Any, field: str) -> dict[int, str]:
    """The name of each id in a list of COCO records; malformed ones are passed over."""
    return {
        row["id"]: row[field]
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and isinstance(row.get("id"), int) and isinstance(row.get(field), str)
    }


def _record(
    file_name: str,
    n: int,
    row: dict[str, Any],
    *,
    images: Mapping[Any, str],
    categories: Mapping[Any, str],
    shift: float,
) -> PointRecord:
    has_id = isinstance(row.get("id"), int | str)
    image: Any = row.get("image_id", row.get("file_name"))
    category: Any = row.get("category_id", row.get("category"))
    xy = _point(row, shift)
    annotator, labelled_at = row.get("annotator"), row.get("labelled_at")
    return PointRecord(
        source_file=file_name,
        source_record=f"annotation {row['id']}" if has_id else f"annotation #{n}",
        image=images.get(image, image) if isinstance(image, int | str) else None,
        category=categories.get(category, category) if isinstance(category, int | str) else None,
        x=None if isinstance(xy, Problem) else xy[0],
        y=None if isinstance(xy, Problem) else xy[1],
        annotator=None if annotator is None else str(annotator),
        labelled_at=None if labelled_at is None else str(labelled_at),
        problem=xy if isinstance(xy, Problem) else None,
    )


def _point(row: dict[str, Any], shift: float) -> tuple[float, float] | Problem:
    if row.get("point") is not None:
        point = row["point"]
        if isinstance(point, list) and len(point) == 2 and all(map(_is_number, point)):
            return float(point[0]), float(point[1])
        return Problem("bad_point", f"point {point!r}"[:200], "point [x, y] in pixels")
    if row.get("keypoints"):
        visible = _visible(row["keypoints"])
        if visible is None:
            return Problem("bad_point", f"keypoints {row['keypoints']!r}"[:200], "triples x, y, visibility")
        if len(visible) != 1:
            return Problem("bad_point", f"{len(visible)} visible keypoints", "one visible keypoint")
        return visible[0][0] + shift, visible[0][1] + shift
    return Problem("no_point", f"fields {', '.join(sorted(map(str, row)))}"[:200], EXPECTED_POINT)


def _visible(keypoints: Any) -> list[tuple[float, float]] | None:
    """The labelled keypoints (visibility above 0); None where they are malformed."""
    if not isinstance(keypoints, list) or len(keypoints) % 3 or not all(map(_is_number, keypoints)):
        return None
    triples = zip(keypoints[::3], keypoints[1::3], keypoints[2::3], strict=True)
    return [(float(x), float(y)) for x, y, visibility in triples if visibility > 0]


def _keypoints_are_indices(rows: list[Any]) -> bool:
    """Whether every visible keypoint of the file has whole coordinates."""
    found = [_visible(row["keypoints"]) for row in rows if isinstance(row, dict) and row.get("keypoints")]
    return all(value.is_integer() for visible in found for xy in visible or [] for value in xy)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


IMPORTER = Importer("coco", sniff, read)
