"""Points in Zooniverse's classification exports: a CSV of volunteers' classifications, whose cells are JSON.

Marks of a drawing task's point tool are the points; the tool's label is the class, the volunteer the annotator. A
classification is a unit: exports of one project overlap. Coordinates are pixels from the outer corner of the image as
it was uploaded, whose size the metadata have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data.annotations.strict_json import ONCE, parse_json
from data.points.columns import USUAL, plain
from data.points.formats.delimited import MAX_JSON_CELL, rows_of
from data.points.record import Importer, Options, PointFile, PointRecord, Problem, Unit
from data.points.values import number, shown, text
from data.storage import IMAGE_SUFFIXES

COLUMNS = ("classification_id", "annotations", "subject_data")
JSON_COLUMNS = ("annotations", "subject_data", "metadata")
SHAPES = {"x1", "width", "r", "rx", "radius", "x_center", "points", "pathX"}
"""Fields of marks that are not points. Marks without x or y, such as lines across the image, are none either."""
POINT_TOOLS = (None, "point")

Json = dict[str, Any]


def sniff(file: PointFile, _: Options) -> bool:
    """A CSV whose header has Zooniverse's columns."""
    if file.text is None:
        return False
    first = next((line for line in file.text[:10_000].splitlines() if line.strip()), "")
    return set(COLUMNS) <= {name.strip().strip('"') for name in first.split(",")}


def read(file: PointFile, _: Options) -> Iterator[PointRecord | Unit]:
    """One record a mark of a drawing task; marks of other tools than points are set aside.

    Raises:
        DataError: not text, other columns, unmatched quotes.
    """
    rows = rows_of(file, ",", MAX_JSON_CELL)
    header = [name.strip() for name in next(rows, (0, []))[1]]
    if not set(COLUMNS) <= set(header):
        raise file.fault(
            f"header {', '.join(header)[:300] or 'nothing'}", f"columns {', '.join(COLUMNS)}",
            "request the classification export again", "header",
        )  # fmt: skip
    for line, row in rows:
        like = PointRecord(file.name, f"line {line}", None, None, None, None)
        values = _parsed(header, row)
        if isinstance(values, Problem):
            yield like._replace(problem=values, key=f"bad {line}")
        else:
            yield from _classification(like, dict(zip(header, row, strict=True)), values)


def _parsed(header: list[str], row: list[str]) -> Json | Problem:
    """The row's cells of JSON, by column."""
    if len(row) != len(header):
        return Problem("bad_record", f"{len(row)} cells: {shown(row)}", f"{len(header)} cells")
    values: Json = dict.fromkeys(JSON_COLUMNS)
    for name, cell in zip(header, row, strict=True):
        if name in values and cell:
            try:
                values[name], duplicates = parse_json(cell)
            except ValueError as error:
                return Problem("bad_record", f"{name}: broken JSON ({error})"[:200], "a cell of JSON")
            if duplicates:
                return Problem("bad_record", f"{name}: key {duplicates[0][1]} twice"[:200], ONCE)
    if not isinstance(values["annotations"], list):
        return Problem("bad_record", f"annotations {shown(values['annotations'])}", "a list of tasks")
    return values


def _classification(
    like: PointRecord, cells: Mapping[str, str], values: Json
) -> Iterator[PointRecord | Unit]:
    number_of = cells["classification_id"].strip()
    # The export's own form of a time, `2024-02-23 16:17:42 UTC`, in ISO 8601.
    created = (cells.get("created_at") or "").strip().replace(" UTC", "+00:00") or None
    place = f"{like.source_record} classification {number_of}"[:100]
    unit = f"zooniverse {number_of}"[:100] if number_of else None
    if unit is not None:
        yield Unit(like.source_file, unit, created)
    names, sizes = _images(values["subject_data"]), _sizes(values["metadata"])
    like = like._replace(
        annotator=(cells.get("user_name") or "").strip() or None,
        labelled_at=created,
        unit=unit,
        source_record=place,
    )
    for task, n, mark in _marks(values["annotations"]):
        frame = mark.get("frame")
        frame = frame if isinstance(frame, int) and 0 <= frame < max(len(names), 1) else 0
        record = like._replace(
            source_record=f"{place} task {task} mark {n}"[:200],
            key=f"{task} {n}",
            image=names[frame] if names else None,
            size=sizes.get(frame),
            category=_category(mark),
        )
        x, y = number(mark.get("x")), number(mark.get("y"))
        is_point = {"x", "y"} <= mark.keys() and not mark.keys() & SHAPES
        if not is_point or mark.get("toolType") not in POINT_TOOLS:
            found = f"a mark {shown(mark.get('toolType') or sorted(mark))}"
            yield record._replace(problem=Problem("not_a_point", found, "a mark of the point tool"))
        elif x is None or y is None:
            found = f"x {shown(mark.get('x'))}, y {shown(mark.get('y'))}"
            yield record._replace(problem=Problem("bad_point", found, "two finite numbers, in pixels"))
        else:
            yield record._replace(x=x, y=y)


def _marks(annotations: list[Any]) -> Iterator[tuple[str, int, Json]]:
    """The drawn marks, with their task and number; tasks may be combined in one."""
    for annotation in annotations:
        if not isinstance(annotation, dict) or not isinstance(annotation.get("value"), list):
            continue  # a question
        task = (text(annotation.get("task")) or "?")[:50]
        for n, value in enumerate(annotation["value"]):
            if not isinstance(value, dict):
                continue
            if isinstance(value.get("value"), list):
                yield from _marks([value])
            elif value.keys() & (SHAPES | {"x", "y", "toolType"}):
                yield task, n, value


def _category(mark: Json) -> str | None:
    if label := text(mark.get("tool_label")):
        return label
    tool = mark.get("tool", mark.get("toolIndex"))
    return None if not isinstance(tool, int) else f"tool {tool}"


def _images(subject: Any) -> list[str]:
    """The image of each frame, in the subject's data: that of a field with a usual name, then other image files."""
    rows = [row for row in subject.values() if isinstance(row, dict)] if isinstance(subject, dict) else []
    # Fields with one of these marks are hidden from volunteers.
    found = {plain(key.lstrip("#/!&")): value for row in rows for key, value in row.items()}
    files = [
        value for value in found.values() if isinstance(value, str) and value.lower().endswith(IMAGE_SUFFIXES)
    ]
    usual = next(
        (value for name in USUAL["image"] if isinstance(value := found.get(name), str) and value), None
    )
    return files if usual is None else [usual, *(name for name in files if name != usual)]


def _sizes(metadata: Any) -> dict[int, tuple[int, int]]:
    """Width and height of the image of each frame."""
    rows = metadata.get("subject_dimensions") if isinstance(metadata, dict) else None
    found = {}
    for n, row in enumerate(rows if isinstance(rows, list) else []):
        sides = (
            [number(row.get(f"natural{side}")) for side in ("Width", "Height")]
            if isinstance(row, dict)
            else []
        )
        if len(sides) == 2 and sides[0] and sides[1]:
            found[n] = (int(sides[0]), int(sides[1]))
    return found


IMPORTER = Importer("zooniverse", sniff, read)
