"""BDD100K's bitmasks: one RGBA PNG an image, in which each pixel belongs to at most one object.

R is the class id (0: background), G the flags (truncated 8, occluded 4, crowd 2, ignored 1), B * 256 + A the object's
number in the image, from 1. Exports have two more files: `categories.json` with the classes, and `scores.json` with the
scores, as Scalabel frames whose labels have the object's number as `index`.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from data.annotations.categories import KNOWN, load_categories
from data.annotations.coco.file import CocoFile
from data.annotations.frames import FLAGS, Frame, ImageFiles, Label, name_id
from data.errors import DataError, Fault
from data.masks import rle
from data.storage import list_files
from data.tables import Category
from data.text import TEXT, is_text

MAX_PIXELS = 89_000_000  # of a bitmask; 360 MB decoded
CATEGORIES, SCORES = "categories.json", "scores.json"
_BITS = {"truncated": 8, "occluded": 4, "crowd": 2, "ignored": 1}
_EXPORT_AGAIN = "export this bitmask again, or remove it"


@dataclass
class Drawn:
    """What bitmasks hold of the labels, and what is lost, since masks can't overlap in them.

    Attributes:
        images: files written.
        labels: masks of which at least one pixel was written.
        hidden: (image file name, label id) of masks that are empty or entirely covered by others.
        covered_pixels: pixels of masks that are covered by other masks.
    """

    images: int = 0
    labels: int = 0
    hidden: list[tuple[str, int]] = field(default_factory=list)
    covered_pixels: int = 0


def read_bitmasks(
    path: str | os.PathLike[str], *, images: ImageFiles | None = None, folder: str = ""
) -> CocoFile:
    """Read and validate a folder of bitmasks, searched to any depth, as the records of a COCO file.

    Args:
        path: the folder. Classes are those of its `categories.json`, else BDD100K's.
        images: where the image of a bitmask is looked up: it has the same name but for the suffix. None: each image is
            a .jpg, as BDD100K's are.
        folder: the folder of the images below the image root; prepended to each name.

    Returns:
        Image ids are hashes of the names; annotation ids are numbers from 1 in the order of files and objects.

    Raises:
        DataError: all faults of all files: not an RGBA PNG, more than `MAX_PIXELS` pixels, pixels of an object that
            differ in class or flags, unknown classes or flags, a bitmask without an image or with several.
    """
    root = Path(path)
    names = list_files(root, (".png",))
    if not names:
        expected = "RGBA PNGs, as in BDD100K's labels/ins_seg/bitmasks/train"
        raise DataError(Fault(str(path), "folder", "no .png in it", expected, "correct the path"))
    has_own = (root / CATEGORIES).is_file()
    categories = load_categories(root / CATEGORIES) if has_own else list(KNOWN["bdd100k"])
    known = {category.id for category in categories}
    by_stem: dict[str, list[str]] = {}
    for name in sorted(images.names()) if images is not None else ():
        by_stem.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    faults: list[Fault] = []
    rows: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name in names:
        if not is_text(name):
            faults.append(
                Fault(str(root), f"file {name!r}", "a name that is not UTF-8", TEXT, "rename the file")
            )
            continue
        stem = PurePosixPath(folder) / PurePosixPath(name).with_suffix("")
        found = [f"{stem}.jpg"] if images is None else by_stem.get(str(stem), [])
        if len(found) != 1:
            shown = ", ".join(found[:5]) or "none"
            faults.append(
                Fault(str(root / name), "image", shown, f"one image {stem}.* below the image root",
                      "correct the image root or ingest.folders, or remove this bitmask")
            )  # fmt: skip
            continue
        try:
            height, width, objects = _read(root / name, known)
        except DataError as error:
            faults += error.faults
            continue
        image_id = name_id(found[0])
        rows.append({"id": image_id, "file_name": found[0], "height": height, "width": width})
        annotations += [
            {"id": number, "image_id": image_id, "segmentation": {"size": [height, width], "counts": counts}}
            | _class_and_flags(category_id, bits)
            for number, (category_id, bits, counts) in enumerate(objects, start=len(annotations) + 1)
        ]
    ids = {row["id"] for row in rows}
    if len(ids) != len(rows):
        faults.append(Fault(str(path), "folder", "two images whose names have one hash", "names whose hashes differ",
                            "rename one of them"))  # fmt: skip
    if faults:
        raise DataError(faults)
    return CocoFile(sorted(rows, key=lambda row: row["id"]), annotations, sorted(categories), str(path))


def _class_and_flags(category_id: int, bits: int) -> dict[str, Any]:
    return {
        "category_id": category_id,
        "iscrowd": int(bool(bits & (_BITS["crowd"] | _BITS["ignored"]))),
        "attributes": {flag: bool(bits & _BITS[flag]) for flag in FLAGS},
    }


def _read(path: Path, known: set[int]) -> tuple[int, int, list[tuple[int, int, bytes]]]:
    """Height, width, and class id, flag bits and RLE of each object of a file, in the order of their numbers."""
    rgba = _pixels(path)
    height, width = rgba.shape[:2]
    try:
        # Big-endian, a pixel's bytes are one number: class, flags, object's number.
        found = rle.encode_labels(np.ascontiguousarray(rgba).view(">u4")[..., 0])
    except ValueError as error:
        step = "name the folder of bitmasks, not of images"
        raise DataError(
            Fault(str(path), "pixels", str(error), "a bitmask of up to 65,535 objects", step)
        ) from None
    faults = []

    def fault(record: str, found: str, expected: str) -> None:
        faults.append(Fault(str(path), record, found, expected, _EXPORT_AGAIN))

    objects: dict[int, tuple[int, int, bytes]] = {}
    for code, counts in found.items():
        category_id, bits, number = code >> 24, code >> 16 & 255, code & 65_535
        if number == 0:
            if category_id:
                stray = rle.area(counts, height, width)
                fault(
                    "pixels",
                    f"{stray} with a class but no object's number",
                    "B * 256 + A from 1 for each object",
                )
            continue
        if number in objects:
            fault(f"object {number}", "pixels that differ in class or flags", "the same R and G throughout")
        elif category_id not in known:
            listed = ", ".join(map(str, sorted(known)[:20]))
            fault(f"object {number}", f"class id R = {category_id}", f"one of {listed}")
        elif bits > 15:
            fault(f"object {number}", f"flags G = {bits}", "truncated 8 + occluded 4 + crowd 2 + ignored 1")
        objects[number] = (category_id, bits, counts)
    if faults:
        raise DataError(faults)
    return height, width, [objects[number] for number in sorted(objects)]


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    """uint8 RGBA [H, W, 4] of a file; its size is checked before it is decoded."""
    expected = f"an RGBA PNG of 8 bits and at most {MAX_PIXELS:,} pixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked below
            with Image.open(path, formats=("PNG",)) as image:
                if image.width * image.height > MAX_PIXELS:
                    found = f"{image.width} x {image.height} pixels"
                elif image.mode != "RGBA":
                    found = f"a PNG of mode {image.mode}, such as BDD100K's colormaps and masks"
                else:
                    return np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        found = f"not readable as PNG ({type(error).__name__}: {str(error)[:100]})"
    raise DataError(Fault(str(path), "file", found, expected, _EXPORT_AGAIN))


def write_bitmasks(folder: Path, frames: Iterable[Frame], categories: Sequence[Category]) -> Drawn:
    """Write a bitmask for each frame, the classes, and the scores if there are any.

    Where masks overlap, the one of the higher score covers the others, then the one of the higher id, as in BDD100K's
    own tools.

    Args:
        folder: to write into; the caller discards it if this raises (`data.storage.atomic_dir`).
        frames: images and their masks.
        categories: ids from 1 to 255.

    Raises:
        DataError: class ids that a byte can't hold, more than 65,535 masks on an image, two images whose names differ
            only in their suffix.
    """
    faults = [
        Fault(
            "export",
            f"class {c.name!r}",
            f"id {c.id}",
            "an id from 1 to 255, a byte's",
            "export another format",
        )
        for c in categories
        if not 1 <= c.id <= 255
    ]
    if faults:
        raise DataError(faults)
    names = {category.id: category.name for category in categories}
    drawn = Drawn()
    scores: list[dict[str, Any]] = []
    for frame in frames:
        target = folder / PurePosixPath(frame.file_name).with_suffix(".png")
        problem = None
        if target.exists():
            problem = ("a second image of this name, with another suffix", "names that differ without it")
        elif len(frame.labels) > 65_535:
            problem = (f"{len(frame.labels)} masks", "at most 65,535")
        if problem is not None:
            raise DataError(Fault("export", f"image {frame.file_name!r}", *problem, "export another format"))
        target.parent.mkdir(parents=True, exist_ok=True)
        rgba, numbers = _draw(frame, drawn)
        Image.fromarray(rgba).save(target, format="PNG")
        drawn.images += 1
        scored = [(numbers[label.label_id], label) for label in frame.labels if label.label_id in numbers]
        if any(label.score is not None for _, label in scored):
            scores.append(_scores(frame, scored, names))
    rows = [{"id": category.id, "name": category.name} for category in sorted(categories)]
    (folder / CATEGORIES).write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", "utf-8")
    if scores:
        lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in scores)
        (folder / SCORES).write_text(f"[{lines}]\n", "utf-8")
    return drawn


def _draw(frame: Frame, drawn: Drawn) -> tuple[npt.NDArray[np.uint8], dict[int, int]]:
    """uint8 RGBA [H, W, 4] of a frame, and the object number of each label id that is visible in it."""
    # Lowest first; without a score (annotators' masks) before those with one.
    order = sorted(
        frame.labels, key=lambda label: (-1.0 if label.score is None else label.score, label.label_id)
    )
    label_of = np.zeros((frame.height, frame.width), dtype=np.int32)
    for n, label in enumerate(order, start=1):
        rows, columns = rle.object_pixels(label.counts, frame.height)
        drawn.covered_pixels += int(np.count_nonzero(label_of[rows, columns]))
        label_of[rows, columns] = n
    present = set(np.unique(label_of).tolist())
    table = np.zeros((len(order) + 1, 4), dtype=np.uint8)
    numbers = {}
    # Numbers follow the order of the labels, without gaps.
    ranks = {id(label): n for n, label in enumerate(order, start=1)}
    visible = [label for label in frame.labels if ranks[id(label)] in present]
    for number, label in enumerate(visible, start=1):
        bits = sum(_BITS[flag] for flag in label.flags)
        table[ranks[id(label)]] = (label.category_id, bits, number >> 8, number & 255)
        numbers[label.label_id] = number
    drawn.labels += len(visible)
    drawn.hidden += [
        (frame.file_name, label.label_id) for label in frame.labels if label.label_id not in numbers
    ]
    return table[label_of], numbers


def _scores(frame: Frame, scored: list[tuple[int, Label]], names: dict[int, str]) -> dict[str, Any]:
    labels = [
        {"id": label.point_id or str(label.label_id), "index": number, "category": names[label.category_id]}
        | ({} if label.score is None else {"score": label.score})
        for number, label in scored
    ]
    return {"name": frame.file_name, "labels": labels}
