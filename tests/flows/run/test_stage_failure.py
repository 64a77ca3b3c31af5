"""What a failed stage says, and which failures are tried again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from flows.run.stage_failure import DELAYS, Cause, delays, examine
from tasks.common.errors import TaskError

DVC_END = ["ERROR: failed to reproduce 's': failed to run: python -m tasks.s, exited with 1"]
START = ["Running stage 's':", "> python -m tasks.s"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            [*START, "s: 10/90 steps", "s: 2 faults", "  - one", "  - two", *DVC_END],
            ["s: 2 faults", "  - one", "  - two"],
        ),
        (
            [
                *START,
                "s: 10/90 steps",
                "Traceback (most recent call last):",
                "  File x",
                "ValueError: no",
                *DVC_END,
            ],
            ["ValueError: no"],
        ),
        ([*START, "sh: 1: python: not found", *DVC_END], ["sh: 1: python: not found"]),
        ([*START, *DVC_END], [DVC_END[0].removeprefix("ERROR: ")]),
        (
            ["ERROR: failed to reproduce 's': missing data 'source': data/images"],
            ["failed to reproduce 's': missing data 'source': data/images"],
        ),
        ([], ["it ended without a message"]),
    ],
    ids=["own message", "bug", "no own message", "silent", "dvc's own", "nothing"],
)
def test_message(lines: list[str], expected: list[str], tmp_path: Path) -> None:
    found = examine("s", 255, lines, Path("s.log"), tmp_path)
    assert found.message.splitlines() == [*expected, "(its whole output: s.log)"]
    assert found.cause is Cause.FINAL


def ended(status: int) -> list[str]:
    return [*START, f"ERROR: failed to reproduce 's': failed to run: python -m tasks.s, exited with {status}"]


def dvc_said(text: str) -> list[str]:
    return [f"ERROR: failed to reproduce 's': {text}"]


@pytest.mark.parametrize(
    ("code", "lines", "cause"),
    [
        (255, ended(1), Cause.FINAL),
        (255, ended(75), Cause.AWAY),
        (255, ended(-9), Cause.KILLED),
        (255, ended(137), Cause.KILLED),
        (255, ended(-15), Cause.FINAL),
        (255, ended(-11), Cause.FINAL),
        (-9, START, Cause.KILLED),
        (-2, START, Cause.STOPPED),
        (255, dvc_said("'/w/out' is busy, it is being blocked by:"), Cause.BUSY),
        (255, ["ERROR: Unable to acquire lock. Most likely another DVC process"], Cause.BUSY),
        (255, dvc_said('Could not connect to the endpoint URL: "http://127.0.0.1:9/b"'), Cause.AWAY),
        (255, dvc_said("[Errno 16] Service Unavailable: An error occurred (503) when calling"), Cause.AWAY),
        (
            255,
            dvc_said("An error occurred (403) when calling the HeadObject operation: Forbidden"),
            Cause.FINAL,
        ),
        (255, dvc_said("bucket 'b' does not exist"), Cause.FINAL),
        # a step that only talks of such things
        (255, [*START, "s: Could not connect to the endpoint URL", *ended(1)[2:]], Cause.FINAL),
    ],
)
def test_cause(code: int, lines: list[str], cause: Cause, tmp_path: Path) -> None:
    assert examine("s", code, lines, Path("s.log"), tmp_path).cause is cause


def test_a_killed_stage_hints_at_memory(tmp_path: Path) -> None:
    found = examine("s", -signal.SIGKILL, START, Path("s.log"), tmp_path)
    assert "ended by SIGKILL, often because there was too little memory" in found.message


@pytest.mark.parametrize(
    ("said", "expected"), [(None, [10.0, 60.0, 300.0]), ("", []), ("0.5", [0.5]), ("1, 2,", [1.0, 2.0])]
)
def test_delays(said: str | None, expected: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DELAYS, raising=False)
    if said is not None:
        monkeypatch.setenv(DELAYS, said)
    assert delays() == expected


def test_delays_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DELAYS, "soon")
    with pytest.raises(TaskError, match="found 'soon', expected seconds such as 10,60,300"):
        delays()
