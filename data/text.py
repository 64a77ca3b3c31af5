"""Text of untrusted documents, as UTF-8, Arrow and spreadsheets can hold it."""

from __future__ import annotations

from typing import Any, TypeGuard

TEXT = "text that UTF-8 can hold, without lone surrogates"
"""The expected value where `is_text` is false."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def clean(value: str) -> str:
    """The text with lone surrogates, which JSON and file names may contain, escaped."""
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a non-empty string that UTF-8 can hold."""
    return isinstance(value, str) and value != "" and (value.isascii() or clean(value) == value)


def safe_cell(value: Any) -> Any:
    """The value for a CSV cell; text that a spreadsheet would read as a formula gets a leading apostrophe.

    Spreadsheets ignore spaces before the sign, so text with leading spaces gets one too.
    """
    if isinstance(value, str) and (
        value.startswith(("\t", "\r")) or value.lstrip().startswith(FORMULA_STARTS)
    ):
        return f"'{value}"
    return value
