"""Starts and ends the processes that send the journal, one for each tracker."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from tasks.common.config import Params, TrackerConfig
from tasks.common.tracking.sender import GRACE_S

SOURCES = Path(__file__).resolve().parents[3]


class Senders:
    """The processes of one stage.

    Args:
        runs: the folder workspace/runs/tracking.
        root: the project's folder.
    """

    def __init__(self, runs: Path, params: Params, root: Path) -> None:
        # -P and the path of our sources: a project's folder may have a `tasks` of its own.
        path = f"import sys; sys.path.insert(0, {str(SOURCES)!r})"
        code = f"{path}; from tasks.common.tracking.sender import main; main()"
        self._children: list[subprocess.Popen[str]] = []
        for config in params.runtime.trackers:
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            self._children.append(child)
            start = {"tracker": config.model_dump(), "state": state_name(config)}
            self._write(
                child, json.dumps({**start, "runs": str(runs.resolve()), "root": str(root.resolve())})
            )

    def close(self, status: str, seconds: float) -> None:
        """Waits until everything is sent, but `seconds` at most; for a process that doesn't end by then, a little more.

        Args:
            status: of the stage that has ended; "" for none.
        """
        for child in self._children:
            self._write(child, json.dumps({"status": status, "seconds": seconds}))
            with contextlib.suppress(OSError):
                child.stdin.close()  # type: ignore[union-attr]
        last = time.monotonic() + seconds + GRACE_S
        for child in self._children:
            try:
                child.wait(max(0.0, last - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _write(self, child: subprocess.Popen[str], line: str) -> None:
        with contextlib.suppress(OSError):  # it has ended: it printed why
            child.stdin.write(f"{line}\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]


def state_name(config: TrackerConfig) -> str:
    """`mlflow-1a2b3c`: of a tracker at one place."""
    place = json.dumps([config.to, config.project])
    return f"{config.name}-{hashlib.sha256(place.encode()).hexdigest()[:6]}"
