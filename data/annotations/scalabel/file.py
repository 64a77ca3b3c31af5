"""Scalabel frames, the JSON of BDD100K's instance masks: read, with all faults listed.

A file is a list of frames, or {frames, config}; a folder of such files is one data set (BDD100K's tracking masks).
Masks are RLEs, or outlines with Bezier curves (`data.masks.bezier`); a label with both uses the RLE, which is exact. A
label with a box and no mask becomes a region to ignore of the size of the box, since the outline of its object is
unknown. `data.annotations.scalabel.out` writes the format.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.annotations.coco.checks import MAX_PIXELS, is_id
from data.annotations.coco.file import CocoFile
from data.annotations.frames import ImageFiles, name_id
from data.annotations.scalabel.classes import classes_of
from data.annotations.scalabel.label import LabelError, UnknownClassError, annotation_of, short
from data.annotations.strict_json import load_json
from data.errors import DataError, Fault
from data.storage import is_safe, list_files

log = logging.getLogger(__name__)

_CORRECT = "correct this record"


@dataclass
class _Reading:
    """State while the frames of a data set are read."""

    need_masks: bool
    images: ImageFiles | None
    folder: str
    keep_unsized: bool
    size: tuple[int, int] | None  # (height, width) of all images, from config
    ids: dict[str, int]  # class ids by name
    faults: list[Fault] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    first: dict[str, Fault] = field(default_factory=dict)
    boxes: int = 0


def read_scalabel(
    path: str | os.PathLike[str],
    *,
    need_masks: bool = True,
    images: ImageFiles | None = None,
    folder: str = "",
    keep_unsized: bool = False,
) -> CocoFile:
    """Read and validate Scalabel frames as the records of a COCO file, masks as compressed RLE.

    Args:
        path: a JSON file, or a folder of them.
        need_masks: whether a label without mask and box is a fault. False: only the names of frames are read, no labels
            and no sizes.
        images: where sizes that the file lacks, and the images of videos, are looked up.
        folder: the folder of the images below the image root; prepended to each name.
        keep_unsized: a frame of unknown size, since its image is missing or damaged, becomes an image record without
            size and labels, which the caller rejects. False: it is a fault.

    Returns:
        Image ids are hashes of the names, annotation ids numbers from 1 in the order of the file, unless the file has
        ids, as those that we write. Class ids are 1, 2, ... in the order of the leaves of ``config.categories``, as in
        Scalabel, or BDD100K's without config. ``attributes`` has the flags of `data.annotations.frames.FLAGS`;
        ``iscrowd`` is 1 for crowd or ignored regions.

    Raises:
        DataError: all faults of the file or files.
    """
    frames, config, faults = _load(Path(path))
    if faults:
        raise DataError(faults)
    where = str(path)
    # A list of names has no classes, and must not add BDD100K's to another data set.
    categories, class_faults = classes_of(config, where) if need_masks or config is not None else ([], [])
    size, size_faults = _config_size(config, where)
    reading = _Reading(need_masks, images, folder, keep_unsized, size, {c.name: c.id for c in categories})
    reading.faults += class_faults + size_faults
    rows: list[dict[str, Any]] = []
    labels: list[list[dict[str, Any]]] = []
    if need_masks and images is not None:
        sound = [frame for _, _, frame in frames if _frame_problem(frame) is None]
        unsized = [_file_name(frame, reading) for frame in sound if _given_size(frame, reading) is None]
        if unsized:
            images.prepare(unsized)
    for file, n, frame in frames:
        image, own = _frame(file, n, frame, reading)
        if image is not None:
            rows.append(image)
            labels.append(own)
    reading.faults += [
        Fault(fault.file, f"{fault.record} and {count - 1} more labels" if count > 1 else fault.record,
              fault.found, fault.expected, fault.next_step)
        for name, count in reading.unknown.items() if (fault := reading.first[name])
    ]  # fmt: skip
    _number(rows, labels, where, reading.faults)
    if reading.faults:
        raise DataError(reading.faults)
    if reading.boxes:
        log.warning("%s: %d labels have a box but no mask; they are regions to ignore", where, reading.boxes)
    return CocoFile(
        images=sorted(rows, key=lambda row: row["id"]),
        annotations=sorted((row for own in labels for row in own), key=lambda row: row["id"]),
        categories=sorted(categories),
        path=where,
    )


def _load(path: Path) -> tuple[list[tuple[str, int, Any]], Any, list[Fault]]:
    """(file, number, frame) of all frames, the config, and the faults of whole files."""
    files = [path / name for name in list_files(path, (".json",))] if path.is_dir() else [path]
    frames: list[tuple[str, int, Any]] = []
    config: Any = None
    faults: list[Fault] = []
    expected = "Scalabel frames: a list of {name, labels}, or {frames, config}"
    for file in files:
        try:
            document = load_json(file)
        except DataError as error:
            faults += error.faults
            continue
        given = document.get("frames") if isinstance(document, dict) else document
        if not isinstance(given, list):
            found = f"no list of frames in {type(document).__name__}"
            faults.append(Fault(str(file), "file", found, expected, "export the file again"))
            continue
        if given and all(isinstance(row, dict) and "image_id" in row and "name" not in row for row in given):
            found = "a list of COCO results"
            faults.append(Fault(str(file), "file", found, expected, "name the file of annotations here"))
            continue
        frames += [(str(file), n, frame) for n, frame in enumerate(given)]
        own = document.get("config") if isinstance(document, dict) else None
        if own is not None and config is not None and own != config:
            faults.append(
                Fault(
                    str(file),
                    "config",
                    "another one than in earlier files",
                    "one config",
                    "use one config in all files",
                )
            )
        config = config if config is not None else own
    if not frames and not faults:
        faults.append(Fault(str(path), "file", "no frames", expected, "name a file of labels here"))
    return frames, config, faults


def _config_size(config: Any, where: str) -> tuple[tuple[int, int] | None, list[Fault]]:
    given = (config.get("imageSize") or config.get("image_size")) if isinstance(config, dict) else None
    if given is None:
        return None, []
    size = _size(given)
    if size is None:
        return None, [Fault(where, "config.imageSize", short(given), _SIZE, "correct it")]
    return size, []


_SIZE = f"width and height, whole numbers above 0, at most {MAX_PIXELS} pixels"


def _size(value: Any) -> tuple[int, int] | None:
    """(height, width) of {width, height}; None if it can't be an image's size."""
    if not isinstance(value, dict):
        return None
    height, width = value.get("height"), value.get("width")
    sound = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in (height, width))
    return (height, width) if sound and height * width <= MAX_PIXELS else None  # type: ignore[operator,return-value]


def _frame(
    file: str, n: int, frame: Any, reading: _Reading
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The image record of a frame and the annotations on it; faults are added to `reading`."""
    name = frame.get("name") if isinstance(frame, dict) else None
    record = f"frame #{n}" + (f" {name!r}" if isinstance(name, str) else "")
    problem = _frame_problem(frame)
    if problem is not None:
        reading.faults.append(Fault(file, record, *problem, _CORRECT))
        return None, []
    row: dict[str, Any] = {"file_name": _file_name(frame, reading), "record": (file, record)}
    attributes = frame.get("attributes")
    row["given_id"] = attributes.get("image_id") if isinstance(attributes, dict) else None
    if not reading.need_masks:
        size = _size(frame["size"]) if frame.get("size") else reading.size
        return row if size is None else row | {"height": size[0], "width": size[1]}, []
    try:
        size = _frame_size(frame, row["file_name"], reading)
    except DataError as error:
        if reading.keep_unsized:
            return row, []
        reading.faults += [
            Fault(file, record, f"no size, and {fault.found} at {fault.file}", "frame.size, config.imageSize, or the "
                  "image file to take it from", "restore the image, or add its size") for fault in error.faults
        ]  # fmt: skip
        return None, []
    row |= {"height": size[0], "width": size[1]}
    own = []
    for k, label in enumerate(frame.get("labels") or []):
        annotation = _label(file, record, k, label, size, reading)
        if annotation is not None:
            own.append(annotation)
    return row, own


