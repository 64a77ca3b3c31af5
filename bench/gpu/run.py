"""The parts of bench/gpu/run.sh: each a list of jobs, the most important first, each a process with its own time limit.

After each job the part's figures are in $OUT/PART.json, and its output in $OUT/PART.log, so that a run that is cut off
leaves its figures. A job that fails or runs out of time doesn't stop the next ones. A part that is run again does
only the jobs that haven't passed. Without a GPU, and with --rehearse, jobs run in miniature on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defusedxml import ElementTree
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

LIMITS = {"check": 180, "speed": 240, "quality": 480}
"""Seconds of each part."""
TERMINATE_S = 5.0


@dataclass(frozen=True)
class Job:
    """A process; `seconds` is its own limit. It prints one line of JSON, or writes pytest's XML to `junit`."""

    name: str
    command: tuple[str, ...]
    seconds: float
    junit: Path | None = None

    def figures(self, output: str) -> list[dict[str, Any]]:
        """The rows that it has printed so far: of each line of JSON those under `rows`, or the line itself."""
        if self.junit is not None:
            return _tests(self.junit)
        rows: list[dict[str, Any]] = []
        for line in output.splitlines():
            try:
                found = json.loads(line)
            except ValueError:
                continue
            rows += found.get("rows", [found]) if isinstance(found, dict) else found
        return rows


def _tests(path: Path) -> list[dict[str, Any]]:
    """Tests that failed, those that measured something, and counts."""
    if not path.exists():
        return []
    cases = list(ElementTree.parse(path).iter("testcase"))
    outcomes = [next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
                for case in cases]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for case, outcome in zip(cases, outcomes, strict=True):
        facts = {one.attrib["name"]: one.get("value") for one in case.iter("property")}
        if facts or outcome in ("failure", "error"):
            rows.append({"test": case.get("name"), "outcome": outcome, **facts})
    return [
        *rows,
        {"test": "all", "outcome": ", ".join(f"{outcomes.count(o)} {o}" for o in sorted(set(outcomes)))},
    ]


SPEED = (
    # bench, seconds, options on a GPU, options of the rehearsal
    ("label", 60, "", "--recipe demo --images 2 --input 96 128 --points 3 --batch 1"),
    (
        "train_step", 60,
        "--repeats 20 --batch 16 --side 800 --ways plain '+ bf16' '+ channels_last' '+ fused' '+ compile'",
        "--recipe demo --repeats 1 --batch 1 --side 96 --ways plain ours '+ bf16'",
    ),
    (
        "refine", 30, "--repeats 5 --instances 64 --batch 64",
        "--repeats 1 --nets default --instances 2 --crop 64 --size 96 128",
    ),
    ("prompting", 30, "--repeats 20 --points 20 500", "--repeats 1 --points 5 --input 96 128"),
    ("predict", 30, "--repeats 20", "--repeats 1 --scenes tiny"),
    ("gpu/kernels", 45, "", "--small"),
    ("dataloader", 20, "--sets nuclei --samples 100", "--sets nuclei --samples 3"),
)  # fmt: skip
QUALITY = ((0.1, 0), (0.05, 0), (0.1, 1), (0.05, 1))
"""Shares of images with masks, and seeds, the most important first."""
STEPS = ("teacher.steps=4000", "student.steps=10000", "refiner.steps=2000")
FEW_IMAGES = {"train.json": 30, "val.json": 4}
FEW_STEPS = (
    "teacher.steps=4",
    "student.steps=4",
    "refiner.steps=4",
    "input.short_side=64",
    "input.max_side=96",
)


