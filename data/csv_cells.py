"""Cells of CSV files that we write: a text from somebody's file must not become a formula in somebody's spreadsheet."""

from __future__ import annotations

from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(value: Any) -> Any:
    """The value, a text that a spreadsheet would take for a formula with an apostrophe before it; numbers as they are.

    Spaces before the sign don't help: spreadsheets pass over them.
    """
    if isinstance(value, str) and (
        value.startswith(("\t", "\r")) or value.lstrip().startswith(FORMULA_STARTS)
    ):
        return f"'{value}"
    return value