def _frame_problem(frame: Any) -> tuple[str, str] | None:
    """What is wrong with a frame, apart from its labels, and what was expected."""
    if not isinstance(frame, dict):
        return type(frame).__name__, "an object with name and labels"
    name, video = frame.get("name"), frame.get("videoName")
    if not isinstance(name, str) or not is_safe(name):
        return f"name {short(name)}", "the name of an image file below the image root"
    if video is not None and not (isinstance(video, str) and is_safe(video or ".")):
        return f"videoName {short(video)}", "the name of a folder below the image root"
    if not isinstance(frame.get("labels"), list | None):
        return f"labels of type {type(frame['labels']).__name__}", "a list of labels"
    if frame.get("size") is not None and _size(frame["size"]) is None:
        return f"size {short(frame['size'])}", _SIZE
    return None


def _file_name(frame: dict[str, Any], reading: _Reading) -> str:
    """The frame's image below the image root. Images of a video are in a folder of its name, or all in one folder."""
    parts = [reading.folder.strip("/")] if reading.folder.strip("/") else []
    plain = "/".join([*parts, frame["name"]])
    if frame.get("videoName") and reading.images is not None and plain not in reading.images.names():
        of_video = "/".join([*parts, frame["videoName"], frame["name"]])
        if of_video in reading.images.names():
            return of_video
    return plain


