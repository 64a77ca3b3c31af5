from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.common import startup
from tasks.common.code_identity import ROOT, Sources, identities

WATCH = """
import atexit, gc, json, sys
early = []

def note(phase, _):
    if phase == "start" and "tasks" in sys.modules and not gc.get_freeze_count():
        early.append(phase)

gc.callbacks.append(note)
atexit.register(lambda: print(json.dumps([len(early), gc.isenabled(), gc.get_freeze_count() > 0])))
"""
"""As sitecustomize.py: how often Python looked for garbage before the step began, and whether it does so at the end."""


def watched(tmp_path: Path, *arguments: str) -> list[int | bool]:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found: list[int | bool] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("python", [(), ("-u",)])  # torchrun's
def test_a_step_is_imported_without_looking_for_garbage(tmp_path: Path, python: tuple[str, ...]) -> None:
    assert watched(tmp_path, *python, "-m", "tasks.ingest", "--help") == [0, True, True]


@pytest.mark.parametrize("arguments", [("-c", "import tasks.ingest"), ("-m", "tasks.common.on_hosts")])
def test_others_look_for_it_as_they_like(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    early, enabled, frozen = watched(tmp_path, *arguments)
    assert early > 0 and enabled and not frozen


@pytest.mark.parametrize("collects", [True, False])
def test_afterwards_all_is_as_it_was(collects: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with contextlib.suppress(ZeroDivisionError), startup.uncollected():
            assert not gc.isenabled()
            raise ZeroDivisionError
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()


def test_it_makes_no_stage_stale() -> None:
    parts = identities(["ingest"], Sources(ROOT))["ingest"]
    assert not [name for name in parts if name.startswith("tasks.common.startup")]