def jobs_of(part: str, out: Path, folder: Path, *, rehearse: bool) -> list[Job]:
    """The jobs of a part, the most important first; `folder` has the data sets."""
    python, device, data = sys.executable, "cpu" if rehearse else "cuda", str(folder)
    if part == "check":
        junit = out / "check.xml"
        tests = (python, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu", "-p", "no:cacheprovider")
        return [Job("tests", (*tests, f"--junitxml={junit}"), 170, junit)]
    if part == "speed":
        jobs = []
        for name, seconds, options, few in SPEED:
            where = ("--data", data) if name == "dataloader" else ("--device", device)
            command = (
                python,
                f"bench/{name}.py",
                "--json",
                *where,
                *shlex.split(few if rehearse else options),
            )
            jobs.append(Job(name, command, seconds))
        return jobs
    jobs = []
    for share, seed in QUALITY[:1] if rehearse else QUALITY:
        command = (
            python, "bench/quality.py", "nuclei", "--data", data, "--work", str(out / "quality"), "--json",
            "--shares", str(share), "--seeds", str(seed), "--jobs", "4", "--variants", "student", "control", "full",
            "--set", f"runtime.device={device}", *(FEW_STEPS if rehearse else STEPS),
        )  # fmt: skip
        jobs.append(Job(f"nuclei {share:.0%}, seed {seed}", command, LIMITS["quality"]))
    return jobs


def run_part(part: str, jobs: Sequence[Job], out: Path, *, rehearse: bool) -> bool:
    """Runs its jobs until its time is over; returns whether all passed."""
    path = out / f"{part}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    end = time.monotonic() + LIMITS[part] * (10 if rehearse else 1)
    for job in jobs:
        if found.get(job.name, {}).get("outcome") == "passed":
            continue
        seconds = min(end - time.monotonic(), job.seconds * (10 if rehearse else 1))
        if seconds < 1:
            found[job.name] = {"outcome": "no time left", "rows": []}
        else:
            print(f"{part}: {job.name}", flush=True)
            started = time.monotonic()
            outcome, output = run(job.command, seconds, out / f"{part}.log", rehearse=rehearse)
            spent = round(time.monotonic() - started, 1)
            found[job.name] = {"outcome": outcome, "seconds": spent, "rows": job.figures(output)}
            if outcome != "passed":
                print("\n".join(output.splitlines()[-40:]), flush=True)
        temporary = path.with_suffix(".partial")
        temporary.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
        temporary.replace(path)
    show(part, found)
    return all(one.get("outcome") == "passed" for name, one in found.items() if name != "machine")


def run(command: Sequence[str], seconds: float, log: Path, *, rehearse: bool) -> tuple[str, str]:
    """Runs a process and all that it starts for at most so long; returns the outcome and what it printed."""
    environment = os.environ | ({"POINTS2MODEL_GPU_TESTS": "cpu"} if rehearse else {})
    printed = log.with_suffix(".out")
    with log.open("ab") as errors, printed.open("wb") as target:
        errors.write(f"\n$ {' '.join(command)}\n".encode())
        errors.flush()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=target, stderr=errors, env=environment, start_new_session=True
        )
        try:
            code = process.wait(seconds)
            outcome = "passed" if code == 0 else f"failed ({code})"
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            outcome = "out of time" if isinstance(error, subprocess.TimeoutExpired) else "interrupted"
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(TERMINATE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    output = printed.read_text(errors="replace")
    with log.open("a") as errors:
        errors.write(output)
    printed.unlink()
    if outcome != "passed" and not output.strip():
        output = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
    return outcome, output


def machine() -> dict[str, Any]:
    """Date, device and versions: what a figure must be read with."""
    import torch

    from bench.measure import machine as facts_of

    return facts_of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def show(part: str, found: dict[str, Any]) -> None:
    """A short table: a line a figure row."""
    table = Table("job", "outcome", "s", "figures", title=f"{part}: {found.get('machine', machine())}")
    for name, one in found.items():
        if name == "machine":
            continue
        rows = one.get("rows") or [{}]
        for n, row in enumerate(rows):
            first = (name, one["outcome"], str(one.get("seconds", ""))) if n == 0 else ("", "", "")
            table.add_row(*first, ", ".join(f"{key} {_short(value)}" for key, value in row.items()))
    Console(width=200).print(table)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=[*LIMITS, "all"])
    parser.add_argument("--rehearse", action="store_true", help="in miniature on the CPU")
    parser.add_argument("--packed", type=Path, default=ROOT / ".gpu", help="what bench/gpu/pack.sh made")
    arguments = parser.parse_args()
    import torch

    if not arguments.rehearse and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: found none that torch can use; try it on a CPU with --rehearse")
    packed = arguments.packed.resolve()
    unpack(packed)
    out = Path(os.environ.get("OUT") or ROOT / ".gpu-results").resolve()
    out.mkdir(parents=True, exist_ok=True)
    parts = list(LIMITS) if arguments.part == "all" else [arguments.part]
    passed, data = [], packed / "data"
    if arguments.rehearse:
        data = some_of(data, out / "data")
    for part in parts:
        jobs = jobs_of(part, out, data, rehearse=arguments.rehearse)
        passed.append(run_part(part, jobs, out, rehearse=arguments.rehearse))
    sys.exit(0 if all(passed) else 1)


def some_of(data: Path, out: Path) -> Path:
    """A copy of nuclei with few images, for the rehearsal."""
    folder = out / "nuclei"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "images").exists():
        (folder / "images").symlink_to(data / "nuclei" / "images")
    for name, count in FEW_IMAGES.items():
        content = json.loads((data / "nuclei" / name).read_text())
        content["images"] = content["images"][:count]
        kept = {image["id"] for image in content["images"]}
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] in kept]
        (folder / name).write_text(json.dumps(content))
    return out


def unpack(packed: Path) -> None:
    """Weights that travelled as half floats, in float32 again."""
    halves, target = packed / "efficientnet_lite0.safetensors", packed / "efficientnet_lite0.pth"
    if not halves.exists() or not (packed / "data" / "nuclei" / "train.json").is_file():
        raise SystemExit(f"{packed}: found no packed data; run bench/gpu/pack.sh where there is a network")
    if target.exists():
        return
    import torch
    from safetensors.torch import load_file

    state = load_file(halves)
    torch.save({key: one.float() if one.is_floating_point() else one for key, one in state.items()}, target)


if __name__ == "__main__":
    main()
