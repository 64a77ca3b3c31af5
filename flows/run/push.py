"""The last task of a run with `operate.push: true`: sends its results to DVC's remote.

A push that fails makes the run fail, since others rely on it. The results stay in the workspace and in DVC's cache, and
the next run, or `points2model push`, sends what the remote lacks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from prefect import task
from prefect.states import Completed, Failed

from data import strict_yaml
from flows.dvc.environment import environment
from flows.processes.children import stream
from flows.run.stage import line_logger

NAME = "push"


def is_pushed(root: Path) -> bool:
    """`operate.push` of params.yaml; false if the file has none."""
    try:
        return strict_yaml.read(root / "params.yaml")["operate"]["push"] is True
    except (OSError, strict_yaml.YamlError, KeyError, TypeError):
        return False


@task(name=NAME, task_run_name=NAME, persist_result=False)
def send_results(root: Path) -> Any:
    """Sends everything to the default remote, in a process of its own, which ends with the run; returns what was done.

    Args:
        root: the project's folder.
    """
    log_line = line_logger(NAME)
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        log_line(line)

    here = str(Path(__file__).resolve().parents[2])  # the worker's folder may be without our code
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {**environment(root), "PYTHONPATH": path}
    code = stream([sys.executable, "-m", "flows.dvc.send"], cwd=root, env=environ, on_line=on_line)
    last = lines[-1].removeprefix("push: ") if lines else f"ended with code {code}"
    # A returned state, not an exception: a traceback would hide the message.
    return Completed(message=last, data=last) if code == 0 else Failed(message=last)
