"""The demo at several seeds: does the student beat the teacher, do refined masks beat rough ones?

Teacher and student start from the same weights and train for the same number of steps, so their difference is what
the pseudo masks add. Each seed draws another data set, other clicks and other weights.

    python bench/demo_seeds.py                     # seeds 0, 1, 2 of params.yaml, about 10 minutes a seed on 2 cores
    python bench/demo_seeds.py --seeds 3 4 --json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
STEPS = (
    "make_demo", "ingest", "import_points", "train_teacher", "train_refiner", "pseudo_label", "train_student",
    "evaluate",
)  # fmt: skip


def run_seed(params_file: Path, seed: int) -> dict[str, Any]:
    """Runs the steps in a temporary folder; returns metrics.json, with the seconds of each step."""
    recipe = yaml.safe_load(params_file.read_text(encoding="utf-8"))
    recipe["seed"] = seed
    recipe["student"]["start"] = "scratch"  # nothing is promoted in a folder of its own
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
        seconds = {}
        for step in STEPS:
            started = time.monotonic()
            command = [sys.executable, "-m", f"tasks.{step}"]
            subprocess.run(command, cwd=folder, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
            seconds[step] = round(time.monotonic() - started, 1)
        metrics: dict[str, Any] = json.loads((folder / "workspace/evaluation/metrics.json").read_text())
    return {**metrics, "seconds": seconds}


def table(results: dict[int, dict[str, Any]]) -> Table:
    """A row a seed."""
    shown = Table(
        "seed", "teacher AP", "student AP", "difference", "rough IoU", "refined IoU", "difference", "seconds"
    )
    for seed, found in results.items():
        teacher, student = found["teacher"]["AP"], found["student"]["AP"]
        rough, refined = found["pseudo"]["rough_iou"], found["pseudo"]["refined_iou"]
        shown.add_row(
            str(seed), f"{teacher:.1f}", f"{student:.1f}", f"{student - teacher:+.1f}",
            f"{rough:.1f}", f"{refined:.1f}", f"{refined - rough:+.1f}", f"{sum(found['seconds'].values()):.0f}",
        )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=Path, default=ROOT / "params.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", action="store_true", help="print JSON on stdout instead of a table")
    arguments = parser.parse_args()
    results = {}
    for seed in arguments.seeds:
        results[seed] = run_seed(arguments.params, seed)
        Console(stderr=True).print(table(results))
    if arguments.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
