from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
"""As sitecustomize.py: how often garbage was collected before the step began, whether collection is on at the end, and
whether objects are left out of it."""
FEW = 5
"""Collections before it is off, and one just after; else there are 50 and more."""


def watched(tmp_path: Path, *arguments: str) -> list[int | bool]:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    ends = os.pipe()  # on_hosts ends with its input
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, stdin=ends[0],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for end in ends:
        os.close(end)
    found: list[int | bool] = json.loads(done.stdout.splitlines()[-1])
    return found


STEP = ("-m", "tasks.ingest", "--help")


@pytest.mark.parametrize("python", [(), ("-u",), ("-P",)])  # by hand, by torchrun, by the dvc.yaml of `init`
def test_a_step_is_imported_with_collection_off(tmp_path: Path, python: tuple[str, ...]) -> None:
    early, enabled, frozen = watched(tmp_path, *python, *STEP)
    assert early <= FEW and enabled and frozen


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import tasks.ingest"),
        ("-c", "import tasks.ingest", *STEP),
        ("-m", "tasks.common.on_hosts", "--here", sys.executable, *STEP),
    ],
)
def test_other_programs_collect_as_ever(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Also those that have the command of a step among their arguments, and live as long as it."""
    early, enabled, frozen = watched(tmp_path, *arguments)
    assert enabled and not frozen
    assert early > FEW or "-c" not in arguments  # on_hosts imports next to nothing


def test_the_python_api_is_imported_with_collection_off(tmp_path: Path) -> None:
    early, enabled, frozen = watched(tmp_path, "-c", "from points2model import Instances")
    assert early <= FEW and enabled and not frozen


def test_code_is_hashed_with_collection_off() -> None:
    seen: list[str] = []

    def watch(phase: str, _: object) -> None:
        seen.append(phase)

    gc.callbacks.append(watch)
    try:
        identities(["ingest"], Sources(ROOT))
    finally:
        gc.callbacks.remove(watch)
    assert seen.count("start") <= FEW


def test_threads_leave_it_as_it_was() -> None:
    assert gc.isenabled()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def enter(_: int) -> None:
        for _ in range(2000):
            with startup.gc_off():
                assert not gc.isenabled()

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(enter, range(4)))
    finally:
        sys.setswitchinterval(before)
    assert gc.isenabled()


@pytest.mark.parametrize("collects", [True, False])
def test_afterwards_all_is_as_it_was(collects: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with contextlib.suppress(ZeroDivisionError), startup.gc_off():
            assert not gc.isenabled()
            raise ZeroDivisionError
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()


def test_it_makes_no_stage_stale() -> None:
    parts = identities(["ingest"], Sources(ROOT))["ingest"]
    assert not [name for name in parts if name.startswith("tasks.common.startup")]
