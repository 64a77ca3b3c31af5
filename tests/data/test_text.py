from __future__ import annotations

from typing import Any

import pytest

from data.text import safe_cell


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("+a", "'+a"),
        ("-2", "'-2"),
        ("@sum", "'@sum"),
        ("\tx", "'\tx"),
        ("\r=x", "'\r=x"),
        ("  =HYPERLINK()", "'  =HYPERLINK()"),
        ("bolt", "bolt"),
        ("a=b", "a=b"),
        ("", ""),
        (-2.5, -2.5),
        (None, None),
    ],
)
def test_texts_that_would_be_formulas_are_neutralised(value: Any, expected: Any) -> None:
    assert safe_cell(value) == expected
