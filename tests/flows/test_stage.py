"""What a failed stage says, and where its interpreter comes from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flows.stage import environment, failure

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
        ([], ["it ended without a word"]),
    ],
    ids=["own message", "bug", "no own message", "silent", "dvc's own", "nothing"],
)
def test_failure(lines: list[str], expected: list[str]) -> None:
    assert failure("s", lines, Path("s.log")).splitlines() == [*expected, "(its whole output: s.log)"]


def test_own_interpreter_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/somewhere")
    assert environment()["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/somewhere"]
