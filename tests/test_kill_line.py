"""Whoever is killed with SIGKILL, worker, server, flow or step: the line ends the same; see bench/kill_line.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.conftest import ROOT
from tests.test_line import Project

KILLS = int(os.environ.get("POINTS2MODEL_KILLS", "1"))  # 5 for the figure; see bench/RESULTS.md

pytestmark = [pytest.mark.line, pytest.mark.timeout(7200)]


def test_whoever_is_killed_the_line_ends_the_same(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    for name in ("teacher", "refiner", "student") if KILLS > 1 else ():
        # Long enough that kills fall into it, and states that often.
        project.recipe[name] |= {"steps": 30, "log_every": 1, "checkpoint_every": 2}
    project.save()
    command = [
        "bench.kill_line",
        str(project.folder),
        "--scratch",
        str(tmp_path / "beside"),
        "--kills",
        str(KILLS),
    ]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["kills"].values()) == {KILLS}, found
    assert found["rounds_that_ended_otherwise"] == 0, found
    # Nothing says for ever that it runs.
    assert set(found["states"]) <= {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}, found
