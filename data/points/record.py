"""What importers return: points as in their file, and units that a later export of the same tool replaces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from data.points.file import PointFile

__all__ = [
    "SET_ASIDE",
    "Importer",
    "MissingColumns",
    "Options",
    "PointFile",
    "PointRecord",
    "Problem",
    "Unit",
    "point_id",
]

SET_ASIDE = frozenset(
    {
        "not_a_point",  # a box or polygon among the points
        "prediction",  # Label Studio: a model's, in a task without annotations
        "outside_frame",  # CVAT: the object has left the frame
        "cancelled",  # Label Studio: the annotator skipped the task
        "superseded",  # another file has a newer export of the same annotation
        "same_record",  # another file has the same point
        "duplicate_annotator",  # another annotator's click on the same object
        "ignored_class",  # points.classes leaves the class out
    }
)
"""Reasons that need no correction: such records are listed and counted, and don't stop an import."""


class Problem(NamedTuple):
    """Why a record is no usable point: the reason in one word, what was found, what was expected."""

    reason: str
    found: str
    expected: str


class MissingColumns(NamedTuple):
    """The fields for which a table has no known column."""

    fields: tuple[str, ...]  # of "image", "category"
    header: str  # of the table, for messages


def point_id(source: str, record: str) -> str:
    """16 hex digits, a hash of a source and a record in it: the same at each import."""
    return hashlib.sha256(f"{source}\0{record}".encode()).hexdigest()[:16]


class PointRecord(NamedTuple):
    """One labelled point, before its image and class are looked up in the data set."""

    source_file: str  # path below the folder of point files
    source_record: str  # its place in the file, for people
    image: str | int | None  # file name, or (a number) an image id of the data set
    category: str | int | None  # class name, or a category id of the data set
    x: float | None  # pixels; (0, 0) is the outer corner of the top-left pixel
    y: float | None
    annotator: str | None = None
    labelled_at: str | None = None
    problem: Problem | None = None  # set if the record itself is faulty
    also: tuple[str, ...] = ()  # other names of the image, tried after `image`
    size: tuple[int, int] | None = None  # width and height of the annotated image, if known
    unit: str | None = None  # name of the unit, which a newer export replaces as a whole
    key: str | None = None  # name of the record within its unit or file, if source_record may change
    choices: tuple[str, ...] = ()  # choices about the point, of which one may be its class
    may_be_id: bool = False  # whether `image`, if a text of digits, may be an id
    relative: bool = False  # x and y are shares of the image's width and height
    missing: MissingColumns | None = None  # without an image column, `image` is the file's own name
    object: str | None = (
        None  # name of the object within its unit or file; None: of one that has no other click
    )
    inside: bool = True  # False: a click that says that its place isn't the object

    @property
    def point_id(self) -> str:
        """The point's stable id: a hash of its unit, or else its file, and of its name in it."""
        return point_id(self.unit or self.source_file, self.key or self.source_record)


class Unit(NamedTuple):
    """What an annotation tool saves and exports as one: of several files that have it, the newest counts."""

    source_file: str
    name: str
    version: str | None  # a time, ISO 8601
    also: tuple[str, ...] = ()  # its names in other kinds of export; units that share a name are one
    parts: tuple[str, ...] = ()  # names of units with a part of it, so that both may have the same point


class Options(NamedTuple):
    """Settings of reading, from section `points` of params.yaml."""

    columns: Mapping[str, str] | None
    frame_name: str


class Importer(NamedTuple):
    """A point format: its name, a check whether a file is of it, and a reader of records and units."""

    name: str
    sniff: Callable[[PointFile, Options], bool]
    read: Callable[[PointFile, Options], Iterator[PointRecord | Unit]]
