from __future__ import annotations

import logging

import pytest

import tasks.common.progress
from tasks.common.progress import Bar, format_seconds


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3 * 3600 + 1260, "3 h 21 min")],
)
def test_format_seconds(seconds: float, expected: str) -> None:
    assert format_seconds(seconds) == expected


def test_plain_lines_tell_rate_and_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(tasks.common.progress.time, "monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO), Bar("work", 6, "image", done=2) as bar:
        for _ in range(4):
            bar.advance(facts="loss 1.0")
    # 5 s a call of the clock: a line every second step, none at the last one.
    assert caplog.messages == [
        "work: 4/6 images, 5.0 s/image, 10 s left, loss 1.0",
        "work: 6 images in 25 s (6.2 s/image)",
    ]


def test_a_failed_run_is_not_said_to_be_done(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        with Bar("work", 6, "image"):
            raise RuntimeError

    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError):
        fail()
    assert caplog.messages == []
