"""Points of ImageJ's plugin Cell Counter: XML with the image's name and markers of several types.

If all coordinates of the file are whole, as the plugin writes them, they are pixel indices and moved to the pixels'
centres (+0.5). A type's name is the class. A type without a name is `Type 1` and so on, as the plugin names new types.
Markers of a file that has Type 1 only have no class.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from data.points.columns import at_centres
from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.slices import of_slices
from data.points.values import parse_number, shown, without_suffix

ROOT = "CellCounter_Marker_File"
EXPECTED = f"Cell Counter's XML: <{ROOT}>"
DEFAULT = "Type 1"


def sniff(file: PointFile, _: Options) -> bool:
    """XML with the plugin's root."""
    return file.xml is not None and file.xml.tag == ROOT


def read(file: PointFile, options: Options) -> Iterator[PointRecord]:
    """One record a marker.

    Raises:
        DataError: not XML, another root, a document type or entities.
    """
    root = file.xml
    if root is None or root.tag != ROOT:
        found = f"invalid XML ({file.xml_error})" if root is None else f"root <{root.tag}>"[:100]
        raise file.fault(found, EXPECTED, "save the markers again with Cell Counter")
    image = _text(root, "Image_Properties/Image_Filename")
    records: list[PointRecord] = []
    slices: list[int] = []
    for kind in root.iterfind("Marker_Data/Marker_Type"):
        name = _text(kind, "Name") or f"Type {_text(kind, 'Type') or '?'}"
        for n, marker in enumerate(kind.iterfind("Marker"), 1):
            place = f"{name}, marker {n}"[:200]
            records.append(_marker(marker, PointRecord(file.name, place, image, name, None, None)))
            slices.append(int(parse_number(marker.findtext("MarkerZ") or "") or 0))
    if {record.category for record in records} == {DEFAULT}:
        records = [record._replace(choices=(DEFAULT,)) for record in records]
    records = at_centres(records)
    yield from of_slices(records, slices, options.frame_name, without_suffix(image or file.stem))


def _text(root: Element, path: str) -> str | None:
    return (root.findtext(path) or "").strip() or None


def _marker(marker: Element, like: PointRecord) -> PointRecord:
    cells = [marker.findtext(f"Marker{axis}") or "" for axis in "XYZ"]
    x, y = map(parse_number, cells[:2])
    if x is None or y is None:
        problem = Problem("bad_point", f"MarkerX {shown(cells[0])}, MarkerY {shown(cells[1])}", "two numbers")
        return like._replace(problem=problem)
    return like._replace(x=x, y=y, key=f"{like.category} {cells[2].strip()} {x},{y}")


IMPORTER = Importer("cell_counter", sniff, read)
