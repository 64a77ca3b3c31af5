"""The bench of pseudo-labelling at scale, on a handful of images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_new_points_cost_their_images_alone() -> None:
    done = subprocess.run(
        [
            sys.executable, "bench/pseudo_scale.py", "--images", "3", "6", "--points", "4", "--part-images", "2",
            "--changed", "2", "--json",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    found = [(row["images"], row["points"], row["computed"], row["carried"]) for row in rows]
    assert found == [(3, 12, 3, 0), (6, 24, 6, 0), (6, 28, 2, 4)]
    assert all(row["peak_mb"] > 0 for row in rows)
