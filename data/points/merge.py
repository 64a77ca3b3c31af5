"""From points as their files say them to points of the data set, none lost: each is kept or rejected."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from data.points.record import PointRecord, Problem
from data.tables import POINTS, REJECTED, Split

NEAREST_NAMES = 3


def point_id(source_file: str, source_record: str) -> str:
    """16 hex digits that stay the same whenever the same record of the same file is imported."""
    return hashlib.sha256(f"{source_file}\0{source_record}".encode()).hexdigest()[:16]


class _Lookup:
    """Finds an id by the data set's own id or by name."""

    def __init__(self, kind: str, names: Mapping[int, str], aliases: Mapping[str, list[int]]) -> None:
        self.kind = kind
        self.names = names
        self.aliases = aliases
        self.ids = {name: i for i, name in names.items()}

    def find(self, value: str | int | None) -> int | Problem:
        """The id, or why there is none; an unknown name comes with the nearest known ones."""
        if isinstance(value, int) and value in self.names:
            return value
        if isinstance(value, str):
            if value in self.ids:
                return self.ids[value]
            same = self.aliases.get(value, [])
            if len(same) == 1:
                return same[0]
            if same:
                known = ", ".join(self.names[i] for i in same[:10])
                return Problem(f"unknown_{self.kind}", f"{self.kind} {value!r}"[:300], f"one of {known}")
        if value is None:
            return Problem(f"unknown_{self.kind}", f"no {self.kind}", self._expected(""))
        return Problem(f"unknown_{self.kind}", f"{self.kind} {value!r}"[:300], self._expected(str(value)))

    def _expected(self, value: str) -> str:
        near = difflib.get_close_matches(value, self.ids, n=NEAREST_NAMES, cutoff=0.5) if value else []
        if near:
            return f"a known {self.kind}; the nearest: {', '.join(near)}"
        some = sorted(self.ids)[:10]
        return f"a known {self.kind}: {', '.join(some)}" + (", ..." if len(self.ids) > len(some) else "")


def _image_lookup(split: Split) -> _Lookup:
    columns = zip(split.images["image_id"].to_pylist(), split.images["file_name"].to_pylist(), strict=True)
    names = dict(columns)
    # Tools often export bare names of files in folders: good enough where only one image has it.
    bare: dict[str, list[int]] = {}
    for image_id, name in names.items():
        bare.setdefault(PurePosixPath(name).name, []).append(image_id)
    return _Lookup("image", names, bare)


def resolve(records: Iterable[PointRecord], weak_split: Split) -> tuple[pa.Table, pa.Table]:
    """Look up each record's image and class; keep it as a point, or reject it with the reason.

    Reasons: what the importer found wrong, "unknown_image", "unknown_category", "outside_image",
    "duplicate_record" (a second record of that name in the file) and "duplicate_point" (the same
    pixel, image and class as an earlier record; another class there is another object, and kept).

    Args:
        records: in any order; of duplicates the first stays.
        weak_split: the images that points may lie on.

    Returns:
        Table POINTS sorted by image_id and point_id, and table REJECTED in the order of the records.
        Each record is in exactly one of the two.
    """
    images = _image_lookup(weak_split)
    categories = _Lookup("category", {c.id: c.name for c in weak_split.categories}, {})
    sizes = {
        row["image_id"]: (row["width"], row["height"])
        for row in weak_split.images.select(["image_id", "width", "height"]).to_pylist()
    }
    points: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []
    by_id: set[str] = set()
    by_place: dict[tuple[Any, ...], PointRecord] = {}
    for record in records:
        image, category = images.find(record.image), categories.find(record.category)
        row: dict[str, Any] = {
            "point_id": point_id(record.source_file, record.source_record),
            "image_id": None if isinstance(image, Problem) else image,
            "category_id": None if isinstance(category, Problem) else category,
            "x": record.x,
            "y": record.y,
            "annotator": record.annotator,
            "labelled_at": record.labelled_at,
        }
        problem = record.problem or next((p for p in (image, category) if isinstance(p, Problem)), None)
        problem = problem or _outside(record, sizes[row["image_id"]])
        if problem is None and row["point_id"] in by_id:
            problem = Problem(
                "duplicate_record", "the name of an earlier record of the file", "names that differ"
            )
        if problem is None:
            # Objects don't share a pixel: a click in another's is the same object's, a double click say.
            place = (row["image_id"], row["category_id"], int(row["x"]), int(row["y"]))
            first = by_place.setdefault(place, record)
            if first is not record:
                found = (
                    f"the pixel of {first.source_file}: {first.source_record}, at ({first.x:g}, {first.y:g})"
                )
                problem = Problem("duplicate_point", found, "one point an object")
        if problem is None:
            by_id.add(row["point_id"])
            points.append(row | {"source_file": record.source_file, "source_record": record.source_record})
        else:
            said = {
                "file": record.source_file,
                "record": record.source_record,
                "image": None if record.image is None else str(record.image),
                "category": None if record.category is None else str(record.category),
            }
            rejected.append(row | problem._asdict() | said)
    order = [("image_id", "ascending"), ("point_id", "ascending")]
    return (
        pa.Table.from_pylist(points, schema=POINTS).sort_by(order),
        pa.Table.from_pylist(rejected, schema=REJECTED),
    )


def _outside(record: PointRecord, size: tuple[int, int]) -> Problem | None:
    width, height = size
    # As float32, which the table keeps: a hair under the border must not be rounded onto it.
    with np.errstate(over="ignore"):
        x, y = np.float32(record.x), np.float32(record.y)
    if 0 <= x < width and 0 <= y < height:
        return None
    return Problem(
        "outside_image", f"point ({record.x}, {record.y})", f"0 <= x < {width} and 0 <= y < {height}"
    )
