"""Where a stage's interpreter comes from."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flows.stage import environment


def test_own_interpreter_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/somewhere")
    assert environment()["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/somewhere"]
