"""What importers read and give: a point file, and a point as the file says it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import DataError, Fault


class Problem(NamedTuple):
    """Why a record is no usable point: one word for counting, what was found, what was expected."""

    reason: str
    found: str
    expected: str


class PointRecord(NamedTuple):
    """One labelled point, before its image and class are looked up in the data set."""

    source_file: str  # bare file name
    source_record: str  # names the record within the file, the same after a new export of it
    image: str | int | None  # file name, or an image id of the data set
    category: str | int | None  # class name, or a category id of the data set
    x: float | None  # pixels; (0, 0) is the outer corner of the top-left pixel
    y: float | None
    annotator: str | None = None
    labelled_at: str | None = None
    problem: Problem | None = None  # set where the record itself is at fault


class PointFile:
    """A file of points; read once, whoever looks at it (sniffing, then importing)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def fault(self, found: str, expected: str, next_step: str) -> DataError:
        """A DataError about the file as a whole."""
        return DataError(Fault(str(self.path), "file", found, expected, next_step))

    @cached_property
    def content(self) -> bytes:
        """The file's bytes.

        Raises:
            DataError: missing or unreadable.
        """
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise self.fault("no such file", "a point file", "correct points.files") from None
        except OSError as error:
            raise self.fault(f"unreadable ({error})", "a point file", "check its permissions") from error

    @cached_property
    def json(self) -> Any:
        """The parsed content, None where it isn't JSON."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None

    @cached_property
    def json_error(self) -> str:
        """Why the content isn't JSON."""
        try:
            json.loads(self.content)
        except (ValueError, RecursionError) as error:
            return str(error)
        return "none"


class Importer(NamedTuple):
    """A point format: its name, whether a file's content is of it, and its records."""

    name: str
    sniff: Callable[[PointFile], bool]
    read: Callable[[PointFile], Iterator[PointRecord]]
