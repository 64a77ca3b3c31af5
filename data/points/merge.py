"""Records of point files as points of the data set: each is kept or rejected, none is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from data.errors import Fault
from data.points.columns import NAME_COLUMN
from data.points.duplicates import find_duplicates
from data.points.elsewhere import Elsewhere, WeakImages
from data.points.lookup import Categories
from data.points.objects import find_contradictions, objects_of, share_classes, shared_pixels
from data.points.record import PointRecord, Problem
from data.points.units import Clicks, find_doubts
from data.tables import POINTS, REJECTED, Split

SHOWN_CHARACTERS = 1000
ROUNDING = 0.01
"""Pixels, more than the rounding error of float32 in images of up to 100,000 pixels a side."""


def resolve(
    records: Iterable[PointRecord],
    weak_split: Split,
    *,
    holders: Mapping[str, str] | None = None,
    classes: Mapping[str, str | None] | None = None,
    radius: float = 0.0,
    elsewhere: Elsewhere | None = None,
    scale: tuple[float, float] = (1.0, 1.0),
    doubts: list[Fault] | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Look up each record's image and class; keep it as a point, or reject it with a reason.

    Reasons: those of the importer, "superseded", "unknown_image", "rejected_image" and "other_split" (see
    ``data.points.elsewhere``), "unknown_category", "ignored_class", "other_size" (of the annotated image),
    "outside_image", those of ``find_contradictions`` and ``find_duplicates``, and "duplicate_record" (a second record
    of that name in the file). Those in SET_ASIDE need no correction.

    Args:
        records: in any order; of duplicates the earliest is kept.
        weak_split: the images that points may be on.
        holders: for units that several files have, the file that counts.
        classes: see ``data.points.classes.load_classes``.
        radius: distance in pixels within which two annotators' clicks are on one object; 0 compares pixels only.
        elsewhere: images that can't have clicks, to distinguish clicks on them from misspelt names.
        scale: factors from x and y to pixels.
        doubts: extended by likely errors of the coordinates of whole files; see ``data.points.units``.

    Returns:
        Table POINTS, a row an object, sorted by image_id and point_id; and table REJECTED in the order of the records.
        Each record is in exactly one of the two: as a row, or as a further click of one.
    """
    records = list(records) if scale == (1.0, 1.0) else [_scaled(record, *scale) for record in records]
    holders = holders or {}
    images = WeakImages(weak_split, elsewhere or Elsewhere({}, {}))
    categories = Categories(weak_split, classes)
    objects = objects_of(records)
    records = share_classes(records, objects)
    found_images = [images.find(record.image, record.also, record.may_be_id) for record in records]
    found_categories = [
        categories.choose(record.choices) if record.choices else categories.find(record.category)
        for record in records
    ]
    size_columns = [weak_split.images[name].to_pylist() for name in ("image_id", "width", "height")]
    sizes = {i: (width, height) for i, width, height in zip(*size_columns, strict=True)}
    records = [_in_pixels(record, image, sizes) for record, image in zip(records, found_images, strict=True)]
    problems: list[Problem | None] = [
        _problem(record, image, category, holders, sizes)
        for record, image, category in zip(records, found_images, found_categories, strict=True)
    ]
    if doubts is not None:
        doubts += _doubts(records, found_images, problems, sizes)
    class_names = {category.id: category.name for category in weak_split.categories}
    find_contradictions(
        records, objects, found_images, found_categories, problems, images.name, class_names
    )  # fmt: skip
    further = _further(records, objects, problems)
    good = sorted(further)
    image_ids = np.array([found_images[n] for n in good], np.int64)
    category_ids = np.array([found_categories[n] for n in good], np.int64)
    duplicates = find_duplicates([records[n] for n in good], image_ids, category_ids, radius)
    for place, problem in duplicates.items():
        problems[good[place]] = problem
    ids = [record.point_id for record in records]
    by_id: set[str] = set()
    for n in good:
        if problems[n] is None and ids[n] in by_id:
            found = "the name of an earlier record of the file"
            problems[n] = Problem("duplicate_record", found, "names that differ")
        elif problems[n] is None:
            by_id.add(ids[n])
        for other in further[n]:
            problems[other] = problems[n]
    for n, problem in shared_pixels(records, further, problems, found_images, found_categories).items():
        problems[n] = problem
    further = {n: [m for m in others if problems[m] is None] for n, others in further.items()}
    order = [("image_id", "ascending"), ("point_id", "ascending")]
    kept = [n for n in good if problems[n] is None]
    lost = [n for n, problem in enumerate(problems) if problem is not None]
    columns = _columns(records, ids, found_images, found_categories, further)
    return (
        _take(columns, kept, POINTS).sort_by(order),
        _rejected(
            _take(columns, lost, pa.schema([f for f in REJECTED if f.name in columns])), problems, lost
        ),
    )


def _further(
    records: Sequence[PointRecord], objects: Sequence[Sequence[int]], problems: Sequence[Problem | None]
) -> dict[int, list[int]]:
    """For each usable object its first click inside, and the further ones: those inside first, by x and y."""
    found = {}
    for rows in objects:
        usable = [n for n in rows if problems[n] is None]
        inside = [n for n in usable if records[n].inside]
        if inside:
            others = [n for n in usable if n != inside[0]]
            found[inside[0]] = sorted(
                others, key=lambda n: (not records[n].inside, records[n].x, records[n].y)
            )
    return found


