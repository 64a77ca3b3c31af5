"""Kills a step with SIGKILL at random moments and lets the rerun go on: do the outputs end the same?

    python -m bench.kills train_teacher --folder DEMO --kills 20

DEMO holds params.yaml and a workspace/ in which the step's inputs are. Each try is a real process, forked from one that
has imported the step, so that the moments fall into the step's work and not into the import of torch. It is killed at a
moment drawn evenly from the time of the fastest undisturbed run so far, and run again, until it ends; then the hashes
of all files of its output are compared with the undisturbed run's, and the next round begins from nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import shutil
import time
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import yaml

from tasks.common.code_identity import code_digest
from tasks.common.config import Params, load_params
from tasks.common.stage_main import Run

WORKSPACE = Path("workspace")


def outputs_of(stage: str) -> list[Path]:
    """What dvc.yaml says that the stage writes."""
    declared = Path(__file__).resolve().parents[1] / "dvc.yaml"
    outs = yaml.safe_load(declared.read_text(encoding="utf-8"))["stages"][stage]["outs"]
    return [Path(next(iter(out)) if isinstance(out, dict) else out) for out in outs]


def hashes(outputs: list[Path]) -> dict[str, str]:
    """SHA-256 of every file of the outputs, and of what is left half-written beside them, by its path."""
    found = {}
    for at in (place for out in outputs for place in (out, *out.parent.glob(f".{out.name}.*.partial"))):
        for file in sorted(at.rglob("*")) if at.is_dir() else [at]:
            if file.is_file():
                found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def started(run: Run, params: Params) -> ForkProcess:
    """The step as a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(params, WORKSPACE))
    process.start()
    return process


def clear(stage: str, outputs: list[Path]) -> None:
    """The state before the step ever ran."""
    for path in [*outputs, WORKSPACE / "runs" / stage]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def measure(stage: str, params: Params, kills: int, seed: int) -> dict[str, Any]:
    """Kills the step in the current folder `kills` times; says how often and when, and which rounds ended otherwise."""
    draw, outputs = random.Random(seed), outputs_of(stage)
    # Before the clock starts, and once for all processes that are forked: the import of torch, and the code's hash.
    run: Run = importlib.import_module(f"tasks.{stage}").run
    code_digest(stage)
    clear(stage, outputs)
    begun = time.monotonic()
    whole = started(run, params)
    whole.join()
    seconds = time.monotonic() - begun
    if whole.exitcode != 0:
        raise SystemExit(f"{stage}: the undisturbed run failed")
    expected = hashes(outputs)
    least = seconds
    moments: list[float] = []
    rounds = different = 0
    while len(moments) < kills:
        clear(stage, outputs)
        rounds += 1
        before = len(moments)
        while True:
            moment = draw.uniform(0, least)
            begun = time.monotonic()
            process = started(run, params)
            process.join(moment if len(moments) < kills else None)
            if process.exitcode is None:
                process.kill()
                process.join()
                moments.append(round(moment, 3))
            elif process.exitcode == 0:
                if len(moments) == before:  # a whole run; the first may have been on a busier machine
                    least = min(least, time.monotonic() - begun)
                break
            else:
                raise SystemExit(
                    f"{stage}: a rerun failed with {process.exitcode} after {len(moments)} kills"
                )
        different += hashes(outputs) != expected
    return {
        "stage": stage,
        "undisturbed_seconds": round(seconds, 2),
        "drawn_from_seconds": round(least, 2),
        "files": len(expected),
        "kills": len(moments),
        "rounds": rounds,
        "rounds_that_ended_otherwise": different,
        "moments": moments,
    }


def main() -> None:
    """The command line; prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage")
    parser.add_argument("--folder", type=Path, default=Path(), help="where params.yaml and workspace/ are")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.chdir(arguments.folder)
    params = load_params("params.yaml")
    print(json.dumps(measure(arguments.stage, params, arguments.kills, arguments.seed)))


if __name__ == "__main__":
    main()
