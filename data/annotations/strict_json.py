"""JSON in which no object has a key twice: of two values programs take either, and nobody sees which.

All readers of JSON that others wrote parse it here.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from data.errors import DataError, Fault
from data.storage import open_regular

ONCE = "each key once: of two values programs take either"
DELETE = "delete the wrong one, or export the file again"


class Doubled(dict[str, Any]):
    """An object with keys that stand in it twice; of their values it has the last.

    Attributes:
        keys_twice: these keys, as messages show them.
    """

    keys_twice: tuple[str, ...] = ()


def parse_json(text: str | bytes) -> tuple[Any, list[tuple[str, str]]]:
    """The value of a JSON text, and where in it keys stand twice: (record, keys).

    Raises:
        ValueError: not JSON, or nested too deeply.
    """
    some: list[Doubled] = []

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        doubled = Doubled(found)
        counts = Counter(key for key, _ in pairs)
        doubled.keys_twice = tuple(repr(key)[:100] for key, count in counts.items() if count > 1)
        some.append(doubled)
        return doubled

    try:
        value = json.loads(text, object_pairs_hook=made)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value, [(place or "file", keys) for place, keys in doubled_keys(value)] if some else []


def doubled_keys(value: Any) -> Iterator[tuple[str, str]]:
    """(place, keys) of each object of `parse_json` in which keys stand twice, in order; the value's own place is ""."""
    todo: list[tuple[str, Any]] = [("", value)]
    while todo:
        place, one = todo.pop()
        if isinstance(one, Doubled):
            yield place, ", ".join(one.keys_twice)
        inner: list[tuple[str, Any]] = []
        if isinstance(one, dict):
            inner = [(f"{place}, {key}" if place else key, child) for key, child in one.items()]
        elif isinstance(one, list):
            inner = [(f"{place or 'record'} #{n}{_id(child)}", child) for n, child in enumerate(one)]
        todo += reversed([(where[-200:], child) for where, child in inner if isinstance(child, dict | list)])


def _id(row: Any) -> str:
    own = row.get("id") if isinstance(row, dict) else None
    return f" (id {own!r})"[:50] if isinstance(own, int | str) else ""


def doubled_fault(file: str, record: str, keys: str) -> Fault:
    """The fault of a record in which keys stand twice."""
    return Fault(file, repr(record)[1:-1], f"key {keys} twice", ONCE, DELETE)


def load_json(path: str | os.PathLike[str]) -> Any:
    """Parse a JSON file as a whole.

    Raises:
        DataError: missing, unreadable or not JSON; or every record of it in which a key stands twice.
    """
    try:
        with open_regular(path) as file:
            value, doubled = parse_json(file.read())
    except FileNotFoundError:
        found, step = "no such file", "correct the path, in params.yaml or on the command line"
    except (OSError, ValueError) as error:
        found, step = f"not readable as JSON ({error})", "export the file again"
    else:
        if doubled:
            raise DataError(doubled_fault(str(path), *one) for one in doubled)
        return value
    raise DataError(Fault(str(path), "file", found, "a COCO JSON file", step))
