"""Points in CVAT XML 1.1, for images and for video: <points> elements; several coordinates in one are several records.

Elements have no ids in this format: a record is named by its image, label and coordinates, so that its id stays when
others come and go. An image (or a video's tracks) of one task is a unit: a later dump of the task replaces it, whatever
the file's name. Coordinates are pixels from the image's outer corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple
from xml.etree.ElementTree import Element

from data.points.record import SET_ASIDE, Importer, Options, PointFile, PointRecord, Problem, Unit
from data.points.values import parse_number, shown

SHAPES = frozenset({"box", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton"})
EXPECTED = "CVAT XML 1.1: <annotations> with <image> or <track> elements"
assert {"not_a_point", "outside_frame"} <= SET_ASIDE


class _Source(NamedTuple):
    """What the file's <meta> says."""

    tasks: dict[str, str]  # id -> when it was created
    only: str | None  # name of the one task or job, where it is one
    dumped: str | None
    annotator: str | None
    video: str
    size: tuple[int, int] | None


def sniff(file: PointFile, _: Options) -> bool:
    """XML with root <annotations> that has images, tracks or CVAT's <meta>."""
    root = file.xml
    return (
        root is not None
        and root.tag == "annotations"
        and any(root.find(tag) is not None for tag in ("image", "track", "meta"))
    )


def read(file: PointFile, options: Options) -> Iterator[PointRecord | Unit]:
    """One record a coordinate of a <points> element, and one for each other shape, set aside as no point.

    Raises:
        DataError: no XML, another root, document types or entities.
    """
    root = file.xml
    if root is None:
        raise file.fault(f"no XML ({file.xml_error})", EXPECTED, "export it again as CVAT for images 1.1")
    if root.tag != "annotations":
        raise file.fault(f"root <{root.tag}>"[:100], EXPECTED, "export it again as CVAT for images 1.1")
    source = _source(root)
    for image in root.iterfind("image"):
        yield from _image(file, image, source)
    tracks = root.findall("track")
    if not tracks:
        return
    unit = None if source.only is None else f"cvat {source.only}: tracks"
    if unit is not None:
        yield Unit(file.name, unit, source.dumped)
    for track in tracks:
        yield from _track(file, track, source, options, unit)


def _text(root: Element, path: str) -> str | None:
    return (root.findtext(path) or "").strip() or None


def _source(root: Element) -> _Source:
    tasks, only = {}, None
    for kind in ("task", "job"):
        number = _text(root, f"meta/{kind}/id")
        if number is not None:
            only = f"{kind} {number} of {_text(root, f'meta/{kind}/created')}"
    for task in root.iterfind("meta/project/tasks/task"):
        number = _text(task, "id")
        if number is not None:
            tasks[number] = f"task {number} of {_text(task, 'created')}"
    width, height = (_size(root.findtext(f"meta/task/original_size/{side}")) for side in ("width", "height"))
    return _Source(
        tasks=tasks,
        only=only,
        dumped=_text(root, "meta/dumped"),
        annotator=_text(root, "meta/job/assignee/username") or _text(root, "meta/task/assignee/username"),
        video=PurePosixPath(_text(root, "meta/source") or _text(root, "meta/task/source") or "").stem,
        size=None if width is None or height is None else (width, height),
    )


def _size(value: str | None) -> int | None:
    found = parse_number(value or "")
    return None if found is None else int(found)


def _image(file: PointFile, image: Element, source: _Source) -> Iterator[PointRecord | Unit]:
    name = image.get("name") or None
    subset = image.get("subset")
    # Tasks of a project may have images of one name; exported with their images they lie in the subset's folder.
    names = tuple(n for n in (f"{subset}/{name}" if subset and name else None, name) if n)
    task = image.get("task_id")
    owner = source.only if task is None else source.tasks.get(task)
    unit = None if owner is None or not names else f"cvat {owner}: image {names[0]}"
    if unit is not None:
        yield Unit(file.name, unit, source.dumped)
    width, height = _size(image.get("width")), _size(image.get("height"))
    like = PointRecord(
        file.name, "", names[0] if names else None, None, None, None,
        annotator=source.annotator, also=names[1:], unit=unit,
        size=None if width is None or height is None else (width, height),
    )  # fmt: skip
    place = f"image {names[0] if names else image.get('id')}"
    for n, shape in enumerate(shape for shape in image if shape.tag in SHAPES):
        yield from _shape(like, shape, shape.get("label"), f"{place}, shape #{n}")


def _track(
    file: PointFile, track: Element, source: _Source, options: Options, unit: str | None
) -> Iterator[PointRecord]:
    for shape in track:
        if shape.tag not in SHAPES:
            continue
        frame = shape.get("frame") or ""
        number = int(frame) if frame.isascii() and frame.isdigit() and len(frame) < 10 else None
        image = None if number is None else options.frame_name.format(frame=number, video=source.video)
        place = f"track {track.get('id')}, frame {frame}"[:100]
        like = PointRecord(
            file.name, place, image, None, None, None,
            annotator=source.annotator, size=source.size, unit=unit, key=f"{place} outside",
        )  # fmt: skip
        if shape.get("outside") == "1" and shape.tag == "points":
            said = Problem("outside_frame", "outside=1", "an object that is in the frame")
            yield like._replace(category=track.get("label") or None, problem=said)
        else:
            yield from _shape(like, shape, track.get("label"), place)


def _shape(like: PointRecord, shape: Element, label: str | None, place: str) -> Iterator[PointRecord]:
    like = like._replace(category=label or None, source_record=place, key=f"{place} {shape.tag}")
    if shape.tag != "points":
        yield like._replace(problem=Problem("not_a_point", f"<{shape.tag}>", "<points>"))
        return
    pairs = (shape.get("points") or "").split(";")
    for k, pair in enumerate(pairs):
        record = like._replace(source_record=place if len(pairs) == 1 else f"{place}, point {k}")
        values = [parse_number(value) for value in pair.split(",")]
        x, y = values if len(values) == 2 else (None, None)
        if x is None or y is None:
            problem = Problem("bad_point", f"coordinates {shown(pair)}", "x,y")
            yield record._replace(problem=problem, key=f"{like.key} {k}")
        else:
            yield record._replace(x=x, y=y, key=f"{like.image} {label} {x},{y}")


IMPORTER = Importer("cvat", sniff, read)
