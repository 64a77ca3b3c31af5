"""Points in COCO style: annotations with ``"point": [x, y]``, or keypoints with one visible point.

Several clicks of one object are ``"point_coords": [[x, y], ...]``, as SAM names them, with ``"point_labels"`` 1 for a
click inside the object and 0 for one outside it; without labels all are inside.

A ``point`` is in pixels from the image's outer corner. Whole-numbered COCO keypoints are pixel
indices: if all keypoints of the file are whole, each is moved to its pixel's centre (+0.5).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.values import id_first, name_or_id, number, shown, text
from data.points.without_points import BOX_STEP, MASK_STEP, counted

EXPECTED_POINT = "point [x, y], point_coords, or keypoints with one visible point"

COORDS, LABELS = "point_coords", "point_labels"
"""The clicks of an object, and for each whether it is inside."""

Size = tuple[int, int]


def sniff(file: PointFile, _: Options) -> bool:
    """JSON object with a list of annotations and a list of images or categories."""
    document = file.json
    return (
        isinstance(document, dict)
        and isinstance(document.get("annotations"), list)
        and (isinstance(document.get("images"), list) or isinstance(document.get("categories"), list))
    )


def read(file: PointFile, _: Options) -> Iterator[PointRecord]:
    """One record a click, in the file's order; faulty ones with a ``problem``.

    Images and classes are identified by the names that the file has for their ids; an id without a name is used as the
    data set's own.

    Raises:
        DataError: not JSON, no list of annotations, or masks and boxes only.
    """
    if file.json is None:
        raise file.fault(
            f"invalid JSON ({file.json_error or 'null'})", "a COCO-style JSON file", "export the file again"
        )
    document = file.json
    if not isinstance(document, dict) or not isinstance(document.get("annotations"), list):
        raise file.fault("no list 'annotations'", "a COCO-style JSON file", "export the points as COCO JSON")
    images = _by_id(document.get("images"), "file_name")
    sizes = {i: size for i, row in images.items() if (size := _size(row)) is not None}
    names = {i: row["file_name"] for i, row in images.items()}
    categories = {i: row["name"] for i, row in _by_id(document.get("categories"), "name").items()}
    rows = document["annotations"]
    if rows and all(_is_shape(row) for row in rows):
        kinds = Counter(_kind(row) for row in rows)
        raise file.fault(
            counted(kinds), EXPECTED_POINT, BOX_STEP if kinds.keys() == {"box"} else MASK_STEP, "annotations"
        )
    shift = 0.5 if _keypoints_are_indices(rows) else 0.0
    for n, row in enumerate(rows):
        if isinstance(row, dict):
            record = _record(file.name, n, row, names=names, sizes=sizes, categories=categories, shift=shift)
            yield from [record] if row.get(COORDS) is None else _clicks(record, row)
        else:
            problem = Problem("bad_record", type(row).__name__, "a JSON object")
            yield PointRecord(file.name, f"annotation #{n}", None, None, None, None, problem=problem)


def _is_shape(row: Any) -> bool:
    """Whether an annotation has a mask or a box and no point."""
    if not isinstance(row, dict) or row.get("point") is not None or row.get(COORDS) or row.get("keypoints"):
        return False
    return bool(row.get("segmentation") or row.get("bbox"))


def _kind(row: Mapping[str, Any]) -> str:
    mask = row.get("segmentation")
    return "box" if not mask else "polygon" if isinstance(mask, list) else "mask"


def _by_id(rows: Any, field: str) -> dict[str, dict[str, Any]]:
    """COCO records with an id and a name, by their id as text; malformed ones are skipped.

    As text, since tools write 7 in one list and "7" in the other.
    """
    return {
        str(row["id"]): row
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and name_or_id(row.get("id")) is not None and isinstance(row.get(field), str)
    }


def _size(row: Mapping[str, Any]) -> Size | None:
    width, height = number(row.get("width")), number(row.get("height"))
    return None if width is None or height is None else (int(width), int(height))


def _record(
    file_name: str,
    n: int,
    row: dict[str, Any],
    *,
    names: Mapping[str, str],
    sizes: Mapping[str, Size],
    categories: Mapping[str, str],
    shift: float,
) -> PointRecord:
    has_id = name_or_id(row.get("id")) is not None
    given = name_or_id(row.get("image_id", row.get("file_name")))
    image, also = id_first(given) if "image_id" in row else (given, ())
    if str(given) in names:
        image, also = names[str(given)], ()
    category = name_or_id(row.get("category_id", row.get("category")))
    xy = _point(row, shift)
    return PointRecord(
        source_file=file_name,
        source_record=f"annotation {row['id']}" if has_id else f"annotation #{n}",
        image=image,
        category=categories.get(str(category), category),
        x=None if isinstance(xy, Problem) else xy[0],
        y=None if isinstance(xy, Problem) else xy[1],
        annotator=text(row.get("annotator")),
        labelled_at=text(row.get("labelled_at")),
        problem=xy if isinstance(xy, Problem) else None,
        also=also,
        size=sizes.get(str(given)),
    )


def _clicks(like: PointRecord, row: dict[str, Any]) -> Iterator[PointRecord]:
    """A record for each of several clicks; the first one inside has the annotation's own name."""
    coordinates, labels = row[COORDS], row.get(LABELS)
    if not isinstance(coordinates, list) or not coordinates or row.get("point") is not None:
        found = f"{COORDS} {shown(coordinates)}" + (" and point" if row.get("point") is not None else "")
        problem = Problem("bad_point", found, f"{COORDS} [[x, y], ...] alone")
        yield like._replace(problem=problem, x=None, y=None)
        return
    if labels is None:
        labels = [1] * len(coordinates)
    if not isinstance(labels, list) or len(labels) != len(coordinates) or not all(map(_is_label, labels)):
        expected = f"{len(coordinates)} labels, 1 inside the object and 0 outside it"
        yield like._replace(problem=Problem("bad_point", f"{LABELS} {shown(labels)}", expected))
        return
    first = labels.index(1) if 1 in labels else 0
    for k, (place, label) in enumerate(zip(coordinates, labels, strict=True)):
        xy = list(map(number, place)) if isinstance(place, list) and len(place) == 2 else [None]
        name = like.source_record if k == first else f"{like.source_record}, click {k}"
        record = like._replace(
            source_record=name, object=like.source_record, inside=bool(label), problem=None
        )
        if None in xy:
            problem = Problem("bad_point", f"{COORDS} {shown(place)}", "x and y in pixels")
            yield record._replace(problem=problem)
        else:
            yield record._replace(x=xy[0], y=xy[1])


