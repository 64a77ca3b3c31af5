"""Point importers: one format a file, one registry.

An importer turns a point file into ``PointRecord``s, as the file says them; ``data.points.merge``
then finds each one's image and class, and rejects what has none. To add a format, write a module
with an ``Importer`` and list it in ``IMPORTERS``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from data import storage
from data.errors import DataError, Fault
from data.points import coco
from data.points.record import Importer, PointFile, PointRecord

__all__ = ["AUTO", "IMPORTERS", "Importer", "PointFile", "PointRecord", "importer_for", "read_points"]

AUTO = "auto"
IMPORTERS: dict[str, Importer] = {importer.name: importer for importer in (coco.IMPORTER,)}


def importer_for(file: PointFile, name: str = AUTO) -> Importer:
    """The importer called ``name``; with "auto", the first that knows the file by its content.

    Raises:
        DataError: no importer of that name, or none that knows the content.
    """
    known = ", ".join(IMPORTERS)
    if name == AUTO:
        for importer in IMPORTERS.values():
            if importer.sniff(file):
                return importer
        raise DataError(
            Fault(
                str(file.path),
                "file",
                "content of no known format",
                f"a point file in one of the formats {known}",
                "export the points in one of these formats, or name the format in points.format",
            )
        )
    if name not in IMPORTERS:
        raise DataError(
            Fault("params.yaml", "points.format", repr(name), f"{AUTO}, {known}", "correct points.format")
        )
    return IMPORTERS[name]


def read_points(paths: str | os.PathLike[str] | Sequence[str], format_name: str = AUTO) -> list[PointRecord]:
    """All records of some point files, in the order of the files' names.

    Args:
        paths: files and folders (all files in them, to any depth).
        format_name: a name in IMPORTERS, or "auto" to tell each file's format by its content.

    Raises:
        DataError: all files that are missing, unreadable, of no known format, or of one name.
    """
    faults: list[Fault] = []
    files: dict[str, Path] = {}
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        root = Path(path)
        found = [root / name for name in storage.list_files(root)] if root.is_dir() else [root]
        for file in found:
            # Point ids are hashes of the bare name: stable wherever the files lie, but it must be unique.
            if files.setdefault(file.name, file) != file:
                faults.append(
                    Fault(
                        str(file),
                        "file",
                        f"the same name as {files[file.name]}",
                        "point files whose names differ",
                        "rename one of them",
                    )
                )
        if not found:
            faults.append(Fault(str(root), "folder", "no file", "point files", "correct points.files"))
    records: list[PointRecord] = []
    for name in sorted(files):
        source = PointFile(files[name])
        try:
            records += importer_for(source, format_name).read(source)
        except DataError as error:
            faults += error.faults
    if faults:
        raise DataError(faults)
    return records
