"""Values of untrusted documents: numbers, texts, and how to show what was found."""

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
    """What was found, short: a document may hold megabytes or thousands of levels at any place."""
    return _repr.repr(value)[:SHOWN_CHARACTERS]


def number(value: Any) -> float | None:
    """A finite JSON number; None for anything else: texts, true, NaN, infinities, what no float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def parse_number(cell: str, decimal_comma: bool = False) -> float | None:
    """A finite number written as text: digits, sign, point, exponent; `nan`, `inf` and `1_000` are none.

    Args:
        cell: the text.
        decimal_comma: also read `12,5`; for tables whose delimiter is no comma.
    """
    cell = cell.strip()
    if decimal_comma and _DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    if not _NUMBER.fullmatch(cell):
        return None
    result = float(cell)
    return result if math.isfinite(result) else None


def text(value: Any) -> str | None:
    """A name, a time or an id as text; None where there is none, or something that is neither text nor number."""
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


def id_first(value: str | int | None) -> tuple[str | int | None, tuple[str, ...]]:
    """What a field of ids says: the id, and what else it may be, where it is text: a name."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value), (value,)
    return value, ()


def moment(time: str | None) -> float:
    """An ISO 8601 time in seconds, taken as UTC where it has no zone; minus infinity where it is none."""
    try:
        found = datetime.fromisoformat(time or "")
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return float("-inf")
