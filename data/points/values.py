"""Values of untrusted documents: numbers, text, and their display in messages."""

from __future__ import annotations

import math
import re
import reprlib
from datetime import UTC, datetime
from typing import Any

SHOWN_CHARACTERS = 200

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_repr = reprlib.Repr()
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 12
_repr.maxstring = _repr.maxother = _repr.maxlong = 100


def shown(value: Any) -> str:
    """A short text of any value, which may have megabytes or thousands of levels."""
    return _repr.repr(value)[:SHOWN_CHARACTERS]


def number(value: Any) -> float | None:
    """A finite JSON number as float; None for anything else, also for true, NaN and numbers beyond a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def parse_number(cell: str, decimal_comma: bool = False) -> float | None:
    """A finite number written as digits, sign, point and exponent; None for others, also `nan`, `inf` and `1_000`.

    Args:
        cell: the text.
        decimal_comma: also read `12,5`, for tables whose delimiter isn't a comma.
    """
    cell = cell.strip()
    if decimal_comma and _DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    if not _NUMBER.fullmatch(cell):
        return None
    result = float(cell)
    return result if math.isfinite(result) else None


def text(value: Any) -> str | None:
    """A name, a time or an id as text; None for an empty text, or a value that is neither text nor number."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


def name_or_id(value: Any) -> str | int | None:
    """An image or class: a name, or an id of the data set; None for anything else."""
    if isinstance(value, str):
        return value or None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def without_suffix(name: str) -> str:
    """A file's name without its last suffix, if it has one."""
    return name.rpartition(".")[0] or name


def id_first(value: str | int | None) -> tuple[str | int | None, tuple[str, ...]]:
    """The value of a field of ids: the id, and for a text of digits also the text, which may be a name."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value), (value,)
    return value, ()


def moment(time: str | None) -> float:
    """An ISO 8601 time in seconds, UTC without a zone; minus infinity if it is no time."""
    try:
        found = datetime.fromisoformat(time or "")
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return float("-inf")
