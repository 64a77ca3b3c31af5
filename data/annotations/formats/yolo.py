"""Masks of Ultralytics' YOLO: a folder of .txt files, one an image, and data.yaml with the classes.

A line is `class x y x y ...`, in shares of the image's width and height. Label files are below a folder `labels`, their
images in the same place below `images`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from data import strict_yaml
from data.annotations.coco.file import CocoFile
from data.annotations.records import ImageRow, ReadOptions, Records
from data.errors import DataError, Fault
from data.storage import list_files, open_regular
from data.text import is_text

CLASS_FILES = ("data.yaml", "dataset.yaml", "data.yml", "classes.txt", "obj.names")
BESIDE = ("classes.txt", "train.txt", "val.txt", "test.txt", "obj.names", "readme.txt", "notes.json")
"""Other files of such exports."""
OUTSIDE = 0.01
"""How far a corner may be outside of the image, as a share of its side: annotation tools round."""
PARENTS = 3
"""Folders above the labels in which data.yaml is searched."""


def read(path: Path, options: ReadOptions) -> CocoFile:
    """A folder, to any depth, or the data.yaml of one. Class ids are the numbers in the files plus 1.

    Raises:
        DataError: all faults of all files; no file of classes.
    """
    folder = path if path.is_dir() else path.parent
    records = Records(path, options)
    classes = find_classes(folder) if options.need_masks else {}
    files = label_files(folder)
    if not files:
        expected = "label files of YOLO, below a folder labels"
        raise DataError(Fault(str(path), "folder", "no .txt with labels", expected, "correct the path"))
    found: list[tuple[Path, str]] = []
    for name in files:
        image = records.find(folder / name, "image", *_image_names(folder / name))
        if image is not None:
            found.append((folder / name, image))
    if options.need_masks:
        records.prepare({image for _, image in found})
    for file, name in found:
        size = records.size(name) if options.need_masks else None
        if options.need_masks and size is None:
            continue
        image_row = records.image(file, "image", name, size)
        if image_row is not None and options.need_masks:
            _read(file, image_row, classes, records)
    numbers = sorted(classes)
    return records.file([classes[n] for n in numbers], [n + 1 for n in numbers])


def label_files(folder: Path) -> list[str]:
    """The .txt files of a folder that may have labels, as sorted paths below it."""
    names = [name for name in list_files(folder, (".txt",)) if PurePosixPath(name).name.lower() not in BESIDE]
    of_labels = [name for name in names if "labels" in PurePosixPath(name).parts[:-1]]
    return of_labels or names


def _image_names(file: Path) -> tuple[str, ...]:
    """Paths of an image without suffix, given its label file: the one below `images`, the file's own, the bare name."""
    bare = file.absolute().with_suffix("")
    parts = list(bare.parts[1:])
    swapped = []
    if "labels" in parts:
        at = len(parts) - 1 - parts[::-1].index("labels")
        swapped = ["/".join([*parts[:at], "images", *parts[at + 1 :]])]
    return (*swapped, "/".join(parts), bare.name)


def find_classes(folder: Path) -> dict[int, str]:
    """The names of the classes by number, in the file of classes in the folder or next above it.

    Raises:
        DataError: there is none, or it has no names.
    """
    here = folder.resolve()
    for place in (here, *here.parents[:PARENTS]):
        for name in CLASS_FILES:
            if (place / name).is_file():
                return read_classes(place / name)
    expected = "data.yaml with `names`, or classes.txt, in the folder or above it"
    raise DataError(
        Fault(str(folder), "folder", "no file of classes", expected, "put the export's data.yaml there")
    )


def read_classes(path: Path) -> dict[int, str]:
    """The names by number in a file: `names` of YAML (a list, or numbers with names), or a name a line.

    Raises:
        DataError: unreadable, or no names.
    """
    expected = "names: [cell, ...] or names: {0: cell, ...}"
    try:
        if path.suffix not in (".yaml", ".yml"):
            with open_regular(path) as file:
                lines = file.read().decode("utf-8").splitlines()
            return _checked([line.strip() for line in lines if line.strip()], path)
        document = strict_yaml.read(path)
    except (OSError, UnicodeDecodeError, strict_yaml.YamlError) as error:
        found, step = f"unreadable ({error})", "export it again"
        raise DataError(Fault(str(path), "file", found[:300], expected, step)) from None
    names: Any = document.get("names") if isinstance(document, dict) else None
    return _checked(names, path)


def _checked(names: Any, path: Path) -> dict[int, str]:
    given = dict(enumerate(names)) if isinstance(names, list) else names if isinstance(names, dict) else {}
    # A name such as 3 is a number in YAML; so is a key, except in quotes.
    texts = {str(key): str(name) if isinstance(name, int) else name for key, name in given.items()}
    sound = all(
        key.isascii() and key.isdigit() and len(key) < 9 and is_text(one) for key, one in texts.items()
    )
    if not texts or not sound or len(set(texts.values())) < len(texts):
        found = f"names {names!r}"[:300]
        raise DataError(Fault(str(path), "names", found, "a list of names that differ", "correct it"))
    return {int(key): name for key, name in texts.items()}


def _read(file: Path, image: ImageRow, classes: dict[int, str], records: Records) -> None:
    try:
        with open_regular(file) as opened:
            lines = opened.read().decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        records.fault(file, "file", f"unreadable ({error})", "text: class x y x y ...", "export it again")
        return
    for n, line in enumerate(lines, start=1):
        values = line.split()
        if values:
            _line(file, f"line {n}", values, image, classes, records)


def _line(
    file: Path, record: str, values: list[str], image: ImageRow, classes: dict[int, str], records: Records
) -> None:
    try:
        number, *shares = float(values[0]), *map(float, values[1:])
    except ValueError:
        records.fault(file, record, f"{' '.join(values)[:100]!r}", "numbers: class x y x y ...")
        return
    name = classes.get(int(number)) if number.is_integer() else None
    if name is None:
        known = f"{min(classes)} to {max(classes)}, the classes of data.yaml"
        records.fault(file, record, f"class {values[0]}"[:60], known)
        return
    outside = next((v for v in shares if not -OUTSIDE <= v <= 1 + OUTSIDE), None)
    if outside is not None:
        expected = "shares of the image's width and height, from 0 to 1"
        records.fault(file, record, f"coordinate {outside:g}", expected, "export normalized coordinates")
    elif len(shares) == 4:
        x, y, w, h = (v * side for v, side in zip(shares, (image.width, image.height) * 2, strict=True))
        records.add_box(file, record, image, name, (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    else:
        sides = (image.width, image.height)
        polygon = [min(max(v, 0.0), 1.0) * sides[n % 2] for n, v in enumerate(shares)]
        records.add_polygons(file, record, image, name, [polygon])
