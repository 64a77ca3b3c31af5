"""Points of the VGG Image Annotator, version 3: project files. Earlier versions: via.py.

If all coordinates of the file are whole, they are the clicked pixels and moved to the pixels' centres (+0.5). The class
is chosen among a region's attributes as in via.py; the id of an option is replaced by its text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data.points.columns import at_centres
from data.points.formats.via import class_of
from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.values import number, shown, text

POINT = 1
"""The number of a point before its coordinates; rectangles, circles and so on have others."""

EXPECTED = "a project of VIA 3: 'metadata', 'view', 'file' and 'attribute'"


def sniff(file: PointFile, _: Options) -> bool:
    """JSON object of a project's parts."""
    return _parts(file.json) is not None


def _parts(document: Any) -> tuple[dict[str, Any], ...] | None:
    names = ("metadata", "view", "file", "attribute")
    parts = [document.get(name) if isinstance(document, dict) else None for name in names]
    return tuple(parts) if all(isinstance(part, dict) for part in parts) else None  # type: ignore[arg-type]


def read(file: PointFile, options: Options) -> Iterator[PointRecord]:
    """One record a region; those that aren't points are set aside.

    Raises:
        DataError: not JSON, or no project.
    """
    parts = _parts(file.json)
    if parts is None:
        raise file.fault(
            f"not a project ({file.json_error or 'other JSON'})", EXPECTED, "save it again with VIA 3"
        )
    metadata, views, files, attributes = parts
    names = {key: _image(view, files) for key, view in views.items()}
    named = (options.columns or {}).get("category")
    records = []
    for key, row in metadata.items():
        place = f"region {key}"[:200]
        if not isinstance(row, dict) or not isinstance(row.get("xy"), list):
            problem = Problem("bad_record", shown(row), "an object with 'vid' and 'xy'")
            records.append(PointRecord(file.name, place, None, None, None, None, problem=problem))
            continue
        image = names.get(text(row.get("vid")) or "")
        record = PointRecord(file.name, place, image, None, None, None)
        category = class_of(_attribute_values(row.get("av"), attributes), named)
        if isinstance(category, Problem):
            record = record._replace(problem=category)
        else:
            record = record._replace(category=category)
        records.append(_placed(record, row["xy"]))
    yield from at_centres(records)


def _image(view: Any, files: dict[str, Any]) -> str | None:
    """The file of a view; None if it has several or none."""
    ids = view.get("fid_list") if isinstance(view, dict) else None
    if not isinstance(ids, list) or len(ids) != 1:
        return None
    file = files.get(text(ids[0]) or "")
    return (text(file.get("fname")) or text(file.get("src"))) if isinstance(file, dict) else None


def _attribute_values(given: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    """A region's attributes by name, with the text of their options."""
    values = {}
    for key, value in given.items() if isinstance(given, dict) else ():
        attribute = attributes.get(key)
        if isinstance(attribute, dict):
            choices = attribute.get("options")
            known = choices.get(value) if isinstance(choices, dict) and isinstance(value, str) else None
            values[text(attribute.get("aname")) or key] = known if isinstance(known, str) else value
    return values


def _placed(record: PointRecord, xy: list[Any]) -> PointRecord:
    if not xy or xy[0] != POINT:
        return record._replace(problem=Problem("not_a_point", f"xy {shown(xy)}", f"xy [{POINT}, x, y]"))
    x, y = map(number, xy[1:]) if len(xy) == 3 else (None, None)
    if x is None or y is None:
        return record._replace(
            problem=Problem("bad_point", f"xy {shown(xy)}", f"xy [{POINT}, x, y] in pixels")
        )
    return record._replace(x=x, y=y)


IMPORTER = Importer("via3", sniff, read)
