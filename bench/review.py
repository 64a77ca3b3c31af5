"""The review page on many objects: time to the first and the next one, a decision's time, memory.

A made project (bench/review_project.py), `points2model review` in a process of its own, and a client that does what
the page does and waits for each response: an object with its picture, a decision, the next object. Seconds are of the
clock, which other jobs on the machine stretch; `cpu` are those of the server's process, all threads.

    python bench/review.py                          # 1,000 images of 100 objects
    python bench/review.py --images 40 --objects 10 --json
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import machine, show
from bench.review_project import write_project
from data.decisions.record import Action, Mask
from data.decisions.store import DecisionLog
from data.tables import Split
from tasks.tools.export_labels import read_pseudo

ROOT = Path(__file__).resolve().parents[1]
LOGIN = ("points2model", "only-for-this-bench-0000")


class Page:
    """A client that times its requests."""

    def __init__(self, address: str) -> None:
        self.client = httpx.Client(base_url=address, auth=LOGIN, timeout=60)

    def request(self, method: str, path: str, **content: Any) -> Any:
        response = self.client.request(method, f"/api/{path}", **content)
        response.raise_for_status()
        return response

    def object(self, queue: str, position: int) -> dict[str, Any]:
        """An object with its picture, as the page needs both."""
        shown: dict[str, Any] = self.request("GET", f"queue/{queue}/{position}").json()
        window = dict(zip("xywh", shown["window"], strict=True))
        self.request("GET", f"pictures/{shown['image']['id']}", params=window)
        return shown


def start(folder: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The server, and its address once it responds."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "POINTS2MODEL_REVIEW_AUTH": ":".join(LOGIN)}
    command = [
        sys.executable,
        "-m",
        "flows.cli.main",
        "review",
        "--port",
        "0",
        "--no-open",
        "--reviewer",
        "anna",
    ]
    process = subprocess.Popen(command, cwd=folder, env=env, stderr=log.open("wb"))
    while "review: " not in (text := log.read_text()):
        if process.poll() is not None:
            raise RuntimeError(text)
        time.sleep(0.01)
    return process, text.split("review: ")[1].split()[0]


def decide_before(folder: Path, count: int) -> None:
    """Writes decisions of another reviewer on the first objects that have a refined mask, a third rejected."""
    weak = Split.open(folder / "workspace" / "dataset" / "weak")
    names = dict(zip(*(weak.images[key].to_pylist() for key in ("image_id", "file_name")), strict=True))
    height, width = (weak.images[name][0].as_py() for name in ("height", "width"))
    rows: list[tuple[Action, dict[str, Any]]] = []
    for one in read_pseudo(folder / "workspace").select(["point_id", "image_id", "refined_rle"]).to_pylist():
        on = {"image": names[one["image_id"]], "object": one["point_id"]}
        if one["refined_rle"] and len(rows) < count:
            mask = Mask(height, width, one["refined_rle"])
            rows.append(("accept", {**on, "mask": mask}) if len(rows) % 3 else ("reject", on))
    DecisionLog(folder / "decisions", "bob").extend(rows)


def measure(folder: Path, decisions: int) -> list[dict[str, Any]]:
    begin = time.perf_counter()
    process, address = start(folder, folder / "log")
    page = Page(address)
    while True:
        try:
            page.request("GET", "health")
            break
        except httpx.TransportError:
            time.sleep(0.005)
    ready = time.perf_counter()
    facts = page.request("GET", "project").json()
    made = page.request("POST", "queue", json={"filters": {}}).json()
    page.object(made["queue"], 0)
    first = time.perf_counter()
    count = page.request("GET", "now", params={"reviewer": "anna"}).json()["objects"]
    first_cpu = _cpu(process.pid)
    nexts, decides, position = [], [], 0
    typed = time.perf_counter()
    for _ in range(decisions):
        now = time.perf_counter()
        shown = page.object(made["queue"], position)
        nexts.append(time.perf_counter() - now)
        body = {
            "reviewer": "anna",
            "action": "accept",
            "image": shown["image"]["name"],
            "object": shown["id"],
        }
        now = time.perf_counter()
        page.request("POST", "decisions", json=body | {"mask": shown["mask"]})
        decides.append(time.perf_counter() - now)
        position = page.request("GET", f"queue/{made['queue']}/{position + 1}/undecided").json()["position"]
    typed = time.perf_counter() - typed
    typed_cpu = _cpu(process.pid) - first_cpu
    filters = []
    for some in (
        {"order": "size"},
        {"category": facts["classes"][0]["id"]},
        {"decided": "all", "image": "00"},
    ):
        now = time.perf_counter()
        queue = page.request("POST", "queue", json={"filters": some}).json()["queue"]
        page.object(queue, 0)
        filters.append(time.perf_counter() - now)
    memory = _peak(process.pid)
    process.terminate()
    process.wait()
    stored = (folder / "decisions" / "anna.jsonl").read_bytes().count(b"\n")
    if stored != decisions:
        raise RuntimeError(f"{stored} decisions are on the disk, not {decisions}")
    return [
        {
            "objects": count,
            "start_s": ready - begin,
            "first_object_s": first - ready,
            "first_cpu_s": first_cpu,
            **_spread("next", nexts),
            **_spread("decision", decides),
            "cpu_ms_each": 1000 * typed_cpu / decisions,
            "filters_ms": 1000 * max(filters),
            "an_hour": 3600 * decisions / typed,
            "peak_mb": memory,
        }
    ]


def _spread(name: str, seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        f"{name}_median_ms": 1000 * statistics.median(ordered),
        f"{name}_p99_ms": 1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
    }


def _cpu(process: int) -> float:
    """Seconds of CPU of a process, all threads."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(process: int) -> float:
    """MB of a process's greatest memory."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--objects", type=int, default=100, help="on each image")
    parser.add_argument("--side", type=int, default=640, help="of the images, in pixels")
    parser.add_argument("--decisions", type=int, default=300)
    parser.add_argument("--before", type=int, default=0, help="decisions that were made before")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout beside the table on stderr")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_project(folder, args.images, args.objects, side=args.side)
        shutil.copy(ROOT / "params.yaml", folder)
        if args.before:
            decide_before(folder, args.before)
        rows = measure(folder, args.decisions)
    load = {
        "load": os.getloadavg()[0],
        "client_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    show("Review", rows, machine(torch.device("cpu")) | load, as_json=args.json)


if __name__ == "__main__":
    main()
