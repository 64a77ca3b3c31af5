"""Pseudo-labelling by workers of a Ray cluster on this machine, against the local engine in the same run.

Each worker is a node of its own with one CPU; images' bytes travel with the parts. The cluster is started before and
its workers are warm (one untimed run), so that what is compared is the rate, not the start.

    python bench/ray_parts.py                          # 400 images of 256 x 256, 10 points each
    python bench/ray_parts.py --images 100 --workers 1 --json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench.pseudo_scale as drawn
from bench.measure import machine, show
from data.tables import write_parquet
from tasks.common.config import Params, load_params
from tasks.pseudo_label import run

ROOT = Path(__file__).resolve().parents[1]
PORT = 6399


def start(folder: Path, workers: int) -> tuple[str, list[subprocess.Popen[bytes]]]:
    """A head without CPUs and nodes of one CPU; the head's address, and their processes."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    address = f"127.0.0.1:{PORT}"
    head = ["--head", "--port", str(PORT), "--num-cpus", "0", "--include-dashboard", "false"]
    nodes = [[*head, "--temp-dir", str(folder)], *([["--address", address, "--num-cpus", "1"]] * workers)]
    memory = ["--object-store-memory", str(300 << 20)]
    started = []
    for node in nodes:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *node, *memory]
        started.append(
            subprocess.Popen(command, env=environment, cwd=folder.parent, stdout=subprocess.DEVNULL)
        )
        time.sleep(8)
    return address, started


def measure(params: Params, folder: Path) -> tuple[float, float]:
    """Seconds, and seconds of CPU of this process, of the step from nothing."""
    workspace = folder / "workspace"
    for name in ("pseudo", "runs"):
        shutil.rmtree(workspace / name, ignore_errors=True)
    begin, cpu = time.perf_counter(), time.process_time()
    run(params, workspace)
    return time.perf_counter() - begin, time.process_time() - cpu


def hashes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "workspace" / "pseudo").iterdir()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--points", type=int, default=10, help="on each image")
    parser.add_argument("--part-images", type=int, default=50)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON on stdout, the table on stderr")
    args = parser.parse_args()
    drawn.SIDE = args.side
    import ray

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="ray-") as scratch:
        folder = Path(scratch) / "project"
        folder.mkdir()
        drawn.write_params(folder, args.part_images, 1)
        drawn.write_networks(folder)
        drawn.write_images(folder, args.images)
        points = drawn.points_on(np.repeat(np.arange(args.images), args.points), 0, 0)
        write_parquet(points, folder / "workspace" / "points" / "points.parquet")
        local = load_params(folder / "params.yaml")
        for workers in args.workers:
            address, nodes = start(Path(scratch) / f"r{workers}", workers)
            try:
                there = local.model_copy(
                    update={"runtime": local.runtime.model_copy(update={"ray": address})}
                )
                measure(there, folder)
                times: dict[str, list[tuple[float, float]]] = {"here": [], "ray": []}
                for _ in range(args.repeats):
                    times["here"].append(measure(local, folder))
                    expected = hashes(folder)
                    times["ray"].append(measure(there, folder))
                    if hashes(folder) != expected:
                        raise AssertionError("other bytes")
            finally:
                ray.shutdown()
                for node in nodes:
                    for process in [*psutil.Process(node.pid).children(recursive=True), node]:
                        process.kill()
            here, cluster = (sorted(times[name])[args.repeats // 2] for name in ("here", "ray"))
            rows.append(
                {
                    "workers": workers, "images": args.images, "here_per_s": args.images / here[0],
                    "ray_per_s": args.images / cluster[0],
                    "ratio_per_worker": here[0] / cluster[0] / workers,
                    "driver_cpu_ms_an_image": 1000 * cluster[1] / args.images,
                    "here_cpu_ms_an_image": 1000 * here[1] / args.images,
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), file=sys.stderr)
    show("Parts on Ray", rows, machine(torch.device("cpu")), as_json=args.json)


if __name__ == "__main__":
    main()
