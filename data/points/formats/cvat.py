"""Points in CVAT XML 1.1, for images and for video: <points> elements; several coordinates in one are several records.

They are clicks of several objects, unless the element has the attribute `inside` (a checkbox of its label): then an
element, and all of its group in the image, are clicks of one object, and those without the tick are outside of it.

Elements have no ids in this format. A record's key consists of its image, label and coordinates, so its id doesn't
change when other elements are added or removed. An image of a task (or the tracks of its video) is a unit: a later
export of the task, of its project or of the job that has it replaces it, in a file of any name. Coordinates are pixels
from the image's outer corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple
from xml.etree.ElementTree import Element

from data.points.columns import read_inside
from data.points.record import SET_ASIDE, Importer, Options, PointFile, PointRecord, Problem, Unit
from data.points.values import parse_number, shown

SHAPES = frozenset({"box", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton"})
INSIDE = "inside"
EXPECTED = "CVAT XML 1.1: <annotations> with <image> or <track> elements"
assert {"not_a_point", "outside_frame"} <= SET_ASIDE


class _Task(NamedTuple):
    """The task of images and tracks, or the job, if the file is the export of one."""

    name: str | None  # its kind, number and time of creation: numbers alone repeat from server to server
    segments: tuple[tuple[str, int, int], ...]  # id, first and last frame: those of its jobs
    first: int  # frames count from here, in these steps
    step: int
    is_job: bool
    video: str
    size: tuple[int, int] | None


class _Source(NamedTuple):
    """The file's <meta>."""

    tasks: dict[str, _Task]  # of a project, by id
    only: _Task  # the one task or job, if it is one
    dumped: str | None
    annotator: str | None

    def task(self, number: str | None) -> _Task:
        """The task of an element with this ``task_id``, or with none."""
        return self.tasks.get(number or "", self.only)


NO_TASK = _Task(None, (), 0, 1, False, "", None)


def sniff(file: PointFile, _: Options) -> bool:
    """XML with root <annotations> that has images, tracks or CVAT's <meta>."""
    root = file.xml
    return (
        root is not None
        and root.tag == "annotations"
        and any(root.find(tag) is not None for tag in ("image", "track", "meta"))
    )


def read(file: PointFile, options: Options) -> Iterator[PointRecord | Unit]:
    """One record a coordinate of a <points> element, and one for each other shape, set aside as not a point.

    Raises:
        DataError: not XML, another root, a document type or entities.
    """
    root = file.xml
    if root is None:
        raise file.fault(
            f"invalid XML ({file.xml_error})", EXPECTED, "export it again as CVAT for images 1.1"
        )
    if root.tag != "annotations":
        raise file.fault(f"root <{root.tag}>"[:100], EXPECTED, "export it again as CVAT for images 1.1")
    source = _source(root)
    for image in root.iterfind("image"):
        yield from _image(file, image, source, options)
    tracks: dict[str | None, list[Element]] = {}
    for track in root.iterfind("track"):
        tracks.setdefault(track.get("task_id"), []).append(track)
    _check_frames(file, list(tracks), source, options)
    for number, own in tracks.items():
        task = source.task(number)
        unit = _unit(file, task, source, "tracks")
        if unit is not None:
            yield unit
        for track in own:
            yield from _track(file, track, source, options, task, None if unit is None else unit.name)


def _check_frames(file: PointFile, tasks: list[str | None], source: _Source, options: Options) -> None:
    """Frames of several videos must have names that differ."""
    unnamed = "{video}" not in options.frame_name or any(not source.task(number).video for number in tasks)
    if (len(tasks) > 1 and unnamed) or (None in tasks and len(source.tasks) > 1):
        raise file.fault(
            f"tracks of a project of {max(len(tasks), len(source.tasks))} tasks; points.frame_name gives frames of "
            f"different videos the same name, {options.frame_name!r}"[:300],
            "frames with the name of their video, or a file of one task",
            "put {video} into points.frame_name, as in '{video}/frame_{frame:06d}', or export each task by itself",
        )


def _text(root: Element, path: str) -> str | None:
    return (root.findtext(path) or "").strip() or None


def _source(root: Element) -> _Source:
    tasks = {
        number: _task(element, root)
        for element in root.iterfind("meta/project/tasks/task")
        if (number := _text(element, "id")) is not None
    }
    elements = [element for kind in ("job", "task") if (element := root.find(f"meta/{kind}")) is not None]
    return _Source(
        tasks=tasks,
        only=_task(elements[0], root) if elements else NO_TASK,
        dumped=_text(root, "meta/dumped"),
        annotator=_text(root, "meta/job/assignee/username") or _text(root, "meta/task/assignee/username"),
    )


def _task(element: Element, root: Element) -> _Task:
    """A <task> or <job>; in older files the video is a separate element of <meta>."""
    number = _text(element, "id")
    width, height = (_size(element.findtext(f"original_size/{side}")) for side in ("width", "height"))
    segments = []
    for segment in element.iterfind("segments/segment"):
        name, first, last = (_text(segment, field) for field in ("id", "start", "stop"))
        if name is not None and (start := _whole(first)) is not None and (stop := _whole(last)) is not None:
            segments.append((name, start, stop))
    step = (_text(element, "frame_filter") or "").replace(" ", "").removeprefix("step=")
    return _Task(
        name=None if number is None else f"{element.tag} {number} of {_text(element, 'created')}",
        segments=tuple(segments),
        first=_whole(_text(element, "start_frame")) or 0,
        step=_whole(step) or 1,
        is_job=element.tag == "job",
        video=PurePosixPath(_text(element, "source") or _text(root, "meta/source") or "").stem,
        size=None if width is None or height is None else (width, height),
    )


