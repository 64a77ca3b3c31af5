"""Text of untrusted documents. JSON and file names may contain lone surrogates; UTF-8 and Arrow can't."""

from __future__ import annotations

from typing import Any, TypeGuard

TEXT = "text that UTF-8 can hold, without lone surrogates"
"""The expected value where `is_text` is false."""


def clean(value: str) -> str:
    """The text with lone surrogates escaped."""
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a non-empty string that UTF-8 can hold."""
    return isinstance(value, str) and value != "" and (value.isascii() or clean(value) == value)