def _is_label(value: Any) -> bool:
    return number(value) in (0, 1)


def _point(row: dict[str, Any], shift: float) -> tuple[float, float] | Problem:
    if row.get("point") is not None:
        point = row["point"]
        if isinstance(point, list) and len(point) == 2:
            x, y = map(number, point)
            if x is not None and y is not None:
                return x, y
        return Problem("bad_point", f"point {shown(point)}", "point [x, y] in pixels")
    if row.get("keypoints"):
        visible = _visible(row["keypoints"])
        if visible is None:
            return Problem("bad_point", f"keypoints {shown(row['keypoints'])}", "triples x, y, visibility")
        if len(visible) != 1:
            return Problem("bad_point", f"{len(visible)} visible keypoints", "one visible keypoint")
        return visible[0][0] + shift, visible[0][1] + shift
    return Problem("no_point", f"fields {', '.join(sorted(map(str, row)))}"[:200], EXPECTED_POINT)


def _visible(keypoints: Any) -> list[tuple[float, float]] | None:
    """The labelled keypoints x, y (visibility above 0); None if they are malformed."""
    if not isinstance(keypoints, list) or len(keypoints) % 3:
        return None
    values = [value for value in map(number, keypoints) if value is not None]
    if len(values) != len(keypoints):
        return None
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    return [(x, y) for x, y, visibility in triples if visibility > 0]


def _keypoints_are_indices(rows: list[Any]) -> bool:
    """Whether every visible keypoint of the file has whole coordinates."""
    found = [_visible(row["keypoints"]) for row in rows if isinstance(row, dict) and row.get("keypoints")]
    return all(value.is_integer() for visible in found for xy in visible or [] for value in xy)


IMPORTER = Importer("coco", sniff, read)
