"""Points of ImageJ: a point selection as .roi, or the ROI Manager's RoiSet.zip with one .roi for each selection.

Coordinates of points are relative to the pixels' centres (ImageJ 1.52u of 2020 and later; area selections' are not):
(0, 0) is the centre of the first pixel, so 0.5 is added. The file's name is the image's, unless a selection is named
after one. The class is the selection's name, its group, or the counter of the multi-point tool.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from roifile import ROI_TYPE, ImagejRoi

from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.slices import of_slices
from data.points.values import number

logging.getLogger("roifile").setLevel(logging.CRITICAL)  # its warnings name no file; faults do
MAGIC, ZIP = b"Iout", b"PK"
MAX_BYTES = 256 * 2**20
"""Of an archive, unpacked: 4 million selections of one point."""
MAX_ENTRIES = 1_000_000
MAX_ENTRY = 2**24
"""Bytes of a .roi; a point selection has at most 65,535 points of 16."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, OSError, EOFError, RuntimeError, IndexError,
)  # fmt: skip
"""What Python's zipfile raises for damaged, encrypted and unusual archives."""
EXPECTED = "ImageJ's .roi of a point selection, or a RoiSet.zip of them"

_AUTOMATIC = re.compile(r"[\d-]+")  # ImageJ's own names: 0012-0034, or slice, y and x
_COUNTED = re.compile(r"-\d+$")  # the ROI Manager appends it to a second selection of a name
_ROI_SET = re.compile(r"[-_ ]*RoiSet[-_ ]*", re.IGNORECASE)


def sniff(file: PointFile, _: Options) -> bool:
    """ImageJ's first four bytes, or a zip archive with a name in .roi."""
    if file.content.startswith(ZIP):
        try:
            names = zipfile.ZipFile(io.BytesIO(file.content)).namelist()
        except ZIP_ERRORS:
            return False
        return any(name.lower().endswith(".roi") for name in names)
    return file.content.startswith(MAGIC)


def read(file: PointFile, options: Options) -> Iterator[PointRecord]:
    """One record a point, in the file's order; selections that aren't points are set aside.

    Raises:
        DataError: no .roi and no readable archive, or an archive that is too large.
    """
    rois: list[tuple[str, ImagejRoi]] = []
    for place, found in _rois(file):
        if isinstance(found, Problem):
            yield PointRecord(file.name, place, None, None, None, None, problem=found, key=f"bad {place}")
        else:
            rois.append((place, found))
    counted = any(roi.counters is not None and roi.counters.any() for _, roi in rois)
    images = _images_of_file(file)
    records: list[PointRecord] = []
    slices: list[int] = []
    for place, roi in rois:
        for record, position in _points(file, place, roi, images, counted):
            records.append(record)
            slices.append(position)
    yield from of_slices(records, slices, options.frame_name, file.stem)


def _rois(file: PointFile) -> Iterator[tuple[str, ImagejRoi | Problem]]:
    if not file.content.startswith(ZIP):
        roi = _parsed(file.content)
        if isinstance(roi, Problem):
            raise file.fault(roi.found, EXPECTED, "save the selection again with ImageJ")
        yield "selection", roi
        return
    try:
        archive = zipfile.ZipFile(io.BytesIO(file.content))
    except ZIP_ERRORS as error:
        raise file.fault(
            f"an unreadable zip archive ({error})"[:200],
            EXPECTED,
            "save the selections again with the ROI Manager",
        ) from None
    entries = [one for one in archive.infolist() if not one.is_dir() and not _is_hidden(one.filename)]
    # Python's zipfile unpacks no more bytes of a file than its entry declares.
    size = sum(entry.file_size for entry in entries)
    if size > MAX_BYTES or len(entries) > MAX_ENTRIES:
        raise file.fault(
            f"a zip archive of {len(entries):,} files with {size:,} bytes when unpacked",
            f"at most {MAX_ENTRIES:,} files of {MAX_BYTES:,} bytes in total",
            "check where it comes from; save the selections in several archives",
        )
    for entry in entries:
        place = f"file {entry.filename}"[:200]
        if entry.filename.lower().endswith(".roi"):
            yield place, _unpacked(archive, entry)
        else:
            yield place, Problem("bad_record", "a file of another kind in the archive", "ImageJ's .roi")


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> ImagejRoi | Problem:
    if entry.file_size > MAX_ENTRY or entry.compress_type not in METHODS:
        found = f"a file of {entry.file_size:,} bytes, compressed by method {entry.compress_type}"
        return Problem("bad_record", found, f"at most {MAX_ENTRY:,} bytes, stored or deflated")
    try:
        return _parsed(archive.read(entry))
    except ZIP_ERRORS as error:
        found = f"a file that can't be unpacked ({error})"[:200]
        return Problem("bad_record", found, "ImageJ's .roi")


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _parsed(content: bytes) -> ImagejRoi | Problem:
    try:
        return ImagejRoi.frombytes(content)
    except (ValueError, TypeError, struct.error, IndexError, OverflowError) as error:
        return Problem("bad_record", f"no readable .roi ({error})"[:200], "ImageJ's .roi")


def _images_of_file(file: PointFile) -> list[str]:
    """Names of the image by the file's: `a.zip`, `a_RoiSet.zip`, `a/RoiSet.zip`."""
    folder, _, stem = file.stem.rpartition("/")
    bare = _ROI_SET.sub("", stem)
    others = [f"{folder}/{bare}" if folder and bare else bare or folder] if bare != stem else []
    return [name for name in (file.stem, *others) if name]


def _points(
    file: PointFile, place: str, roi: ImagejRoi, images: list[str], counted: bool
) -> Iterator[tuple[PointRecord, int]]:
    """Each point with its slice of a stack, 0 if it has none."""
    name = roi.name.removesuffix(".roi") or (
        place.removeprefix("file ").rpartition("/")[2][:-4] if place.startswith("file ") else ""
    )
    names = [] if _AUTOMATIC.fullmatch(name) else [one for one in (name, _COUNTED.sub("", name)) if one]
    names = list(dict.fromkeys(names))
    own = roi.position or roi.t_position or roi.z_position
    like = PointRecord(file.name, place, images[0], None, None, None, also=(*images[1:], *names))
    if roi.group > 0:
        like = like._replace(category=f"Group {roi.group}")
    else:
        like = like._replace(category=names[0] if names else None, choices=tuple(names))
    if roi.roitype != ROI_TYPE.POINT:
        problem = Problem("not_a_point", f"a selection of type {roi.roitype.name.lower()}", "points")
        yield like._replace(problem=problem, key=place), own
        return
    places = np.asarray(roi.coordinates()).tolist()
    for n, xy in enumerate(places):
        record, position = like, own
        if len(places) > 1:
            record = record._replace(source_record=f"{place}, point {n + 1}")
        if roi.counters is not None and roi.counter_positions is not None:
            position = int(roi.counter_positions[n]) or own
        if counted:
            counter = 0 if roi.counters is None else int(roi.counters[n])
            record = record._replace(category=f"Counter {counter}", choices=())
        x, y = map(number, xy)
        if x is None or y is None:
            problem = Problem("bad_point", f"coordinates {xy}"[:200], "two finite numbers, in pixels")
            yield record._replace(problem=problem, key=f"{place} bad {n}"), position
        else:
            # A selection of one point keeps its id when it is moved.
            key = place if len(places) == 1 and place != "selection" else f"{place} {position} {x},{y}"
            yield record._replace(x=x + 0.5, y=y + 0.5, key=key), position


IMPORTER = Importer("imagej_roi", sniff, read)
