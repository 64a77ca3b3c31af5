"""Points of the VGG Image Annotator, versions 1 and 2: projects, annotations as JSON and as CSV.

Regions have no ids. A record's key consists of its image, class and coordinates, so its id doesn't change when other
regions are added or removed. VIA writes the clicked pixel: if all coordinates of the file are whole, each is moved to
its pixel's centre (+0.5). The class is the region attribute named in `points.columns.category`, else the only
attribute, else the first with a usual name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data.annotations.strict_json import ONCE, parse_json
from data.points.columns import USUAL, at_centres
from data.points.formats.delimited import rows_of
from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.values import number, shown, text

EXPECTED = "VIA's JSON: a project, or annotations by image"
CSV_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
CLASS_NAMES = (*USUAL["category"], "type", "name", "species")


def _entries(document: Any) -> dict[str, Any] | None:
    """Image entries of a project or of an annotation file."""
    if not isinstance(document, dict):
        return None
    entries = document.get("_via_img_metadata", document)
    return entries if isinstance(entries, dict) else None


def sniff(file: PointFile, _: Options) -> bool:
    """A project's key, or an object of objects with a file name and regions."""
    entries = _entries(file.json)
    if entries is None or not entries:
        return isinstance(file.json, dict) and "_via_img_metadata" in file.json
    return "_via_img_metadata" in file.json or all(
        isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in entries.values()
    )


def read(file: PointFile, options: Options) -> Iterator[PointRecord]:
    """One record a region; those that aren't points are set aside.

    Raises:
        DataError: not JSON, or no object of images.
    """
    entries = _entries(file.json)
    if entries is None:
        raise file.fault(
            f"not a JSON object ({file.json_error or 'another value'})", EXPECTED, "save it again with VIA"
        )
    named = (options.columns or {}).get("category")
    records = []
    for key, entry in entries.items():
        regions = entry.get("regions") if isinstance(entry, dict) else None
        if not isinstance(regions, list | dict):
            problem = Problem("bad_record", shown(entry), "an image with 'filename' and 'regions'")
            records.append(
                PointRecord(file.name, f"image {key}"[:200], None, None, None, None, problem=problem)
            )
            continue
        image = text(entry.get("filename"))
        # Version 1 numbers the regions by keys.
        rows = regions.items() if isinstance(regions, dict) else enumerate(regions)
        for n, region in rows:
            place = f"image {image} region {n}"[:300]
            row = region if isinstance(region, dict) else {}
            records.append(
                _region(file, place, image, row.get("shape_attributes"), row.get("region_attributes"), named)
            )
    yield from at_centres(records)


def _region(
    file: PointFile, place: str, image: str | None, shape: Any, attributes: Any, named: str | None
) -> PointRecord:
    record = PointRecord(file.name, place, image, None, None, None)
    if not isinstance(shape, dict):
        problem = Problem("bad_record", f"shape_attributes {shown(shape)}", "an object with name, cx and cy")
        return record._replace(problem=problem)
    category = class_of(attributes, named)
    record = (
        record._replace(problem=category)
        if isinstance(category, Problem)
        else record._replace(category=category)
    )
    if shape.get("name") != "point":
        found = f"a region {shown(shape.get('name'))}"
        return record._replace(problem=Problem("not_a_point", found, "a region 'point'"))
    x, y = number(shape.get("cx")), number(shape.get("cy"))
    if x is None or y is None:
        found = f"cx {shown(shape.get('cx'))}, cy {shown(shape.get('cy'))}"
        return record._replace(problem=Problem("bad_point", found, "two finite numbers, in pixels"))
    return record._replace(x=x, y=y, key=f"{image} {record.category} {x},{y}")


def class_of(attributes: Any, named: str | None) -> str | Problem | None:
    """The class among a region's attributes; the value of a checkbox is an object of its ticked options."""
    if not isinstance(attributes, Mapping) or not attributes:
        return None
    name = named
    if name is None:
        plain = {str(key).strip().lower(): key for key in attributes}
        usual = next((plain[usual] for usual in CLASS_NAMES if usual in plain), None)
        name = next(iter(attributes)) if len(attributes) == 1 else usual
    if name is None:
        found = f"attributes {shown(list(attributes))}"
        return Problem(
            "bad_point",
            found,
            "one attribute; or the class attribute's name in points.columns: {category: NAME}",
        )
    value = attributes.get(name)
    if isinstance(value, Mapping):
        ticked = [str(option) for option, on in value.items() if on is True]
        if len(ticked) > 1:
            return Problem("bad_point", f"{name} {shown(ticked)}"[:200], "one class a point")
        return ticked[0] if ticked else None
    return text(value)


def sniff_csv(file: PointFile, _: Options) -> bool:
    """A CSV whose header has VIA's columns."""
    if file.text is None:
        return False
    first = next((line for line in file.text[:10_000].splitlines() if line.strip()), "")
    return all(name in first for name in CSV_COLUMNS)


def read_csv(file: PointFile, options: Options) -> Iterator[PointRecord]:
    """One record a region; the rows of images without regions are skipped.

    Raises:
        DataError: not text, other columns, unmatched quotes.
    """
    rows = rows_of(file, ",")
    header = [name.strip().lstrip("#") for name in next(rows, (0, []))[1]]
    if not set(CSV_COLUMNS) <= set(header):
        raise file.fault(
            f"header {', '.join(header)[:300] or 'nothing'}", f"columns {', '.join(CSV_COLUMNS)}",
            "export the annotations again as CSV", "header",
        )  # fmt: skip
    named = (options.columns or {}).get("category")
    records = []
    for line, row in rows:
        place = f"line {line}"
        if len(row) != len(header):
            problem = Problem("bad_record", f"{len(row)} cells: {shown(row)}", f"{len(header)} cells")
            records.append(PointRecord(file.name, place, None, None, None, None, problem=problem))
            continue
        cells = dict(zip(header, row, strict=True))
        (shape, one), (attributes, other) = (_json(cells[name]) for name in CSV_COLUMNS[1:])
        image = cells["filename"].strip() or None
        if one or other:
            problem = Problem("bad_record", f"key {(one + other)[0][1]} twice", ONCE)
            records.append(PointRecord(file.name, place, image, None, None, None, problem=problem))
        elif shape != {}:
            records.append(_region(file, place, image, shape, attributes, named))
    yield from at_centres(records)


def _json(cell: str) -> tuple[Any, list[tuple[str, str]]]:
    """A cell's value, or the text itself if it isn't JSON; and its duplicate keys."""
    try:
        return parse_json(cell)
    except ValueError:
        return cell, []


IMPORTER = Importer("via", sniff, read)
CSV_IMPORTER = Importer("via_csv", sniff_csv, read_csv)
