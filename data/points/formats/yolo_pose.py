"""Points in YOLO's pose format: a .txt per image with a row per object, whose one visible keypoint is the point.

Numbers are shares of the image's width and height. The folder's data.yaml has the names of the classes and `kpt_shape`,
without which a row may also be a polygon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from data import strict_yaml
from data.points.record import Importer, Options, PointFile, PointRecord, Problem
from data.points.values import parse_number, shown, text, without_suffix

EXPECTED = (
    "YOLO pose: class, box (4 numbers), then x, y and, with kpt_shape [K, 3], visibility of each keypoint"
)
YAML = (".yaml", ".yml")
BOX = 5
"""Numbers of a row before its keypoints: the class and the box."""

_ROW = re.compile(r"\d+(\s+[-+.\deE]+){4,}\s*")
_KEYS = (
    re.compile(r"^names\s*:", re.MULTILINE),
    re.compile(r"^(kpt_shape|nc|path|train|val)\s*:", re.MULTILINE),
)


class _Setup(NamedTuple):
    """What data.yaml says.

    Attributes:
        names: of the classes, by index.
        keypoints: number of keypoints an object.
        values: of a keypoint: 2, or 3 with its visibility.
    """

    names: dict[int, str]
    keypoints: int
    values: int


def sniff(file: PointFile, _: Options) -> bool:
    """YOLO's data.yaml; rows of numbers; or an empty .txt next to such a data.yaml."""
    if file.text is None:
        return False
    suffix = file.path.suffix.lower()
    if suffix in YAML:
        return all(key.search(file.text) for key in _KEYS)
    rows = [line for line in file.text[:10_000].splitlines() if line.strip()]
    if not rows:
        return suffix == ".txt" and _yaml_of(file) is not None
    return suffix != ".csv" and _ROW.fullmatch(rows[0].strip()) is not None


def read(file: PointFile, _: Options) -> Iterator[PointRecord]:
    """One record a row; none for data.yaml.

    Raises:
        DataError: not text, no data.yaml with names and kpt_shape, rows of boxes or polygons.
    """
    if file.text is None:
        raise file.fault(str(file.text_error), EXPECTED, "export the labels again")
    if file.path.suffix.lower() in YAML:
        _setup(file, file.path)
        return
    rows = [(n, line.split()) for n, line in enumerate(file.text.splitlines(), 1) if line.strip()]
    path = _yaml_of(file)
    if path is None:
        kind = "boxes" if all(len(cells) == BOX for _, cells in rows) else "polygons, or keypoints,"
        raise file.fault(
            f"{len(rows):,} rows of YOLO {kind} without a data.yaml that has names and kpt_shape",
            EXPECTED,
            "put data.yaml next to the labels or above, and read the whole folder; masks belong under ingest.strong "
            "(`--masks` of `points2model init`)",
        )
    setup = _setup(file, path)
    images = _images(file)
    for n, cells in rows:
        like = PointRecord(
            file.name, f"line {n}", images[0], None, None, None, also=images[1:], relative=True
        )
        yield _row(like, cells, setup)


def _yaml_of(file: PointFile) -> Path | None:
    """The nearest YAML file with kpt_shape, in the file's folder or above, up to the folder of the point files."""
    for folder in list(file.path.parents)[: len(PurePosixPath(file.name).parts)]:
        if (found := _yaml_in(folder)) is not None:
            return found
    return None


def _yaml_in(folder: Path) -> Path | None:
    names = sorted(path for path in folder.glob("*.y*ml") if not path.name.startswith("."))
    for path in sorted(names, key=lambda path: path.stem != "data"):
        stat = path.stat()
        if path.suffix.lower() in YAML and _has_shape(path, stat.st_mtime_ns, stat.st_size):
            return path
    return None


@lru_cache(maxsize=256)
def _has_shape(path: Path, _changed: int, _size: int) -> bool:
    try:
        return "kpt_shape" in strict_yaml.read_text(path)
    except (OSError, strict_yaml.YamlError):
        return False


def _setup(file: PointFile, path: Path) -> _Setup:
    stat = path.stat()
    found = _parsed(path, stat.st_mtime_ns, stat.st_size)
    if isinstance(found, str):
        where = "" if path == file.path else f"{path.name}: "
        raise file.fault(
            f"{where}{found}",
            "names: [bolt, ...] and kpt_shape: [1, 3]",
            "correct the data.yaml of these labels",
        )
    return found


@lru_cache(maxsize=256)
def _parsed(path: Path, _changed: int, _size: int) -> _Setup | str:
    """The content of a data.yaml, or what is wrong with it; read once for all labels, unless it changes."""
    try:
        document = strict_yaml.read(path)
    except (OSError, strict_yaml.YamlError) as error:
        return f"unreadable ({error})"[:300]
    if not isinstance(document, dict):
        return shown(document)
    given, shape = document.get("names"), document.get("kpt_shape")
    named = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(named, dict) or not all(
        isinstance(key, int) and text(name) for key, name in named.items()
    ):
        return f"names {shown(given)}"
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(side) is int for side in shape):
        return f"kpt_shape {shown(shape)}"
    if shape[0] < 1 or shape[1] not in (2, 3):
        return f"kpt_shape {shown(shape)}"
    return _Setup({key: str(text(name)) for key, name in named.items()}, shape[0], shape[1])


def _images(file: PointFile) -> tuple[str, ...]:
    """The image's name without suffix: labels/a.txt is of images/a.png, or of a file of this name anywhere."""
    parts = list(PurePosixPath(without_suffix(file.name)).parts)
    found = ["/".join(parts), parts[-1]]
    if "labels" in parts:
        last = len(parts) - 1 - parts[::-1].index("labels")
        found[:0] = ["/".join([*parts[:last], "images", *parts[last + 1 :]]), "/".join(parts[last + 1 :])]
    return tuple(dict.fromkeys(name for name in found if name))


def _row(like: PointRecord, cells: list[str], setup: _Setup) -> PointRecord:
    values = [parse_number(cell) for cell in cells]
    numbers = [value for value in values if value is not None]
    wanted = BOX + setup.keypoints * setup.values
    if len(numbers) != len(cells) or len(cells) != wanted or not numbers[0].is_integer():
        expected = f"{wanted} numbers: class, box, {setup.keypoints} keypoint(s) of {setup.values} numbers"
        return like._replace(problem=Problem("bad_record", f"{len(cells)} values: {shown(cells)}", expected))
    category = setup.names.get(int(numbers[0]))
    if category is None:
        expected = f"one of {len(setup.names)} classes in data.yaml"
        return like._replace(problem=Problem("unknown_category", f"class {cells[0]}"[:100], expected))
    like = like._replace(category=category)
    keypoints: list[Any] = [numbers[i : i + setup.values] for i in range(BOX, wanted, setup.values)]
    # Without visibilities, YOLO's converters write an unlabelled keypoint as 0 0.
    visible = [xy for xy in keypoints if (xy[2] > 0 if setup.values == 3 else any(xy))]
    if len(visible) != 1:
        found = f"{len(visible)} visible keypoints"
        return like._replace(problem=Problem("bad_point", found, "one visible keypoint"))
    x, y = visible[0][:2]
    return like._replace(x=x, y=y, key=f"{category} {x},{y}")


IMPORTER = Importer("yolo_pose", sniff, read)