def _scaled(record: PointRecord, x: float, y: float) -> PointRecord:
    """The record with coordinates and annotated size in pixels; shares of the image stay."""
    if record.relative:
        return record
    size = record.size
    return record._replace(
        x=None if record.x is None else record.x * x,
        y=None if record.y is None else record.y * y,
        size=None if size is None else (round(size[0] * x), round(size[1] * y)),
    )


def _in_pixels(
    record: PointRecord, image: int | Problem, sizes: Mapping[int, tuple[int, int]]
) -> PointRecord:
    """The record with pixels in place of shares of its image's sides."""
    size = None if isinstance(image, Problem) else sizes.get(image)
    if not record.relative or size is None or record.x is None or record.y is None:
        return record
    return record._replace(x=record.x * size[0], y=record.y * size[1], relative=False)


def _doubts(
    records: Sequence[PointRecord],
    images: Sequence[int | Problem],
    problems: Sequence[Problem | None],
    sizes: Mapping[int, tuple[int, int]],
) -> list[Fault]:
    """Likely errors of the coordinates of all clicks whose image is known, also of those outside of it."""
    files: dict[str, int] = {}
    rows = [
        (files.setdefault(record.source_file, len(files)), image, *sizes[image], record.x, record.y)
        for record, image, problem in zip(records, images, problems, strict=True)
        if (problem is None or problem.reason == "outside_image")
        and not isinstance(image, Problem)
        and record.x is not None
        and record.y is not None
    ]
    if not rows:
        return []
    # A float can't hold image ids exactly.
    ids = np.array([row[1] for row in rows], np.int64)
    values = np.array([(row[0], *row[2:]) for row in rows], np.float64)
    clicks = Clicks(values[:, 0].astype(np.int64), ids, values[:, 1:3], np.clip(values[:, 3:], -1e12, 1e12))
    return find_doubts(clicks, list(files))


def _problem(
    record: PointRecord,
    image: int | Problem,
    category: int | Problem,
    holders: Mapping[str, str],
    sizes: Mapping[int, tuple[int, int]],
) -> Problem | None:
    if record.unit is not None and holders.get(record.unit, record.source_file) != record.source_file:
        newer = f"a newer version in {holders[record.unit]}"
        return Problem("superseded", newer, "the newest export of an annotation")
    if record.problem is not None:
        return record.problem
    if isinstance(image, Problem):
        return _explained(image, record, "image")
    if isinstance(category, Problem):
        return _explained(category, record, "category")
    return _misplaced(record, *sizes[image])


def _explained(problem: Problem, record: PointRecord, field: str) -> Problem:
    """The problem; with the table's header, if the name is unknown because the table has no known column for it."""
    missing = record.missing
    if missing is None or field not in missing.fields or problem.reason != f"unknown_{field}":
        return problem
    own = ", the file's own name" if field == "image" else ""
    found = f"{problem.found}{own}: no column of {missing.header} is known for {' or '.join(missing.fields)}"
    return problem._replace(found=found, expected=f"{problem.expected}; or {NAME_COLUMN}")


def _misplaced(record: PointRecord, width: int, height: int) -> Problem | None:
    """Why the point isn't on its image, of ``width`` x ``height`` pixels."""
    if record.size is not None and record.size != (width, height):
        found = f"an image annotated at {record.size[0]} x {record.size[1]}"[:300]
        return Problem("other_size", found, f"{width} x {height}, the image's size")
    if record.x is None or record.y is None:
        return Problem("bad_point", "no coordinates", "x and y in pixels")
    if not (0 <= record.x < width - ROUNDING and 0 <= record.y < height - ROUNDING):
        # The table's float32 must not round a point just inside the border onto it.
        with np.errstate(over="ignore"):
            x, y = np.float32(record.x), np.float32(record.y)
        if not (0 <= x < width and 0 <= y < height):
            found = f"point ({record.x}, {record.y})"
            return Problem("outside_image", found, f"0 <= x < {width} and 0 <= y < {height}")
    return None


def _columns(
    records: Sequence[PointRecord],
    ids: Sequence[str],
    images: Sequence[int | Problem],
    categories: Sequence[int | Problem],
    further: Mapping[int, Sequence[int]],
) -> dict[str, list[object]]:
    """The columns of both tables that records fill, as lists over all records."""
    clicks = [{"x": record.x, "y": record.y, "inside": record.inside} for record in records]
    return {
        "point_id": list(ids),
        "image_id": [None if isinstance(i, Problem) else i for i in images],
        "category_id": [None if isinstance(c, Problem) else c for c in categories],
        "x": [record.x for record in records],
        "y": [record.y for record in records],
        "annotator": [record.annotator for record in records],
        "labelled_at": [record.labelled_at for record in records],
        "source_file": [record.source_file for record in records],
        "source_record": [record.source_record for record in records],
        "file": [record.source_file for record in records],
        "record": [record.source_record for record in records],
        "image": [None if r.image is None else str(r.image)[:SHOWN_CHARACTERS] for r in records],
        "category": [None if r.category is None else str(r.category)[:SHOWN_CHARACTERS] for r in records],
        "further": [[clicks[m] for m in further.get(n, ())] or None for n in range(len(records))],
    }


def _take(columns: Mapping[str, list[object]], rows: Sequence[int], schema: pa.Schema) -> pa.Table:
    return pa.table({name: [columns[name][n] for n in rows] for name in schema.names}, schema=schema)


def _rejected(table: pa.Table, problems: Sequence[Problem | None], rows: Sequence[int]) -> pa.Table:
    found = [problem for n in rows if (problem := problems[n]) is not None]
    for name in Problem._fields:
        table = table.append_column(
            name, pa.array([getattr(problem, name) for problem in found], pa.string())
        )
    return table.select(REJECTED.names)
