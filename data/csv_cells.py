"""Cells of CSV files that we write: text from a user's file must not become a formula in a spreadsheet."""

from __future__ import annotations

from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(value: Any) -> Any:
    """The value; text that a spreadsheet would read as a formula gets a leading apostrophe.

    Spreadsheets ignore spaces before the sign, so text with leading spaces gets one too.
    """
    if isinstance(value, str) and (
        value.startswith(("\t", "\r")) or value.lstrip().startswith(FORMULA_STARTS)
    ):
        return f"'{value}"
    return value
