"""JSON without duplicate keys, of which programs silently use either value. All JSON of users is parsed here."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeGuard

from data.errors import DataError, Fault
from data.storage import open_regular

ONCE = "each key once: programs differ in which of two values they use"
DELETE = "delete the wrong one, or export the file again"


class DuplicateKeys(dict[str, Any]):
    """An object that had duplicate keys; it holds the last value of each.

    Attributes:
        duplicates: these keys, as messages show them.
    """

    duplicates: tuple[str, ...] = ()


def parse_json(text: str | bytes) -> tuple[Any, list[tuple[str, str]]]:
    """The value of a JSON text, and its duplicate keys as (record, keys).

    Raises:
        ValueError: not JSON, or nested too deeply.
    """
    found: list[DuplicateKeys] = []

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) == len(pairs):
            return row
        marked = DuplicateKeys(row)
        counts = Counter(key for key, _ in pairs)
        marked.duplicates = tuple(repr(key)[:100] for key, count in counts.items() if count > 1)
        found.append(marked)
        return marked

    try:
        value = json.loads(text, object_pairs_hook=make)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value, [(place or "file", keys) for place, keys in duplicate_keys(value)] if found else []


def duplicate_keys(value: Any) -> Iterator[tuple[str, str]]:
    """(place, keys) of each `DuplicateKeys` in a value of `parse_json`, in order; the value's own place is ""."""
    todo: list[tuple[str, Any]] = [("", value)]
    while todo:
        place, one = todo.pop()
        if isinstance(one, DuplicateKeys):
            yield place, ", ".join(one.duplicates)
        inner: list[tuple[str, Any]] = []
        if isinstance(one, dict):
            inner = [(f"{place}, {key}" if place else key, child) for key, child in one.items()]
        elif isinstance(one, list):
            inner = [(f"{place or 'record'} #{n}{_id(child)}", child) for n, child in enumerate(one)]
        todo += reversed([(where[-200:], child) for where, child in inner if isinstance(child, dict | list)])


def _id(row: Any) -> str:
    own = row.get("id") if isinstance(row, dict) else None
    return f" (id {own!r})"[:50] if isinstance(own, int | str) else ""


def duplicate_fault(file: str, record: str, keys: str) -> Fault:
    """The fault of a record with duplicate keys."""
    return Fault(file, repr(record)[1:-1], f"key {keys} twice", ONCE, DELETE)


def load_json(path: str | os.PathLike[str]) -> Any:
    """Parse a whole JSON file.

    Raises:
        DataError: missing, unreadable or not JSON; or all records with duplicate keys.
    """
    try:
        with open_regular(path) as file:
            value, duplicates = parse_json(file.read())
    except FileNotFoundError:
        found, step = "no such file", "correct the path, in params.yaml or on the command line"
    except (OSError, ValueError) as error:
        found, step = f"not readable as JSON ({error})", "export the file again"
    else:
        if duplicates:
            raise DataError(duplicate_fault(str(path), *one) for one in duplicates)
        return value
    raise DataError(Fault(str(path), "file", found, "a COCO JSON file", step))


def to_json(value: Any) -> str:
    """Compact JSON on one line; the same value gives the same text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of `parse_json` is a finite number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
