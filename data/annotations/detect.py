"""The format of a label file or folder, detected from its content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, UnidentifiedImageError

from data.annotations import bitmasks
from data.annotations.formats import cityscapes, label_maps, label_studio, voc, yolo
from data.annotations.image_index import listed, stem
from data.annotations.label_image import SUFFIXES, open_label_image
from data.annotations.strict_json import load_json, parse_json
from data.errors import DataError, Fault
from data.storage import list_files, open_regular

READABLE = (
    "COCO JSON (also Roboflow's and Label Studio's), YOLO-seg with data.yaml, label maps or binary masks (PNG, TIFF), "
    "Pascal VOC, Cityscapes, labelme, CVAT XML for images, Label Studio JSON, Scalabel, BDD100K bitmasks"
)
CONVERT = "export one of these, or convert it to COCO, as with Datumaro (`datum convert`) or FiftyOne"
_BITMASKS = (bitmasks.CATEGORIES, bitmasks.SCORES)
_HEAD = 4096  # bytes in which the first key of a JSON file is searched
_LOOKED_AT = 20  # files of a kind in a folder
_FIRST_KEYS = {
    "frames": "scalabel", "groups": "scalabel", "config": "scalabel", "images": "coco", "annotations": "coco",
    "categories": "coco", "info": "coco", "licenses": "coco",
}  # fmt: skip
_ARCHIVES = ((b"PK\x03\x04", "zip"), (b"\x1f\x8b", "gzip"), (b"7z\xbc\xaf", "7z"), (b"Rar!", "rar"))
_KNOWN_OBJECTS = {
    "_via_img_metadata": "a VIA project; export it as COCO (Annotation > Export Annotations as COCO)",
    "file": "a VIA 3 project; export it as COCO",
    "features": "GeoJSON; export label maps, in QuPath with exportLabeledImage",
    "dataset": "Datumaro's JSON; convert it with `datum convert -f coco_instances`",
}


def format_of(path: Path) -> str:
    """The format of a file or folder.

    Raises:
        DataError: missing, unknown, or several formats in one folder.
    """
    return _of_folder(path) if path.is_dir() else _of_file(path)


def _unknown(path: Path, found: str, step: str = CONVERT) -> DataError:
    return DataError(Fault(str(path), "folder" if path.is_dir() else "file", found, READABLE, step))


def _of_file(path: Path) -> str:
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
    except OSError:
        _loaded(path)  # raises a DataError with the reason
        raise
    archive = next((kind for magic, kind in _ARCHIVES if head.startswith(magic)), None)
    if archive is not None:
        raise _unknown(path, f"a {archive} archive", "unpack it, and name the file or folder in it")
    if head.startswith((b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "label-maps"
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if text.startswith("<"):
        return _of_xml(path, text)
    if path.suffix.lower() == ".txt" and voc.root_of(path) is not None:
        return "voc"
    if path.suffix.lower() in (".yaml", ".yml"):
        return "yolo-seg"
    return _of_json(path, text)


def _of_xml(path: Path, head: str) -> str:
    root = re.search(r"<([A-Za-z_][\w.-]*)", re.sub(r"<[?!][^>]*>|<!--.*?-->", "", head, flags=re.DOTALL))
    if root is not None and root[1] == "annotations":
        return "cvat"
    kind = "boxes of Pascal VOC, without masks" if root is not None and root[1] == "annotation" else "XML"
    raise _unknown(path, f"{kind}, root <{root[1] if root is not None else ''}>")


def _of_json(path: Path, head: str) -> str:
    if head.startswith("["):
        likely = any(
            f'"{key}"' in head for key in ("annotations", "completions", "original_width", "annotation_id")
        )
        return "label-studio" if likely and label_studio.is_tasks(load_json(path)) else "scalabel"
    key = re.match(r'\{\s*"([^"\\]*)"', head)
    if key is not None and key[1] in _FIRST_KEYS:
        return _FIRST_KEYS[key[1]]
    if (lines := _json_lines(path)) is not None:
        raise _unknown(path, lines)
    document = _loaded(path)
    names = list(document) if isinstance(document, dict) else []
    if isinstance(document, dict) and isinstance(document.get("shapes"), list):
        return "labelme"
    for name in names:
        if name in _FIRST_KEYS:
            return _FIRST_KEYS[name]
    found, step = type(document).__name__, CONVERT
    if isinstance(document, dict):
        found = f"an object with {', '.join(repr(name)[:40] for name in names[:5]) or 'nothing in it'}"
        known = next((_KNOWN_OBJECTS[name] for name in names if name in _KNOWN_OBJECTS), None)
        if known is not None:
            kind, _, step = known.partition("; ")
            found = f"{kind}: {found}"
    raise _unknown(path, found, step)


def _loaded(path: Path) -> Any:
    """The value of a JSON file; what is no JSON may be a file of any format."""
    try:
        return load_json(path)
    except DataError as error:
        raise DataError(
            replace(fault, expected=READABLE)
            if fault.record == "file" and "JSON" in fault.expected
            else fault
            for fault in error.faults
        ) from None


def _json_lines(path: Path) -> str | None:
    """What a file of JSON values, one a line, is; None if it is none."""
    values: list[Any] = []
    try:
        with open_regular(path) as file:
            for line in islice(file, 2):
                values.append(parse_json(line[: 1 << 24])[0])
    except (OSError, ValueError):
        return None
    if len(values) < 2 or not all(isinstance(value, dict) for value in values):
        return None
    keys = ", ".join(repr(key)[:40] for key in list(values[0])[:5])
    tool = (
        "Labelbox"
        if "data_row" in values[0]
        else "Ultralytics' platform"
        if "class_names" in values[0]
        else ""
    )
    return f"lines of JSON (NDJSON{f', as {tool} writes' if tool else ''}), the first with {keys}"


def _of_folder(path: Path) -> str:
    if (path / voc.OBJECTS).is_dir() and (path / voc.CLASSES).is_dir():
        return "voc"
    every = list_files(path)
    names = [name for name in every if PurePosixPath(name).name not in yolo.BESIDE]
    if not names:
        raise _unknown(path, "no label files" if every else "an empty folder", "correct the path")
    if any(name.endswith(cityscapes.ENDING) for name in names):
        return "cityscapes"
    pictures = [name for name in names if name.lower().endswith(SUFFIXES)]
    others = [
        name for name in names if name.lower().endswith((".json", ".xml", ".txt")) and name not in _BITMASKS
    ]
    pngs = [name for name in pictures if name.lower().endswith(".png")]
    if not others and any(_is_bitmask(path / name) for name in _some(pngs)):
        return "bdd-bitmask"
    found: dict[str, list[str]] = {}
    problems: list[Fault] = []
    for name in [*_some(one for one in names if one.lower().endswith(".json")),
                 *_some(one for one in names if one.lower().endswith(".xml"))]:  # fmt: skip
        try:
            found.setdefault(_of_file(path / name), []).append(name)
        except DataError as error:
            problems += error.faults
    texts = yolo.label_files(path)
    if texts and any(_is_yolo(path / name) for name in _some(texts)):
        found["yolo-seg"] = texts
    maps = [name for name in pictures if label_maps.ENDING.match(stem(PurePosixPath(name).name))]
    if maps or (pictures and not found):
        found["label-maps"] = maps or pictures
    if len(found) == 1:
        return next(iter(found))
    if found:
        kinds = "; ".join(f"{kind} ({listed(own[:2])})" for kind, own in found.items())
        step = "name one in ingest.format, or put each into a folder of its own and list these in params.yaml"
        raise _unknown(path, f"several formats: {kinds}", step)
    if problems:
        raise DataError(problems)
    suffixes = sorted({PurePosixPath(name).suffix for name in names})
    raise _unknown(path, f"no label files; {len(names)} files {', '.join(suffixes[:8])}")


def _some(names: Iterable[str]) -> list[str]:
    """Some of the names, spread over all."""
    every = list(names)
    return every[:: -(-len(every) // _LOOKED_AT)] if every else []


def _is_bitmask(path: Path) -> bool:
    """Whether a PNG is a bitmask of BDD100K: RGBA whose A, a part of an object's number, isn't that of a picture."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode != "RGBA":
                return False
        pixels = open_label_image(path)
    except (
        OSError,
        UnidentifiedImageError,
        SyntaxError,
        ValueError,
        DataError,
        Image.DecompressionBombError,
    ):
        return False
    return bool(pixels[..., 3].min() < 255)


def _is_yolo(path: Path) -> bool:
    """Whether a text file begins with a line of a class and coordinates."""
    try:
        with open_regular(path) as file:
            words = file.read(_HEAD).decode("utf-8", errors="replace").split("\n", 1)[0].split()
        return len(words) >= 5 and all(json.loads(word) is not None for word in words)
    except (OSError, ValueError):
        return False
