"""The columns of a table: by the names in `points.columns`, else by usual names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data.points.record import MissingColumns, PointFile, PointRecord, Problem
from data.points.values import id_first, name_or_id

FIELDS = ("x", "y", "image", "category", "id", "annotator", "labelled_at", "object", "inside")

OF_OBJECTS = ("object", "inside")
"""Fields of tables with several clicks an object. One alone, such as an object's number, may mean something else: it
counts only if `points.columns` names it."""

INSIDE = {**dict.fromkeys(("1", "true", "yes", "inside", "positive"), True),
          **dict.fromkeys(("0", "-1", "false", "no", "outside", "negative"), False)}  # fmt: skip

AXES = ("axis_0", "axis_1", "axis_2")
"""napari's columns of a points layer, as `plain` returns them: y and x, in a stack its slice first."""

USUAL: dict[str, tuple[str, ...]] = {
    "x": ("x", "point_x", "x_px", "px", "cx", "center_x", "centre_x", "x_center", "x_centre", "centroid_x",
          "x_coord", "coord_x", "x_coordinate", "pos_x", AXES[1]),
    "y": ("y", "point_y", "y_px", "py", "cy", "center_y", "centre_y", "y_center", "y_centre", "centroid_y",
          "y_coord", "coord_y", "y_coordinate", "pos_y", AXES[0]),
    "image": ("image", "file_name", "filename", "image_name", "imagename", "image_file", "image_path", "img",
              "file", "path", "slide", "image_id"),
    "category": ("category", "class", "label", "category_name", "class_name", "label_name", "category_id",
                 "class_id", "label_id"),
    "id": ("point_id", "annotation_id", "id", "uuid", "record"),
    "annotator": ("annotator", "annotated_by", "labeler", "labeller", "rater", "worker", "user", "author"),
    "labelled_at": ("labelled_at", "labeled_at", "annotated_at", "created_at", "updated_at", "timestamp",
                    "datetime", "date", "time"),
    "object": ("object_id", "object", "instance_id", "instance"),
    "inside": ("inside", "is_inside", "positive", "is_positive", "point_label"),
}  # fmt: skip
"""Usual header names; the first that is there is used. Case, spaces and hyphens are ignored."""

NAME_COLUMN = "a column for it, named in points.columns"
"""The expected value, after a known image or class, if a table has no column for it."""


def plain(name: str) -> str:
    """A column's name, to compare it with the usual ones."""
    return name.strip().lstrip("#").strip().lower().replace(" ", "_").replace("-", "_")


def find_columns(header: Sequence[str], named: Mapping[str, str] | None) -> dict[str, int]:
    """The position of the column of each field that the header has.

    Args:
        header: the table's column names.
        named: field -> column name, from `points.columns`. Fields without a name there, or whose column is missing
            (points.columns applies to all files), are found by usual names. A column that is named for one field isn't
            used for another: with `{image: Label}`, a column `Label` is no class.
    """
    usual, stripped = [plain(name) for name in header], [name.strip() for name in header]
    names = {field: name.strip() for field, name in (named or {}).items()}
    found = {field: stripped.index(names[field]) for field in FIELDS if names.get(field) in stripped}
    given = set(found.values())
    for field in FIELDS:
        places = [usual.index(name) for name in USUAL[field] if name in usual]
        free = [place for place in places if place not in given]
        if field not in found and free:
            found[field] = free[0]
    if not found.keys() >= set(OF_OBJECTS):
        found = {field: place for field, place in found.items() if field not in OF_OBJECTS or field in names}
    return found


def is_napari(header: Sequence[str], columns: Mapping[str, int]) -> bool:
    """Whether x and y are axes of a points layer of napari, where whole coordinates are pixels' centres."""
    return all(plain(header[columns[axis]]) in AXES for axis in "xy")


