"""Points in Label Studio's JSON and JSON_MIN: KeyPointLabels, in percent of the image's width and height.

Each annotation of a task, one an annotator, gives records of its own. An annotation is a unit: a later export with a
newer version replaces it, in a file of any name. `image_rotation` turns only the view: coordinates and
`original_width` x `original_height` are of the image as it is stored.

A keypoint below another one of its label in the outline of regions (`parentID`) is a further click on that one's
object; one of a smart tool with `is_positive: false` is outside of it. JSON_MIN and CSV have no outline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from data.images.addresses import image_names
from data.points.record import Importer, Options, PointFile, PointRecord, Problem, Unit
from data.points.values import number, shown, text
from data.storage import IMAGE_SUFFIXES

SNIFFED_TASKS = 100
EXPECTED = "Label Studio's JSON: a list of tasks with their annotations"
KEYPOINTS = ("keypointlabels", "keypoint")
LABEL_KINDS = ("labels", "choices")
"""Types of results that label a region."""

SHAPES = ("height", "points", "radiusX", "rle", "vertices")
"""Fields of regions that are not points."""

ENDING = re.compile(rf"({'|'.join(map(re.escape, IMAGE_SUFFIXES))})(\?|$)", re.IGNORECASE)
IMAGE_KEYS = ("image", "img", "picture", "photo", "url", "image_url")

Json = dict[str, Any]


def sniff(file: PointFile, _: Options) -> bool:
    """A list of tasks: objects with annotations or predictions and data, or (JSON_MIN) with a list of regions."""
    tasks = file.json
    return isinstance(tasks, list) and any(
        isinstance(task, dict)
        and (_annotations(task) is not None or bool(_predictions(task)) or bool(_min_rows(task)))
        for task in tasks[:SNIFFED_TASKS]
    )


def read(file: PointFile, _: Options) -> Iterator[PointRecord | Unit]:
    """One record a region; those that aren't keypoints are set aside, and so are predictions for tasks without any.

    Other predictions and drafts are not read.

    Raises:
        DataError: not JSON, or no list.
    """
    if not isinstance(file.json, list):
        raise file.fault(
            f"not a JSON list ({file.json_error or type(file.json).__name__})", EXPECTED, "export it as JSON"
        )
    for n, task in enumerate(file.json):
        if not isinstance(task, dict):
            yield _bad(file, f"task #{n}", task)
            continue
        annotations, place = _annotations(task), f"task {_id(task, n)}"
        if not annotations and _predictions(task):
            yield from _predicted(file, task, place)
            continue
        if annotations is None:
            yield from read_min(file, task, n)
            continue
        for m, annotation in enumerate(annotations):
            if isinstance(annotation, dict):
                yield from _annotation(file, task, annotation, f"{place} annotation {_id(annotation, m)}")
            else:
                yield _bad(file, f"{place} annotation #{m}", annotation)


def _bad(file: PointFile, place: str, found: Any) -> PointRecord:
    problem = Problem("bad_record", type(found).__name__, "a JSON object")
    return PointRecord(file.name, place, None, None, None, None, problem=problem)


def _id(row: Json, n: int) -> str:
    return (text(row.get("id")) or f"#{n}")[:100]


def _annotations(task: Json) -> list[Any] | None:
    """A task's annotations; `completions` in exports before 1.0."""
    found = task.get("annotations", task.get("completions"))
    return found if isinstance(found, list) and isinstance(task.get("data"), dict) else None


def _predictions(task: Json) -> list[Any]:
    found = task.get("predictions")
    return found if isinstance(found, list) and isinstance(task.get("data"), dict) else []


def _predicted(file: PointFile, task: Json, place: str) -> Iterator[PointRecord]:
    """A model's regions, which no annotator has submitted."""
    names = image_names(tuple(_image_of(task, {})))
    problem = Problem("prediction", "a prediction", "an annotation: submit it in Label Studio first")
    for m, prediction in enumerate(_predictions(task)):
        results = prediction.get("result") if isinstance(prediction, dict) else None
        for n in range(len(results) if isinstance(results, list) else 1):
            where = f"{place} prediction #{m} result #{n}"
            image = names[0] if names else None
            yield PointRecord(file.name, where, image, None, None, None, also=names[1:], problem=problem)


