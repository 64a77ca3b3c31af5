"""A step that is killed with SIGKILL at any moment and run again ends with the same bytes; see bench/kills.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.common.config import Params

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("POINTS2MODEL_KILLS", "6"))  # 20 and more for a figure; see bench/RESULTS.md

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    "stage", ["train_teacher", "train_refiner", "pseudo_label", "train_student", "train_repeats"]
)
def test_killed_at_random_moments_it_ends_the_same(
    line: tuple[Path, Params], recipe: dict[str, Any], tmp_path: Path, stage: str
) -> None:
    shutil.copytree(line[0] / "workspace", tmp_path / "workspace", ignore=shutil.ignore_patterns("runs"))
    for name in ("teacher", "refiner", "student"):
        # States so often that many kills fall into their writing; an average, which a state must hold too.
        recipe[name] |= {"steps": 30, "log_every": 1, "checkpoint_every": 1, "ema": 0.9}
    recipe["promotion"]["repeats"] = 2
    recipe["refiner"]["rounds"] = 2  # masks by the weights of the step before are in its batches
    recipe["pseudo"] |= {"part_images": 1, "batch_size": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "bench.kills", stage, "--folder", str(tmp_path), "--kills", str(KILLS)],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["kills"] == KILLS and found["files"] > 0
    assert found["rounds_that_ended_otherwise"] == 0, found
    # Drawn from the time of the step alone; with that of importing torch, most would come when it has ended.
    assert found["rounds"] <= 2 * KILLS
