"""Point files as ``PointRecord``s, by the importers of ``data.points.formats``.

``data.points.merge`` then looks up the image and class of each record, and rejects records without one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from data.errors import DataError, Fault
from data.points.formats import IMPORTERS
from data.points.record import Importer, Options, PointFile, PointRecord
from data.tables import Split

__all__ = [
    "AUTO", "IMPORTERS", "SNIFFED", "Importer", "Options", "PointFile", "PointRecord", "importer_for", "read_points",
]  # fmt: skip

AUTO = "auto"
SNIFFED = Options(columns=None, frame_name="frame_{frame:06d}")
"""Options of files that are read without params.yaml: usual headers, CVAT's own names of frames."""


def importer_for(file: PointFile, name: str = AUTO, options: Options = SNIFFED) -> Importer:
    """The importer called ``name``; with "auto", the first that recognises the file's content.

    Raises:
        DataError: no importer of that name, or none that recognises the content.
    """
    known = ", ".join(sorted(IMPORTERS))
    if name == AUTO:
        for importer in IMPORTERS.values():
            if importer.sniff(file, options):
                return importer
        raise file.fault(
            f"{file.described()}: content of no known format",
            f"a point file in one of the formats {known}",
            "move it out of the folder if it is no point file; else export the points in one of these formats, or "
            "set points.format",
        )
    if name not in IMPORTERS:
        raise DataError(
            Fault("params.yaml", "points.format", repr(name), f"{AUTO}, {known}", "correct points.format")
        )
    return IMPORTERS[name]


def read_points(
    paths: str | os.PathLike[str] | Sequence[str], format_name: str = AUTO, images: Split | None = None
) -> list[PointRecord]:
    """All records of some point files, without params.yaml; see ``data.points.folder.read_folder``.

    Raises:
        DataError: all files that are missing, unreadable, of no known format, or have the name of another.
    """
    from data.points.folder import read_folder

    found = read_folder(paths, format_name, SNIFFED, weak=images)
    if found.faults:
        raise DataError(found.faults)
    return found.records