def checked_columns(
    file: PointFile, header: Sequence[str], named: Mapping[str, str] | None
) -> dict[str, int]:
    """`find_columns`, checked.

    Raises:
        DataError: no column for x, y or a field in `named`, or several columns of one name; it shows the header.
    """
    found = find_columns(header, named)
    shown = ", ".join(header[:20])[:300] or "nothing"
    napari = {"x", "y"} <= found.keys() and is_napari(header, found)
    if napari and AXES[2] in map(plain, header) and plain(header[found["x"]]) == AXES[1]:
        raise file.fault(
            f"header {shown}, a points layer of 3 axes",
            "two axes: axis-0 is y, axis-1 is x",
            "save a layer for each image, or name the axes in points.columns: {x: axis-2, y: axis-1}",
            "header",
        )
    # A layer of napari has no other columns of its own: points.columns is for other tables of the folder.
    expected_fields = ("x", "y") if napari else ("x", "y", *(named or {}))
    missing = [field for field in expected_fields if field not in found]
    if missing:
        unless = {"image": ", unless it is the file's name", "category": ", unless there is one class"}
        missing += [field for field in unless if field not in found and field not in missing]
        expected = {field: (named or {}).get(field, " or ".join(USUAL[field][:4])) for field in missing}
        raise file.fault(
            f"header {shown}",
            "; ".join(
                f"a column for {field} ({names})"
                + (unless.get(field, "") if field not in (named or {}) else "")
                for field, names in expected.items()
            ),
            "name the columns in points.columns, e.g. {x: col, y: row, image: file, category: type}",
            "header",
        )
    counts = Counter(name.strip() for name in header)
    twice = sorted({header[i].strip() for i in found.values() if counts[header[i].strip()] > 1})
    if twice:
        raise file.fault(
            f"header {shown}, with {', '.join(twice)} more than once",
            "one column of each name",
            "rename or remove the other ones",
            "header",
        )
    return found


def has_ids(header: Sequence[str], columns: Mapping[str, int]) -> bool:
    """Whether the image column is called image_id."""
    return "image" in columns and plain(header[columns["image"]]) == "image_id"


def missing_columns(header: Sequence[str], columns: Mapping[str, int]) -> MissingColumns | None:
    """The missing columns of a table; None if image and class have theirs."""
    fields = tuple(field for field in ("image", "category") if field not in columns)
    return MissingColumns(fields, f"its header ({', '.join(header[:20])[:300]})") if fields else None


def row_record(
    file: PointFile,
    place: str,
    values: Mapping[str, Any],
    x: float | None,
    y: float | None,
    ids: bool,
    missing: MissingColumns | None,
) -> PointRecord:
    """One row as a record. Without an image column, the image is that of the file's own name.

    Args:
        file: the table.
        place: the row's place in the file, for messages.
        values: field -> value, for the columns of the table.
        x: pixels; None if the value is no finite number.
        y: likewise.
        ids: see `has_ids`.
        missing: see `missing_columns`.
    """
    image = name_or_id(values.get("image")) if "image" in values else file.stem
    category = name_or_id(values.get("category"))
    annotator, labelled_at = values.get("annotator") or None, values.get("labelled_at") or None
    problem = None
    if x is None or y is None:
        found = f"x {values.get('x')!r}, y {values.get('y')!r}"[:200]
        problem = Problem("bad_point", found, "two finite numbers, in pixels")
    inside = read_inside(values.get("inside"))
    if inside is None:
        problem = Problem("bad_point", f"inside {values['inside']!r}"[:200], "1 or 0, true or false")
    own = values.get("id")
    named = own is not None and own != ""
    key = f"id {own}" if named else f"{image} {category} {x} {y} {annotator or ''}"
    where = f"{place} (id {own})"[:200] if named else place
    image, also = id_first(image) if ids else (image, ())
    return PointRecord(
        file.name, where, image, category, x, y, annotator, labelled_at, problem, also=also, key=key,
        may_be_id="image" in values and not ids, missing=missing,
        object=None if values.get("object") in (None, "") else str(values["object"]), inside=inside is not False,
    )  # fmt: skip


def read_inside(value: Any) -> bool | None:
    """Whether a click is inside its object, of a cell or an attribute; without a value it is. None: neither."""
    if value is None or value == "":
        return True
    return INSIDE.get(str(value).strip().lower().removesuffix(".0"))


def at_centres(records: list[PointRecord], always: bool = False) -> list[PointRecord]:
    """Records moved to their pixels' centres (+0.5) if all coordinates of the file are whole, so pixel indices.

    Args:
        records: of one file.
        always: for files whose coordinates are relative to the first pixel's centre, whole or not.
    """
    whole = always or all(
        record.x is None or record.y is None or (record.x.is_integer() and record.y.is_integer())
        for record in records
    )
    if not whole:
        return records
    return [
        record
        if record.x is None or record.y is None
        else record._replace(x=record.x + 0.5, y=record.y + 0.5)
        for record in records
    ]
