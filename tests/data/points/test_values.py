"""Numbers and moments of untrusted documents."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from data.points.values import moment, number, parse_number


@pytest.fixture(params=["America/St_Johns", "Asia/Kathmandu", "UTC"])
def _machines_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine west or east of Greenwich, not by whole hours."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_machines_zone")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-01T12:34:56.75", datetime(2024, 5, 1, 12, 34, 56, 750_000, UTC)),
        ("2024-05-01T12:34:56.75Z", datetime(2024, 5, 1, 12, 34, 56, 750_000, UTC)),
        ("2024-05-01 12:34:56+05:45", datetime(2024, 5, 1, 6, 49, 56, 0, UTC)),
        ("2024-05-01", datetime(2024, 5, 1, 0, 0, 0, 0, UTC)),
    ],
)
def test_a_time_without_a_zone_is_utc_wherever_it_is_read(text: str, expected: datetime) -> None:
    assert moment(text) == expected.timestamp()


@pytest.mark.parametrize("text", [None, "", "yesterday", "2024-13-01", "99999-01-01"])
def test_what_is_no_time_comes_before_all_times(text: str | None) -> None:
    assert moment(text) == -math.inf < moment("0001-01-01T00:00:00+23:59")


@pytest.mark.parametrize(
    ("cell", "decimal_comma", "expected"),
    [
        ("12.625", False, 12.625), (" -0.5 ", False, -0.5), (".25", False, 0.25), ("7.", False, 7.0),
        ("1e3", False, 1000.0), ("12,625", True, 12.625), ("12,625", False, None), ("1,234,5", True, None),
        ("1_000", False, None), ("nan", False, None), ("inf", False, None), ("1e999", False, None), ("", False, None),
        ("12.5 px", False, None), ("\u0661\u0662", False, None),
    ],
)  # fmt: skip
def test_numbers_in_text(cell: str, decimal_comma: bool, expected: float | None) -> None:
    assert parse_number(cell, decimal_comma) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(12.625, 12.625), (-3, -3.0), (True, None), ("3", None), (None, None), (math.nan, None), (-math.inf, None),
     (10**400, None)],
)  # fmt: skip
def test_numbers_in_json(value: object, expected: float | None) -> None:
    assert number(value) == expected
