"""A cold start in Python: seconds from the start of a process to its first prediction (docs/python.md).

Each run is a new process: imports, `Predictor.load`, a first and a second image of the demo's size; beside it another
one imports torch and torchvision alone, as anybody would, for comparison. Seconds by the clock depend on what else the
machine does, CPU seconds hardly. The default model is the demo's student with random weights.

    python bench/cold_start.py                         # 5 runs
    python bench/cold_start.py --model workspace/student --repeats 10 --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("imports", "load", "first", "second")
TORCH = "torch alone"
CHILD = """
import json, sys, time
marks = [(time.time(), time.process_time())]
def mark():
    marks.append((time.time(), time.process_time()))
if len(sys.argv) == 1:
    import torch
    import torchvision
    mark()
    print(json.dumps(marks))
    sys.exit()
from points2model import Predictor
mark()
import numpy as np
import torch
torch.set_num_threads(1)
image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
predictor = Predictor.load(sys.argv[1], device="cpu")
mark()
for _ in range(2):
    predictor(image)
    mark()
print(json.dumps(marks))
"""


def run_once(model: Path) -> dict[str, dict[str, float]]:
    """Seconds of each part and of all up to the first prediction, by the clock and of the CPU; and those of `TORCH`."""
    begin, marks = marks_of(str(model.resolve()))
    parts: dict[str, dict[str, float]] = {"python": {"clock": marks[0][0] - begin, "cpu": marks[0][1]}}
    for name, before, after in zip(PARTS, marks[:-1], marks[1:], strict=True):
        parts[name] = {"clock": after[0] - before[0], "cpu": after[1] - before[1]}
    first = marks[-2]
    parts["cold start"] = {"clock": first[0] - begin, "cpu": first[1]}
    begin, marks = marks_of()
    parts[TORCH] = {"clock": marks[-1][0] - begin, "cpu": marks[-1][1]}
    return parts


def marks_of(*arguments: str) -> tuple[float, list[list[float]]]:
    """When a process began, by the clock; and clock and CPU seconds at its marks."""
    begin = time.time()
    command = [sys.executable, "-c", CHILD, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return begin, json.loads(done.stdout)


def demo_student(folder: Path) -> Path:
    """The demo's student with random weights."""
    sys.path.insert(0, str(ROOT))
    from models.checkpoint import FORMAT, save_checkpoint
    from models.solov2.network import SOLOv2
    from tasks.common.config import load_params

    params = load_params(ROOT / "params.yaml")
    config = params.detector(params.student)
    config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"weights": None})})
    categories = [{"id": n, "name": name} for n, name in enumerate(params.demo.classes, start=1)]
    meta: dict[str, Any] = {
        "format": FORMAT, "kind": "solov2", "config": config.model_dump(mode="json"), "categories": categories,
        "training": {}, "input": params.input.model_dump(),
    }  # fmt: skip
    save_checkpoint(folder, SOLOv2(config, len(categories)).state_dict(), meta)
    return folder


def main() -> None:
    arguments = options().parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or demo_student(Path(scratch, "student"))
        run_once(model)  # files into the cache of the disk
        runs = [run_once(model) for _ in range(arguments.repeats)]
    rows = {
        part: {
            kind: [round(of(run[part][kind] for run in runs), 2) for of in (min, statistics.median, max)]
            for kind in ("cpu", "clock")
        }
        for part in runs[0]
    }
    if arguments.json:
        print(json.dumps(rows))
        return
    print(f"{'':>12}   CPU seconds          clock    (least, median, most of {arguments.repeats})")
    for part, row in rows.items():
        print(
            f"{part:>12}  "
            + "    ".join("".join(f"{value:6.2f}" for value in row[kind]) for kind in ("cpu", "clock"))
        )


def options() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--model", type=Path, help="the folder of a model; default: the demo's student, untrained"
    )
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--json", action="store_true")
    return made


if __name__ == "__main__":
    main()
