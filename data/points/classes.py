"""The file `points.classes`: class names in point files -> class names in the data set."""

from __future__ import annotations

import csv
import difflib
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data import strict_yaml
from data.errors import DataError, Fault
from data.points.file import PointFile
from data.points.values import shown, text
from data.tables import Category
from data.text import clean

EXPECTED = "YAML of `name in point files: name in the data set`, or a CSV of these two columns"


def load_classes(path: Path, categories: Sequence[Category]) -> dict[str, str | None]:
    """Name in point files -> name in the data set. A value None (empty in the file) leaves the class out; the name ""
    is that of points without a class.

    Raises:
        DataError: a missing file, neither YAML nor CSV, or all names that are there twice or not in the data set.
    """
    file = PointFile(path)
    if file.text is None:
        raise file.fault(str(file.text_error), EXPECTED, "save the file as UTF-8 text")
    pairs = _csv_pairs(file) if path.suffix.lower() in (".csv", ".tsv") else _yaml_pairs(file)
    known = {category.name for category in categories}
    faults: list[Fault] = []
    result: dict[str, str | None] = {}
    first: dict[str, tuple[str, str | None]] = {}
    for record, name, value in pairs:
        name, value = clean(name), None if value is None else clean(value)
        # Two spellings that look the same are one name to a person.
        other, given = first.setdefault(unicodedata.normalize("NFC", name).strip(), (name, value))
        if given != value:
            which = "" if other == name else f": here, and as {other!a}"
            faults.append(_fault(path, record, f"{name!r} twice{which}"[:300], "each name once"))
        if value is not None and value not in known:
            near = difflib.get_close_matches(value, known, n=3, cutoff=0.5) or sorted(known)[:10]
            faults.append(
                _fault(path, record, f"class {value!r}"[:300], f"a class of the data set: {', '.join(near)}")
            )
        result[name] = value
    if faults:
        raise DataError(faults)
    return result


def _fault(path: Path, record: str, found: str, expected: str) -> Fault:
    return Fault(str(path), record, found, expected, "correct the file of points.classes")


def _yaml_pairs(file: PointFile) -> list[tuple[str, str, str | None]]:
    duplicates: list[str] = []
    try:
        document = strict_yaml.parse(file.text or "", duplicates=duplicates)
    except strict_yaml.YamlError as error:
        raise file.fault(f"invalid YAML ({str(error)[:200]})", EXPECTED, "correct the file") from None
    if duplicates:
        raise DataError(
            _fault(file.path, "file", f"name {name[:300]}", "each name once") for name in duplicates
        )
    if not isinstance(document, dict):
        raise file.fault(shown(document), EXPECTED, "correct the file")
    faults = [
        _fault(file.path, f"name {shown(name)}", shown(value), "a name, or nothing to leave the class out")
        for name, value in document.items()
        if _name(name) is None or (value is not None and text(value) is None)
    ]
    if faults:
        raise DataError(faults)
    return [(f"name {name!r}", str(_name(name)), text(value)) for name, value in document.items()]


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) else text(value)


def _csv_pairs(file: PointFile) -> list[tuple[str, str, str | None]]:
    try:
        rows = [row for row in csv.reader(io.StringIO(file.text or "", newline=""), strict=True) if row]
    except csv.Error as error:
        raise file.fault(f"invalid CSV ({error})", EXPECTED, "correct the file") from None
    faults = [
        _fault(file.path, f"row {n}", shown(row), "two cells")
        for n, row in enumerate(rows, 1)
        if len(row) != 2
    ]
    if faults or not rows:
        raise DataError(faults or _fault(file.path, "file", "no row", EXPECTED))
    return [(f"row {n}", row[0].strip(), row[1].strip() or None) for n, row in enumerate(rows[1:], 2)]
