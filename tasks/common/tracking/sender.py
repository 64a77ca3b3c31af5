"""The process that sends the journals of runs to one tracker, while a stage runs.

It reads settings from its standard input, and at the end the stage's status; if the input ends without one, the stage
was killed. It prints one warning for a run, and nothing else; what the tracker's package prints is dropped.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import math
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from data.storage import atomic_write
from tasks.common.tracking.backend import TRACKERS, Backend, Target, UnusableError, cause, shown_address
from tasks.common.tracking.journal import Event, Journal, Runs

POLL_S = 1.0
AT_ONCE = 200
"""Events between two notes of what was sent."""
LONGEST_PAUSE_S = 60.0
GRACE_S = 5
"""How long it may take over its time."""
HUNG_S = 300
"""A package that takes longer for a part hangs: the process ends, and the next stage's tries again."""
KILLED_S = 15.0
"""How long it goes on after a stage that was killed."""
BOUNDS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # this process tries again itself
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "WANDB_SILENT": "true",
    "WANDB_INIT_TIMEOUT": "20",
    "DO_NOT_TRACK": "1",
}
"""Defaults of environment variables."""


class Sender:
    """Sends to one tracker.

    Args:
        settings: what `Senders` writes.
        output: for warnings.
    """

    def __init__(self, settings: dict[str, Any], output: IO[str]) -> None:
        self.tracker: dict[str, Any] = settings["tracker"]
        self.name: str = self.tracker["name"]
        self.state_name: str = settings["state"]
        self.root, self.runs = Path(settings["root"]), Runs(Path(settings["runs"]))
        self.output = output
        self.deadline = float("inf")
        self._lock: IO[str] | None = None
        self._backend: tuple[str, Backend] | None = None
        self._pause, self._next_try = 0.0, 0.0
        self._sent_up_to = ("", 0)  # the current run and the size of its journal, at the last success

    def work(self, stdin: IO[str]) -> None:
        """Sends until the input ends, and then the rest."""
        while not select.select([stdin], [], [], POLL_S)[0]:
            if time.monotonic() >= self._next_try:
                signal.alarm(HUNG_S)
                self.send(last=False)
                signal.alarm(0)
        end = json.loads(stdin.readline() or "{}")
        seconds = end.get("seconds", KILLED_S)
        self.deadline = time.monotonic() + seconds
        # Nobody else ends it if the stage was killed, and what reads the stage's output waits for it.
        signal.alarm(math.ceil(seconds) + 2 * GRACE_S)
        self.send(last=True, killed="status" not in end)
        with contextlib.suppress(Exception):
            if self._backend is not None:
                self._backend[1].close()

    def send(self, last: bool, killed: bool = False) -> None:
        """Sends what is new in the current run, and in the end what earlier ones lack.

        It never raises, and warns of the first error.
        """
        if not self._alone():
            return
        current = self.runs.current()
        if current is None:
            return
        here = current.folder.name, current.size()
        if here == self._sent_up_to and not last:
            return
        try:
            for journal in self._unsent(current) if last else [current]:
                self._send(journal, self._state(journal), last)
            if killed:
                self._of(current, self._state(current)).send(
                    [Event("status", time.time(), "killed")], current.events()
                )
            self._pause, self._sent_up_to = 0.0, here
        except UnusableError as error:
            self._warn(current, str(error))
            os._exit(0)  # not the package's own clean-up, which may wait for its server
        except Exception as error:
            self._backend = None
            self._pause = min(max(2 * self._pause, 2.0), LONGEST_PAUSE_S)
            self._next_try = time.monotonic() + self._pause
            self._warn(
                current,
                f"{cause(error)}. The run goes on; what is missing there lies in workspace/runs/tracking and is sent "
                "when it works again. `points2model doctor` checks it",
            )

    def _state(self, journal: Journal) -> dict[str, Any]:
        return _read(journal.folder / f"{self.state_name}.json")

    def _alone(self) -> bool:
        """Whether no process of another stage sends to this tracker."""
        if self._lock is None:
            lock = (self.runs.root / f"{self.state_name}.lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                return False
            self._lock = lock
        return True

    def _unsent(self, current: Journal) -> Iterator[Journal]:
        """The current run first, then earlier ones that this tracker has a part of."""
        yield current
        for journal in self.runs.journals():
            path = journal.folder / f"{self.state_name}.json"
            if journal.folder != current.folder and path.is_file():
                yield journal

    def _send(self, journal: Journal, state: dict[str, Any], last: bool) -> None:
        events = journal.events()
        sent = state.setdefault("sent", 0)
        if not sent:
            _write(journal.folder, self.state_name, state)  # from now on it is this tracker's too
        while sent < len(events) and time.monotonic() < self.deadline:
            backend = self._of(journal, state)
            if not (backend.live or last):
                return
            some = events[sent : sent + AT_ONCE] if backend.live else events[sent:]
            try:
                backend.send(some, events[:sent])
            except Exception as error:
                if getattr(error, "error_code", None) != "INVALID_PARAMETER_VALUE":
                    raise
                # It will never take these: the next ones may be right.
                self._warn(journal, f"refused a part: {cause(error)}")
                state["warned"] = True
            sent = state["sent"] = sent + len(some)
            _write(journal.folder, self.state_name, state)

    def _of(self, journal: Journal, state: dict[str, Any]) -> Backend:
        if self._backend is None or self._backend[0] != journal.folder.name:
            if self._backend is not None:
                self._backend[1].close()
            self._backend = journal.folder.name, self._made(journal, state)
        return self._backend[1]

    def _made(self, journal: Journal, state: dict[str, Any]) -> Backend:
        needs = TRACKERS[self.name]
        try:
            module = importlib.import_module(f"tasks.common.tracking.to_{self.name}")
        except ImportError as error:
            raise UnusableError(
                f"package {error.name or needs.package} can't be imported: run `pip install "
                f"'points2model[{needs.extra}]'`, or remove it from runtime.trackers. The run goes on without it"
            ) from None
        target = Target(
            journal.folder.name, self.tracker["to"], self.tracker["project"] or self.root.name,
            self.tracker["registered_model"], self.runs.root / self.name, self.root,
        )  # fmt: skip
        backend: Backend = module.Tracker(target, state)
        _write(journal.folder, self.state_name, state)
        return backend

    def _warn(self, run: Journal, text: str) -> None:
        """Once for each run."""
        state = self._state(run)
        if state.get("warned"):
            return
        with contextlib.suppress(OSError):  # a full disk may be the cause
            _write(run.folder, self.state_name, {**state, "warned": True})
        where = self.tracker["to"] or (
            os.environ.get("MLFLOW_TRACKING_URI") if self.name == "mlflow" else None
        )
        named = f"{self.name} ({shown_address(where)})" if where else self.name
        with contextlib.suppress(OSError):
            print(f"tracking: {named}: {text}", file=self.output, flush=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(folder: Path, name: str, state: dict[str, Any]) -> None:
    with atomic_write(folder / f"{name}.json") as path:
        path.write_text(json.dumps(state), encoding="utf-8")


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    output = os.fdopen(os.dup(2), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.nice(5)
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the stage, with which this process ends
        signal.signal(number, signal.SIG_IGN)
    for name, value in BOUNDS.items():
        os.environ.setdefault(name, value)
    Sender(settings, output).work(sys.stdin)
    output.flush()
    os._exit(0)  # a package may have threads that wait for its server
