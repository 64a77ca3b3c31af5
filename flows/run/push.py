"""The last task of a run with `operate.push: true`: what it made goes to DVC's remote.

A push that fails fails the run, since others rely on it; nothing is lost by that: results lie in the workspace and in
DVC's cache, and the next run, or `points2model push`, sends what is missing there.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from prefect import task
from prefect.states import Completed, Failed

from data import strict_yaml
from flows.dvc.environment import environment
from flows.processes.children import stream
from flows.run.stage import teller

NAME = "push"


def wants_push(root: Path) -> bool:
    """`operate.push` of params.yaml; no where the file doesn't say."""
    try:
        return strict_yaml.read(root / "params.yaml")["operate"]["push"] is True
    except (OSError, strict_yaml.YamlError, KeyError, TypeError):
        return False


@task(name=NAME, task_run_name=NAME, persist_result=False)
def send_results(root: Path) -> Any:
    """Sends all to the default remote, in a process of its own, which dies with the run; says in words what was done.

    Args:
        root: the project's folder.
    """
    tell = teller(NAME)
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        tell(line)

    here = str(Path(__file__).resolve().parents[2])  # the worker's folder needn't hold our code
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {**environment(root), "PYTHONPATH": path}
    code = stream([sys.executable, "-m", "flows.dvc.send"], cwd=root, env=environ, on_line=on_line)
    last = lines[-1].removeprefix("push: ") if lines else f"ended with code {code}"
    # A returned state, not an exception: a traceback of ours would bury the message.
    return Completed(message=last, data=last) if code == 0 else Failed(message=last)


def push(root: Path) -> dict[str, Any]:
    """Runs the task, and tells as a stage's run is told how it fared."""
    started = time.monotonic()
    state = send_results(root, return_state=True)
    done = state.is_completed()
    seconds = round(time.monotonic() - started, 1)
    message = state.message or state.name or ""
    return {
        "name": NAME, "state": "Completed" if done else "Failed", "seconds": seconds, "message": message, "outs": {},
    }  # fmt: skip
