"""All point files of a folder as one set of records: the folder is the truth, whenever and however often it is read.

- Files of equal bytes count once: as the one with the shortest name, the first by the alphabet among those.
- Of a unit (an annotation of a tool that numbers them) that several files hold, the newest version counts.
- Ids don't depend on where the folder lies, nor on the order in which files came into it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data import storage
from data.errors import DataError, Fault
from data.points import importer_for
from data.points.record import Options, PointFile, PointRecord, Unit
from data.points.values import clean, moment


class FileRead(NamedTuple):
    """One file: its format and number of records, or the file whose content it has."""

    name: str
    format: str | None
    records: int
    same_as: str | None


class PointSet(NamedTuple):
    """What the files say.

    Attributes:
        records: in the order of the files' names, then of each file.
        holders: for each unit, the file whose version of it counts.
        files: all that could be read.
        faults: of those that couldn't, and of paths without files.
    """

    records: list[PointRecord]
    holders: dict[str, str]
    files: list[FileRead]
    faults: list[Fault]


def read_folder(
    paths: str | os.PathLike[str] | Sequence[str],
    format_name: str,
    options: Options,
    leave_out: Path | None = None,
) -> PointSet:
    """All records of some point files.

    Args:
        paths: files and folders (all files in them, to any depth, but hidden ones).
        format_name: a name in IMPORTERS, or "auto" to tell each file's format by its content.
        options: for the importers.
        leave_out: a file that is no point file, e.g. the one of `points.classes`.
    """
    faults: list[Fault] = []
    sources = _sources(paths, leave_out, faults)
    first_of: dict[str, PointFile] = {}
    for source in sorted(sources, key=lambda file: (len(file.name), file.name)):
        try:
            first_of.setdefault(source.sha256, source)
        except DataError as error:
            faults += error.faults
        source.forget()  # of all files together, memory may hold the points, not the documents
    records: list[PointRecord] = []
    units: list[Unit] = []
    files = []
    for source in sources:
        try:
            first = first_of.get(source.sha256)
        except DataError:
            continue  # its fault is listed
        if first is not source:
            files.append(FileRead(source.name, None, 0, first.name if first else None))
            continue
        try:
            importer = importer_for(source, format_name, options)
            items = list(importer.read(source, options))
        except DataError as error:
            faults += error.faults
            source.forget()
            continue
        found = [_cleaned(item) for item in items if isinstance(item, PointRecord)]
        units += [Unit(*map(_clean, item)) for item in items if isinstance(item, Unit)]  # type: ignore[arg-type]
        records += found
        files.append(FileRead(source.name, importer.name, len(found), None))
        source.forget()
    return PointSet(records, _holders(units), files, faults)


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
            # Ids are hashes of this name where a format has none of its own: it must be unique.
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


def _clean(value: str | None) -> str | None:
    return None if value is None else clean(value)


def _cleaned(record: PointRecord) -> PointRecord:
    """The record with texts that UTF-8 can hold."""
    problem = record.problem
    said = (
        record.source_record, record.image, record.category, record.annotator, record.labelled_at, record.unit,
        record.key, *record.also,
    )  # fmt: skip
    if problem is None and "".join([value for value in said if isinstance(value, str)]).isascii():
        return record
    texts: dict[str, Any] = {
        name: clean(value)
        for name, value in zip(record._fields, record, strict=True)
        if isinstance(value, str)
    }
    return record._replace(
        **texts,
        also=tuple(map(clean, record.also)),
        problem=None if problem is None else problem._replace(found=clean(problem.found)),
    )


def _holders(units: Iterable[Unit]) -> dict[str, str]:
    """For each unit the file with its newest version; of equal versions the first file."""
    best: dict[str, tuple[float, str]] = {}
    for unit in units:
        age = moment(unit.version)
        if unit.name not in best or age > best[unit.name][0]:
            best[unit.name] = (age, unit.source_file)
    return {name: file for name, (_, file) in best.items()}
