from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import kills
from tasks.common.config import Params

IMPORT_S, SLOW_S, STEP_S = 4.0, 3.0, 0.3


def step(params: Params, workspace: Path) -> None:
    """Goes on from what a killed run left."""
    (out, *_) = kills.outputs_of("make_demo")
    assert workspace in out.parents
    out.mkdir(parents=True, exist_ok=True)
    for name in "abc":
        if not (out / name).exists():
            time.sleep(STEP_S / 3)
            (out / name).write_text(name)


def first_is_slow(params: Params, workspace: Path) -> None:
    """As on a machine that was busy when the undisturbed run was timed."""
    busy = workspace.resolve().parent / "busy"
    if busy.exists():
        busy.unlink()
        time.sleep(SLOW_S)
    step(params, workspace)


def measured(folder: Path, import_s: float, run: Any) -> dict[str, Any]:
    """The figures of that step, whose import takes so long."""

    def slow_import(name: str) -> SimpleNamespace:
        assert name == "tasks.make_demo"
        time.sleep(import_s)
        return SimpleNamespace(run=run)

    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kills, "importlib", SimpleNamespace(import_module=slow_import))
        return kills.measure("make_demo", None, kills=4, seed=0)  # type: ignore[arg-type]  # the step reads none


def in_new_process(*arguments: Any) -> dict[str, Any]:
    """`measured` in a process without the threads and libraries of other tests, since it forks."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, *arguments).result()


def test_kills_are_drawn_from_the_steps_own_time(tmp_path: Path) -> None:
    """Not from the import's, in which nothing is written; at that length most would come after the step's end."""
    found = in_new_process(tmp_path, IMPORT_S, step)
    assert STEP_S <= found["undisturbed_seconds"] < IMPORT_S
    assert len(found["moments"]) == found["kills"] == 4
    assert all(moment <= found["undisturbed_seconds"] for moment in found["moments"])
    assert found["files"] == 3 and found["rounds_that_ended_otherwise"] == 0


def test_a_first_run_on_a_busy_machine_spoils_no_moments(tmp_path: Path) -> None:
    """By the first run's time alone, nine in ten tries would end undisturbed: some forty rounds."""
    (tmp_path / "busy").touch()
    found = in_new_process(tmp_path, 0, first_is_slow)
    assert found["undisturbed_seconds"] >= SLOW_S
    assert found["kills"] == 4 and found["rounds"] <= 12, found
    assert STEP_S <= found["drawn_from_seconds"] < SLOW_S  # no run that goes on after a kill counts
    assert found["rounds_that_ended_otherwise"] == 0