def _annotation(file: PointFile, task: Json, annotation: Json, place: str) -> Iterator[PointRecord | Unit]:
    unit = None
    ids = [text(task.get("project")), text(task.get("id")), text(annotation.get("id"))]
    if ids[1] and ids[2]:
        unit = f"label_studio {' '.join(map(str, ids))} of {text(annotation.get('created_at'))}"[:300]
        yield Unit(file.name, unit, text(annotation.get("updated_at")))
    annotator = annotation.get("completed_by")
    if isinstance(annotator, dict):
        annotator = annotator.get("email") or annotator.get("username") or annotator.get("id")
    like = PointRecord(
        file.name, place, None, None, None, None,
        annotator=text(annotator), labelled_at=text(annotation.get("created_at")), unit=unit,
    )  # fmt: skip
    results = annotation.get("result")
    if not isinstance(results, list):
        problem = Problem("bad_record", f"result {shown(results)}", "a list of regions")
        yield like._replace(problem=problem)
        return
    cancelled = annotation.get("was_cancelled") is True
    labels = _region_labels(results)
    objects = _objects(results, labels)
    for n, region in enumerate(results):
        if not isinstance(region, dict):
            yield _bad(file, f"{place} result #{n}", region)
            continue
        value = region.get("value")
        kind = region.get("type")
        if not isinstance(value, dict) or kind in ("relation", *LABEL_KINDS):
            continue  # not a region: a relation, or labels of a region or of the image
        own = text(region.get("id"))
        found = image_names(tuple(_image_of(task, region)))
        record = like._replace(
            source_record=f"{place} result {(own or f'#{n}')[:100]}",
            key=f"result {own}" if own else f"result #{n}",
            image=found[0] if found else None,
            also=found[1:],
        )
        if cancelled:
            record = record._replace(
                problem=Problem("cancelled", "a cancelled annotation", "one that counts")
            )
        elif kind not in KEYPOINTS:
            record = record._replace(
                problem=Problem("not_a_point", f"a region {shown(kind)}", "keypointlabels")
            )
        else:
            record = _located(record, region | value)._replace(object=objects.get(own or ""))
        yield _labelled(record, value.get("keypointlabels"), labels.get(own or ""))


def _objects(results: list[Any], labels: Mapping[str, _Labels]) -> dict[str, str]:
    """The names of objects of several clicks, by the ids of their keypoints: the id of the topmost one."""
    points = {
        own: row
        for row in results
        if isinstance(row, dict) and row.get("type") in KEYPOINTS and (own := text(row.get("id"))) is not None
    }
    parents = {
        own: parent
        for own, row in points.items()
        if (parent := text(row.get("parentID"))) in points and parent != own
        and (_is_outside(row) or _own_label(row, labels) in (None, _own_label(points[parent], labels)))
    }  # fmt: skip
    found: dict[str, str] = {}
    for own in parents:
        top, seen = own, {own}
        while top in parents and parents[top] not in seen:
            top = parents[top]
            seen.add(top)
        found |= {own: top, top: top}
    return found


def _is_outside(region: Mapping[str, Any]) -> bool:
    value = region.get("value")
    flags = [region.get("is_positive"), value.get("is_positive") if isinstance(value, dict) else None]
    return any(flag is False or (flag is not None and number(flag) == 0) for flag in flags)


def _own_label(region: Json, labels: Mapping[str, _Labels]) -> str | None:
    value = region.get("value")
    own = value.get("keypointlabels") if isinstance(value, dict) else None
    separate = labels.get(str(region.get("id")))
    found = own or (separate and (separate.labels or separate.choices))
    return shown(found) if found else None


class _Labels(NamedTuple):
    """Labels of a region in separate results, as of <KeyPoint> with <Labels> or <Choices>."""

    labels: list[Any]
    choices: list[Any]


def _add(labels: _Labels, value: Json) -> None:
    for known, new in ((labels.labels, value.get("labels")), (labels.choices, value.get("choices"))):
        known += [one for one in (new if isinstance(new, list) else [new]) if one and one not in known]


def _region_labels(results: list[Any]) -> dict[str, _Labels]:
    """By the id of the region, which its labels share; there may be several controls of a kind."""
    found: dict[str, _Labels] = {}
    for row in results:
        if isinstance(row, dict) and row.get("type") in LABEL_KINDS and isinstance(row.get("value"), dict):
            own = row.get("id")
            if isinstance(own, str):
                _add(found.setdefault(own, _Labels([], [])), row["value"])
    return found


def _labelled(record: PointRecord, labels: Any, separate: _Labels | None) -> PointRecord:
    """The record with its label, or with a problem if there are several.

    Its own labels precede labels in separate results, and these precede choices, which may be about something else.
    """
    if not labels and separate is not None:
        labels = separate.labels
    if isinstance(labels, str):
        labels = [labels]
    if not isinstance(labels, list) or not labels:
        choices = tuple(name for choice in (separate.choices if separate else []) if (name := text(choice)))
        return record._replace(category=choices[0] if len(choices) == 1 else None, choices=choices)
    if len(labels) == 1:
        return record._replace(category=text(labels[0]))
    problem = Problem("bad_point", f"{len(labels)} labels: {shown(labels)}", "one label a point")
    return record if record.problem else record._replace(problem=problem)


