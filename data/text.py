"""Texts of untrusted documents. JSON and file names may hold halves of surrogate pairs; UTF-8 and Arrow can't."""

from __future__ import annotations

from typing import Any, TypeGuard

TEXT = "a text that UTF-8 can hold, without halves of surrogate pairs"
"""What is expected where `is_text` says no."""


def clean(value: str) -> str:
    """The text with lone surrogates escaped."""
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a text that isn't empty and that UTF-8 can hold."""
    return isinstance(value, str) and value != "" and (value.isascii() or clean(value) == value)