def _given_size(frame: dict[str, Any], reading: _Reading) -> tuple[int, int] | None:
    """(height, width) of the frame, of config or of a mask, the first that is given; else None."""
    size = _size(frame["size"]) if frame.get("size") is not None else reading.size
    if size is not None:
        return size
    for label in frame.get("labels") or []:
        rle = label.get("rle") if isinstance(label, dict) else None
        given = rle.get("size") if isinstance(rle, dict) else None
        if isinstance(given, list) and len(given) == 2:
            size = _size({"height": given[0], "width": given[1]})
            if size is not None:
                return size
    return None


def _frame_size(frame: dict[str, Any], file_name: str, reading: _Reading) -> tuple[int, int]:
    """(height, width) given in the file, else that of the image file."""
    size = _given_size(frame, reading)
    if size is not None:
        return size
    if reading.images is None:
        raise DataError(
            Fault("-", file_name, "no image folder to look it up in", "one", "name the image root")
        )
    width, height = reading.images.size(file_name)
    return height, width


def _label(
    file: str, record: str, k: int, label: Any, size: tuple[int, int], reading: _Reading
) -> dict[str, Any] | None:
    """A label as a COCO annotation (without ids); None if it is faulty."""
    name = label.get("id") if isinstance(label, dict) else None
    record = (f"{record}, label {name!r}" if isinstance(name, str | int) else f"{record}, label #{k}")[:300]
    try:
        annotation, is_box = annotation_of(label, reading.ids, *size)
    except UnknownClassError as error:
        reading.unknown[error.name] += 1
        step = "correct it, or add the class to config.categories"
        fault = Fault(file, record, f"category {error.name[:80]!r}", error.expected, step)
        reading.first.setdefault(error.name, fault)
        return None
    except LabelError as error:
        reading.faults.append(Fault(file, record, error.found, error.expected, _CORRECT))
        return None
    reading.boxes += is_box
    return annotation | {"given_id": name}


def _number(
    rows: list[dict[str, Any]], labels: list[list[dict[str, Any]]], where: str, faults: list[Fault]
) -> None:
    """Set the ids of images and annotations in place; names must differ."""
    numbers = [_whole(row.pop("given_id")) for row in rows]
    keep = len({number for number in numbers if number is not None}) == len(rows)  # a file that we wrote
    first: dict[Any, str] = {}
    for row, number, own in zip(rows, numbers, labels, strict=True):
        file, record = row.pop("record")
        other = first.setdefault(row["file_name"], record)
        row["id"] = number if keep else name_id(row["file_name"])
        if other is not record:
            faults.append(Fault(file, record, f"the name of {other}", "names that differ", _CORRECT))
        elif (
            first.setdefault(row["id"], record) is not record
        ):  # expected in one of 10,000 data sets of 200,000 images
            found = f"a name with the same hash as that of {first[row['id']]}"
            faults.append(Fault(file, record, found, "names whose hashes differ", "rename this image"))
        for annotation in own:
            annotation["image_id"] = row["id"]
    flat = [annotation for own in labels for annotation in own]
    numbers = [_whole(annotation.pop("given_id")) for annotation in flat]
    known = {number for number in numbers if number is not None}
    for n, (annotation, number) in enumerate(zip(flat, numbers, strict=True)):
        annotation["id"] = number if len(known) == len(flat) else n + 1


def _whole(value: Any) -> int | None:
    """A whole number, or text that is one in its shortest form, as ids that we write; else None."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value) and str(int(value)) == value:
        value = int(value)
    return value if is_id(value) else None