def _located(record: PointRecord, region: Mapping[str, Any]) -> PointRecord:
    """The record with its coordinates in pixels."""
    x, y = number(region.get("x")), number(region.get("y"))
    width, height = number(region.get("original_width")), number(region.get("original_height"))
    if x is None or y is None:
        found = f"x {shown(region.get('x'))}, y {shown(region.get('y'))}"
        return record._replace(problem=Problem("bad_point", found, "x and y in percent of the image"))
    if width is None or height is None or not (0 < width < 1e9 and 0 < height < 1e9):
        sides = ("original_width", "original_height")
        found = ", ".join(f"{side} {shown(region.get(side))}" for side in sides)
        return record._replace(problem=Problem("bad_point", found, "the image's size in pixels"))
    return record._replace(
        x=x / 100 * width, y=y / 100 * height, size=(int(width), int(height)), inside=not _is_outside(region)
    )


def _image_of(task: Json, region: Json) -> list[str]:
    """The image's address in the task's data, the first that fits, and the name of the uploaded file."""
    data: Json = task["data"]
    usual = [data.get(key) for key in (str(region.get("to_name"))[:100], *IMAGE_KEYS)]
    named = [value for value in data.values() if isinstance(value, str) and ENDING.search(value)]
    uploaded = text(task.get("file_upload"))
    for value in [*usual, *named, *data.values()]:
        if isinstance(value, list):  # a task of several images
            n = region.get("item_index", 0)
            value = value[n] if isinstance(n, int) and 0 <= n < len(value) else None
        if isinstance(value, str) and value:
            return [value, *([uploaded] if uploaded else [])]
    return [uploaded] if uploaded else []


def _min_rows(task: Json) -> list[tuple[str, Json]]:
    """The regions and labels of a task in JSON_MIN, with the name of their control."""
    return [
        (name, row)
        for name, rows in task.items()
        if isinstance(rows, list)
        for row in rows
        if isinstance(row, dict) and ("keypointlabels" in row or "original_width" in row)
    ]


def _min_regions(rows: list[tuple[str, Json]]) -> list[tuple[str, Json, _Labels]]:
    """The regions among the rows, with their labels in other rows; points with a label of their own come first.

    JSON_MIN has no ids: the <Labels> of a <KeyPoint> are a row of the same outline.
    """
    labels: dict[str, _Labels] = {}
    plain = set()
    for _, row in rows:
        if row.keys() & LABEL_KINDS:
            _add(labels.setdefault(_outline(row), _Labels([], [])), row)
        else:
            plain.add(_outline(row))
    regions = [
        (name, row, labels.get(_outline(row), _Labels([], [])))
        for name, row in rows
        if not row.keys() & LABEL_KINDS or ("x" in row and _outline(row) not in plain)
    ]
    return sorted(regions, key=lambda region: "keypointlabels" not in region[1])


def _outline(row: Json) -> str:
    return json.dumps([row.get(name) for name in ("x", "y", "width", *SHAPES)])


def read_min(file: PointFile, task: Json, n: int) -> Iterator[PointRecord | Unit]:
    place = f"task {_id(task, n)} annotation {text(task.get('annotation_id')) or '#0'}"[:200]
    ids = [text(task.get("id")), text(task.get("annotation_id"))]
    unit = f"label_studio {ids[0]} {ids[1]} of {text(task.get('created_at'))}"[:300] if all(ids) else None
    if unit is not None:
        yield Unit(file.name, unit, text(task.get("updated_at")))
    found = image_names(tuple(_image_of({"data": task}, {})))
    like = PointRecord(
        file.name, place, found[0] if found else None, None, None, None,
        annotator=text(task.get("annotator")), labelled_at=text(task.get("created_at")), also=found[1:], unit=unit,
    )  # fmt: skip
    for k, (name, row, labels) in enumerate(_min_regions(_min_rows(task))):
        record = like._replace(source_record=f"{place} {name[:50]} #{k}")
        if "keypointlabels" in row or ("x" in row and not row.keys() & set(SHAPES)):
            record = _labelled(_located(record, row), row.get("keypointlabels"), labels)
            yield record._replace(key=f"{name} {record.category} {record.x},{record.y}")
        else:
            problem = Problem("not_a_point", f"a region of {shown(sorted(row))}", "keypointlabels")
            yield record._replace(problem=problem)


IMPORTER = Importer("label_studio", sniff, read)