def _unit(
    file: PointFile,
    task: _Task,
    source: _Source,
    what: str,
    frame: int | None = None,
    called: str | None = None,
) -> Unit | None:
    """The unit of an image, or (frame None) of all tracks.

    Args:
        file: the point file.
        task: of the unit; without a number it has no units.
        source: has the time of the export.
        what: the unit's name within its task, the same in all files.
        frame: the image's number.
        called: the unit's name in ids, if that is not ``what``.
    """
    if task.name is None:
        return None
    parts = list(task.segments)
    if frame is not None and not task.is_job:
        parts = [part for part in parts if part[1] <= (frame - task.first) // task.step <= part[2]]
    jobs = tuple(f"cvat segment {number} {first}-{last}: {what}" for number, first, last in parts)
    # An image of several jobs has points of each, and the task has all of them: neither file replaces the other.
    also = (f"cvat {task.name}: {what}", *(jobs if len(jobs) == 1 else ()))
    name = f"cvat {task.name}: {called or what}"
    return Unit(
        file.name, name, source.dumped,
        also=tuple(other for other in also if other != name), parts=jobs if len(jobs) > 1 else (),
    )  # fmt: skip


def _whole(value: str | None) -> int | None:
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 10 else None


def _size(value: str | None) -> int | None:
    found = parse_number(value or "")
    return None if found is None else int(found)


def _image(
    file: PointFile, image: Element, source: _Source, options: Options
) -> Iterator[PointRecord | Unit]:
    name = image.get("name") or None
    subset = image.get("subset")
    # Tasks of a project may have images of the same name; an export with images puts them into the subset's folder.
    names = tuple(n for n in (f"{subset}/{name}" if subset and name else None, name) if n)
    unit = None
    if name is not None:
        task = source.task(image.get("task_id"))
        unit = _unit(file, task, source, f"image {name}", _whole(image.get("id")), f"image {names[0]}")
    if unit is not None:
        yield unit
    width, height = _size(image.get("width")), _size(image.get("height"))
    named = (options.columns or {}).get("inside")
    like = PointRecord(
        file.name, "", names[0] if names else None, None, None, None,
        annotator=source.annotator, also=names[1:], unit=None if unit is None else unit.name,
        size=None if width is None or height is None else (width, height),
    )  # fmt: skip
    place = f"image {names[0] if names else image.get('id')}"
    for n, shape in enumerate(shape for shape in image if shape.tag in SHAPES):
        group = _group(shape, place)
        yield from _shape(like, shape, shape.get("label"), f"{place}, shape #{n}", named, group)


def _track(
    file: PointFile, track: Element, source: _Source, options: Options, task: _Task, unit: str | None
) -> Iterator[PointRecord]:
    for shape in track:
        if shape.tag not in SHAPES:
            continue
        frame = shape.get("frame") or ""
        number = _whole(frame)
        image = None
        if number is not None:
            image = options.frame_name.format(frame=number, slice=number + 1, video=task.video)
        place = f"track {track.get('id')}, frame {frame}"[:100]
        like = PointRecord(
            file.name, place, image, None, None, None,
            annotator=source.annotator, size=task.size, unit=unit, key=f"{place} outside",
        )  # fmt: skip
        if shape.get("outside") == "1" and shape.tag == "points":
            problem = Problem("outside_frame", "outside=1", "an object that is in the frame")
            yield like._replace(category=track.get("label") or None, problem=problem)
        else:
            named, group = (options.columns or {}).get("inside"), _group(track, f"frame {frame}"[:50])
            yield from _shape(like, shape, track.get("label"), place, named, group)


def _group(element: Element, place: str) -> str | None:
    group = element.get("group_id") or "0"
    return None if group == "0" else f"{place}, group {group}"


def _shape(
    like: PointRecord, shape: Element, label: str | None, place: str, named: str | None, group: str | None
) -> Iterator[PointRecord]:
    """The records of a shape.

    Args:
        named: the attribute that says whether clicks are inside their object, if it isn't called `inside`.
        group: the name of its group in the image.
    """
    like = like._replace(category=label or None, source_record=place, key=f"{place} {shape.tag}")
    if shape.tag != "points":
        yield like._replace(problem=Problem("not_a_point", f"<{shape.tag}>", "<points>"))
        return
    ticks = [tick.text for tick in shape.iterfind("attribute") if tick.get("name") == (named or INSIDE)]
    inside = read_inside(ticks[0]) if ticks else None
    if inside is not None:
        like = like._replace(object=group or place, inside=inside)
    elif ticks and named:
        problem = Problem("bad_point", f"attribute {named} {shown(ticks[0])}"[:200], "true or false")
        like = like._replace(problem=problem)
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
