"""Several clicks of one object: which of them gives its row, and which contradict each other.

The clicks of a unit (or file) with one name of an object are of this object. The first one inside it gives the row, the
others are `further` clicks of that row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data.points.record import SET_ASIDE, PointRecord, Problem

Value = int | Problem
"""An id of the data set, or why there is none."""


def objects_of(records: Sequence[PointRecord]) -> list[list[int]]:
    """The records of each object, in order; one without a name has one record."""
    found: dict[Any, list[int]] = {}
    for n, record in enumerate(records):
        name = n if record.object is None else (record.unit, record.source_file, record.object)
        found.setdefault(name, []).append(n)
    return list(found.values())


def share_classes(records: Sequence[PointRecord], objects: Sequence[Sequence[int]]) -> list[PointRecord]:
    """The records, those without a class with the one of the first click of their object that has one."""
    result = list(records)
    for rows in objects:
        classed = [n for n in rows if records[n].category is not None or records[n].choices]
        if classed and len(classed) < len(rows):
            category, choices = records[classed[0]].category, records[classed[0]].choices
            for n in set(rows) - set(classed):
                result[n] = records[n]._replace(category=category, choices=choices)
    return result


def find_contradictions(
    records: Sequence[PointRecord],
    objects: Sequence[Sequence[int]],
    image_ids: Sequence[Value],
    category_ids: Sequence[Value],
    problems: list[Problem | None],
    image_name: Callable[[int], str],
    class_names: Mapping[int, str],
) -> None:
    """Adds to `problems` those of clicks that contradict others of their object.

    - "bad_object": one object on two images, or of two classes; one pixel inside and outside of it;
    - "duplicate_point": two clicks of an object in one pixel;
    - "no_click_inside": clicks outside an object that has none inside it.
    """
    for rows in objects:
        if len(rows) == 1 and records[rows[0]].inside:
            continue
        usable = [n for n in rows if problems[n] is None]
        for ids, names, what in (
            (image_ids, image_name, "images"),
            (category_ids, class_names.__getitem__, "classes"),
        ):
            counts = Counter(one for n in usable if isinstance(one := ids[n], int))
            if len(counts) > 1:
                shown = ", ".join(f"{names(one)!r} ({count})" for one, count in counts.most_common(3))
                found = (
                    f"object {records[rows[0]].object!r:.100} with clicks on {len(counts)} {what}: {shown}"
                )
                problem = Problem("bad_object", found[:400], f"clicks of one object on one of the {what}")
                for n in usable:
                    problems[n] = problem
                break
        _same_pixels(records, [n for n in usable if problems[n] is None], problems)
        if any(records[n].inside and problems[n] is None for n in rows):
            continue
        lost = _lost_inside(records, rows, problems)
        for n in rows:
            problems[n] = problems[n] or lost


def _same_pixels(records: Sequence[PointRecord], rows: Sequence[int], problems: list[Problem | None]) -> None:
    first: dict[tuple[int, int], int] = {}
    for n in rows:
        record = records[n]
        assert record.x is not None and record.y is not None
        other = first.setdefault((int(record.x), int(record.y)), n)
        if other != n:
            place = f"the pixel of {records[other].source_record}, of the same object"
            problems[n] = (
                Problem("duplicate_point", place, "clicks of an object in different pixels")
                if records[other].inside == record.inside
                else Problem("bad_object", f"{place}, which is {_side(records[other])}", "one of the two")
            )


def shared_pixels(
    records: Sequence[PointRecord],
    further: Mapping[int, Sequence[int]],
    problems: Sequence[Problem | None],
    image_ids: Sequence[Value],
    category_ids: Sequence[Value],
) -> dict[int, Problem]:
    """The problem "duplicate_point" of further clicks inside an object, in a pixel of another object of the class.

    Args:
        further: of the first click of each object.
    """
    first: dict[tuple[Any, ...], int] = {}
    found: dict[int, Problem] = {}
    if not any(further.values()):
        return found
    kept = [n for n in further if problems[n] is None]
    inside = [m for n in kept for m in further[n] if records[m].inside]
    for n in [*kept, *inside]:
        record = records[n]
        assert record.x is not None and record.y is not None
        other = first.setdefault((image_ids[n], category_ids[n], int(record.x), int(record.y)), n)
        if other != n:
            place = f"the pixel of {records[other].source_file}: {records[other].source_record}, of another object"
            found[n] = Problem("duplicate_point", place, "clicks of two objects in different pixels")
    return found


def _side(record: PointRecord) -> str:
    return "inside it" if record.inside else "outside it"


def _lost_inside(
    records: Sequence[PointRecord], rows: Sequence[int], problems: Sequence[Problem | None]
) -> Problem:
    """Why an object has no usable click inside it: what its first one lacks, if that needs no correction."""
    inside = [problem for n in rows if records[n].inside and (problem := problems[n]) is not None]
    if inside and inside[0].reason in SET_ASIDE:
        return inside[0]
    name = records[rows[0]].object
    found = (
        "a click outside an object that isn't named"
        if name is None
        else f"object {name!r:.100}, clicks outside it"
    )
    return Problem(
        "no_click_inside", f"{found}, no usable one inside", "one or more clicks inside the same object"
    )
