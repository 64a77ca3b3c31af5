"""What importers give: a point as its file says it, and units that a later export of the same tool replaces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from data.points.file import PointFile

__all__ = [
    "SET_ASIDE",
    "Importer",
    "Lacking",
    "Options",
    "PointFile",
    "PointRecord",
    "Problem",
    "Unit",
    "point_id",
]

SET_ASIDE = frozenset(
    {
        "not_a_point",  # a box or polygon beside the points
        "outside_frame",  # CVAT: the object has left the frame
        "cancelled",  # Label Studio: the annotator skipped the task
        "superseded",  # another file holds a newer export of the same annotation
        "same_record",  # another file says the very same point
        "duplicate_annotator",  # another annotator's click on the same object
        "ignored_class",  # points.classes leaves the class out
    }
)
"""Reasons that ask for no correction: such records are listed and counted, and don't stop an import."""


class Problem(NamedTuple):
    """Why a record is no usable point: one word for counting, what was found, what was expected."""

    reason: str
    found: str
    expected: str


class Lacking(NamedTuple):
    """What a table has no known column for."""

    fields: tuple[str, ...]  # of "image", "category"
    header: str  # of the table, to be shown


def point_id(source: str, record: str) -> str:
    """16 hex digits that stay the same whenever the same record of the same source is imported."""
    return hashlib.sha256(f"{source}\0{record}".encode()).hexdigest()[:16]


class PointRecord(NamedTuple):
    """One labelled point, before its image and class are looked up in the data set."""

    source_file: str  # path below the folder of point files
    source_record: str  # where in the file a person finds it
    image: str | int | None  # file name, or (a number) an image id of the data set
    category: str | int | None  # class name, or a category id of the data set
    x: float | None  # pixels; (0, 0) is the outer corner of the top-left pixel
    y: float | None
    annotator: str | None = None
    labelled_at: str | None = None
    problem: Problem | None = None  # set where the record itself is at fault
    also: tuple[str, ...] = ()  # other names of the image, tried after `image`
    size: tuple[int, int] | None = None  # width and height of the image that was annotated, if the file says
    unit: str | None = None  # what a newer export replaces as a whole; names the source, wherever it lies
    key: str | None = None  # names the record within its unit or file, if source_record may shift
    choices: tuple[str, ...] = ()  # answers about the point, of which one may be its class
    may_be_id: bool = False  # whether `image` may be an id where it is a text of digits
    lacking: Lacking | None = None  # without a column for images `image` is the file's own name

    @property
    def point_id(self) -> str:
        """The point's stable id: of its unit, or else of its file, and its name in there."""
        return point_id(self.unit or self.source_file, self.key or self.source_record)


class Unit(NamedTuple):
    """What an annotation tool saves as one and exports again: of several files that hold it, the newest counts."""

    source_file: str
    name: str
    version: str | None  # a time, ISO 8601
    also: tuple[str, ...] = ()  # what other kinds of export call it: units that share a name are one
    parts: tuple[str, ...] = ()  # names of units that hold some of it, so that both may say the same point


class Options(NamedTuple):
    """What params.yaml says about reading: see section `points` of tasks/common/config/."""

    columns: Mapping[str, str] | None
    frame_name: str


class Importer(NamedTuple):
    """A point format: its name, whether a file's content is of it, and its records and units."""

    name: str
    sniff: Callable[[PointFile, Options], bool]
    read: Callable[[PointFile, Options], Iterator[PointRecord | Unit]]
