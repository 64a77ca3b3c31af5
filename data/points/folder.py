"""All point files of a folder as one set of records, which depends only on the content of the folder.

- Files with identical bytes count as one, under the shortest name (ties: the first in alphabetical order). Exception:
  if a file's own name says which image its points are on, files for different images are different files.
- If a unit (an annotation of a tool that numbers them) is in several files, its newest version counts.
- Ids depend neither on the path of the folder nor on the order in which files were added.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from data import storage
from data.errors import DataError, Fault
from data.points import importer_for
from data.points.lookup import Images
from data.points.record import Options, PointFile, PointRecord, Problem, Unit
from data.points.values import moment
from data.points.without_points import find_without_points
from data.tables import Split
from data.text import clean

log = logging.getLogger(__name__)


class FileRead(NamedTuple):
    """One file: its format and number of records, or the name of the file with the same content."""

    name: str
    format: str | None
    records: int
    same_as: str | None


class PointSet(NamedTuple):
    """The records of all files.

    Attributes:
        records: by file name, then in the order of the file.
        holders: for each unit, the file whose version counts.
        files: all files that could be read.
        faults: of files that couldn't be read, and of paths without files.
        doubts: files that have shapes or predictions but no point.
    """

    records: list[PointRecord]
    holders: dict[str, str]
    files: list[FileRead]
    faults: list[Fault]
    doubts: list[Fault]


class _Content(NamedTuple):
    """The content of one file."""

    format: str
    records: list[PointRecord]
    units: list[Unit]


def read_folder(
    paths: str | os.PathLike[str] | Sequence[str],
    format_name: str,
    options: Options,
    leave_out: Path | None = None,
    weak: Split | None = None,
) -> PointSet:
    """All records of some point files.

    Args:
        paths: files and folders (all files in them, to any depth, except hidden ones).
        format_name: a name in IMPORTERS, or "auto" to detect each file's format from its content.
        options: for the importers.
        leave_out: a file that is no point file, such as `points.classes`.
        weak: the images. Files with identical bytes are copies of each other if their points are on the same images
            of this split; with None, if they name the same images.
    """
    faults: list[Fault] = []
    sources = _sources(paths, leave_out, faults)
    alike: dict[str, list[PointFile]] = {}
    for source in sorted(sources, key=lambda file: (len(file.name), file.name)):
        try:
            alike.setdefault(source.sha256, []).append(source)
        except DataError as error:
            faults += error.faults
        source.forget()  # points of all files fit into memory, their documents may not
    contents: dict[str, _Content] = {}
    same_as: dict[str, str] = {}
    bad: dict[str, list[Fault]] = {}
    images = cache(lambda: Images(weak)) if weak is not None else None
    for group in alike.values():
        try:
            found = {file.name: _read(file, format_name, options) for file in group}
        except DataError as error:  # the same for each file of the group
            bad[group[0].name] = error.faults
            same_as |= dict.fromkeys((file.name for file in group[1:]), group[0].name)
        else:
            copies = _copies({name: content.records for name, content in found.items()}, images)
            same_as |= copies
            contents |= {name: content for name, content in found.items() if name not in copies}
    files = []
    for source in sources:
        if source.name in contents:
            content = contents[source.name]
            files.append(FileRead(source.name, content.format, len(content.records), None))
        elif source.name in same_as:
            files.append(FileRead(source.name, None, 0, same_as[source.name]))
        faults += bad.get(source.name, [])
    ordered = [contents[source.name] for source in sources if source.name in contents]
    units = [unit for content in ordered for unit in content.units]
    return PointSet(
        [record for content in ordered for record in content.records], _holders(units), files, faults,
        find_without_points({name: content.records for name, content in sorted(contents.items())}),
    )  # fmt: skip


def _read(file: PointFile, format_name: str, options: Options) -> _Content:
    try:
        importer = importer_for(file, format_name, options)
        items = list(importer.read(file, options))
    finally:
        file.forget()
    records = [_cleaned(item) for item in items if isinstance(item, PointRecord)]
    units = [_clean_unit(item) for item in items if isinstance(item, Unit)]
    return _Content(importer.name, records, units)


def _copies(
    found: Mapping[str, Sequence[PointRecord]], images: Callable[[], Images] | None
) -> dict[str, str]:
    """For files with identical bytes: {name of a copy: name of the file that counts}.

    Args:
        found: records by file name, in order of precedence.
        images: to look images up; None compares the images' names.
    """
    places: dict[str, tuple[Any, ...]] = {
        name: tuple((record.image, record.also) for record in records) for name, records in found.items()
    }
    if images is not None and len(set(places.values())) > 1:
        places = {
            name: tuple(_place(record, images()) for record in records) for name, records in found.items()
        }
    counted: dict[tuple[Any, ...], str] = {}
    copies: dict[str, str] = {}
    # The name of a copy, such as `a (1)`, may fit no image: it is a copy of any file that fits one.
    for name in sorted(places, key=lambda name: _nowhere(places[name])):
        first = next(iter(counted.values()), None) if _nowhere(places[name]) else counted.get(places[name])
        if first is None:
            counted[places[name]] = name
        else:
            copies[name] = first
    return copies


def _place(record: PointRecord, images: Images) -> int | None:
    found = images.find(record.image, record.also, record.may_be_id)
    return None if isinstance(found, Problem) else found


def _nowhere(places: tuple[Any, ...]) -> bool:
    return all(place is None for place in places)


def _sources(
    paths: str | os.PathLike[str] | Sequence[str], leave_out: Path | None, faults: list[Fault]
) -> list[PointFile]:
    files: dict[str, PointFile] = {}
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        root = Path(path)
        inside = (
            {name: root / name for name in storage.list_files(root)} if root.is_dir() else {root.name: root}
        )
        if leave_out is not None:
            inside = {name: file for name, file in inside.items() if file.resolve() != leave_out.resolve()}
        for name, file in inside.items():
            # Of formats without ids, point ids are hashes of this name: it must be unique.
            other = files.setdefault(clean(name), PointFile(file, clean(name)))
            if other.path != file:
                faults.append(
                    Fault(
                        str(file),
                        "file",
                        f"the same name as {other.path}",
                        "point files whose names differ",
                        "rename one of them",
                    )
                )
        if not inside:
            faults.append(Fault(str(root), "folder", "no file", "point files", "correct points.files"))
    return [files[name] for name in sorted(files)]


def _clean_unit(unit: Unit) -> Unit:
    version = None if unit.version is None else clean(unit.version)
    also, parts = (tuple(map(clean, names)) for names in (unit.also, unit.parts))
    return Unit(unit.source_file, clean(unit.name), version, also, parts)


def _cleaned(record: PointRecord) -> PointRecord:
    """The record with its text as UTF-8 can hold it."""
    problem = record.problem
    texts_of = (
        record.source_record, record.image, record.category, record.annotator, record.labelled_at, record.unit,
        record.key, record.object, *record.also, *record.choices,
    )  # fmt: skip
    if problem is None and "".join([value for value in texts_of if isinstance(value, str)]).isascii():
        return record
    texts: dict[str, Any] = {
        name: clean(value)
        for name, value in zip(record._fields, record, strict=True)
        if isinstance(value, str)
    }
    return record._replace(
        **texts,
        also=tuple(map(clean, record.also)),
        choices=tuple(map(clean, record.choices)),
        problem=None if problem is None else problem._replace(found=clean(problem.found)),
    )


def _holders(units: Iterable[Unit]) -> dict[str, str]:
    """The file with the newest version of each unit, under any of its names; of equal versions the first file."""
    units = list(units)
    names_of: dict[str, set[str]] = {}
    for unit in units:
        names = {unit.name, *unit.also}
        names = names.union(*(names_of.get(name, ()) for name in names))
        names_of |= dict.fromkeys(names, names)
    best: dict[str, tuple[float, str]] = {}
    for unit in units:
        age, one = moment(unit.version), min(names_of[unit.name])
        if one not in best or age > best[one][0]:
            best[one] = (age, unit.source_file)
    _warn_of_parts(units)
    return {unit.name: best[min(names_of[unit.name])][1] for unit in units}


def _warn_of_parts(units: Iterable[Unit]) -> None:
    """Log files that may have the same points, which can't be detected."""
    units = list(units)
    files: dict[str, set[str]] = {}
    for unit in units:
        for name in unit.also:
            files.setdefault(name, set()).add(unit.source_file)
    pairs = {
        (unit.source_file, other) for unit in units for name in unit.parts for other in files.get(name, ())
    }
    for file, part in sorted(pairs):
        if file != part:
            log.warning(
                "%s has the points of its part %s; a point that was moved between the two exports counts twice: "
                "delete one of the files", file, part,
            )  # fmt: skip
