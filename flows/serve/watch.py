"""The watcher: checks the inbox at intervals, and sends Prefect an event when the pending files are enough for a run.

A burst of files makes one event.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data.errors import DataError
from flows.run.intake import counted
from tasks.common.config import InboxConfig, Params, load_params
from tasks.common.errors import TaskError
from tasks.inbox.pending import InboxChecker, PendingFiles, inbox_id

EVENT = "point-labels.arrived"
PLACE = Path("workspace/runs/arrivals/watch")
REANNOUNCE_SECONDS = 600.0
"""Files that no run has taken in are announced again after this time, if no run is under way."""
MAX_RETRY_SECONDS = 600.0
"""The longest pause between attempts while the inbox or the server can't be reached."""
SHOWN_NAMES = 20

log = logging.getLogger(__name__)


class Server(Protocol):
    """The requests of the watcher to Prefect."""

    def announce(self, resource: dict[str, str], payload: dict[str, Any]) -> None:
        """Sends the event; raises if the server doesn't accept it."""

    def waiting(self) -> int:
        """How many runs are due and haven't started. They will take in the pending files."""

    def running(self) -> int:
        """How many runs have started and haven't ended."""


@dataclass(frozen=True)
class RunRequest:
    """The reason for a run: files with new points, and files that can't be used.

    Attributes:
        files: their names.
        points: new points in them.
        bad: how many of the files can't be used.
        oldest: seconds since the oldest one arrived.
    """

    files: list[str]
    points: int
    bad: int
    oldest: float

    def __str__(self) -> str:
        good = len(self.files) - self.bad
        parts = [f"{counted(self.points, 'new point')} in {counted(good, 'file')}"] if good else []
        parts += [f"{counted(self.bad, 'file')} that can't be used"] if self.bad else []
        return ", ".join(parts)


def run_request(pending: PendingFiles, config: InboxConfig) -> RunRequest | None:
    """A request if the pending files are enough for a run now: the usable ones have at least `min_points` new points
    and no file is still being written, or the oldest file arrived `max_wait_seconds` ago.

    So the files of a burst start one run: when all of them are complete, or that time is over. Files that can't be used
    start a run only after `max_wait_seconds`; it enters them into the ledger and reports them.
    """
    result = pending.result
    files = sorted([*result.good, *result.rejected])
    if not files:
        return None
    request = RunRequest(files, result.points, len(result.rejected), pending.oldest)
    if pending.oldest >= config.max_wait_seconds:
        return request
    enough = bool(result.good) and result.points >= config.min_points
    return request if enough and not pending.settling else None


class Watcher:
    """Checks the inbox of the project at `root` at intervals.

    Args:
        root: the project's folder.
        server: takes the events.
        say: takes a line whenever the state of the inbox changes.
        clock: a monotonic clock, in seconds.
        again: seconds after which pending files are announced again.
    """

    def __init__(
        self,
        root: Path,
        server: Server,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        again: float = REANNOUNCE_SECONDS,
    ) -> None:
        self.root, self.server, self.say, self.clock, self.again = root, server, say, clock, again
        self._inbox = InboxChecker(root, root / PLACE)
        self._announced: dict[tuple[str, str], float] = {}
        self._failures = 0
        self._last_line = ""

    def run(self, stopped: threading.Event) -> None:
        """Checks until `stopped` is set."""
        while not stopped.is_set():
            stopped.wait(self.check())

    def check(self) -> float:
        """Checks once; returns the seconds until the next check. Errors that may pass are reported, not raised."""
        try:
            params = load_params(self.root / "params.yaml")
        except TaskError as error:  # it may be edited now
            return self._failed(error, 30.0)
        config = params.operate.inbox
        if config.source is None:
            self._report("no inbox: params.yaml has operate.inbox.source: null")
            return config.poll_seconds
        try:
            self._report(f"inbox {config.source}: {self._check(params, config.source)}")
        except (DataError, TaskError, OSError) as error:
            return self._failed(error, config.poll_seconds)
        except Exception as error:  # of Prefect's client, or a bug: the watcher must continue
            log.debug("the check of the inbox failed", exc_info=True)
            return self._failed(error, config.poll_seconds)
        self._failures = 0
        return config.poll_seconds

    def _check(self, params: Params, source: str) -> str:
        pending = self._inbox.check(params)
        now = self.clock()
        contents = {(name, pending.digests[name]) for name in pending.files}
        self._announced = {one: at for one, at in self._announced.items() if one in contents}
        state = _description(pending)
        request = run_request(pending, params.operate.inbox)
        if request is None:
            return state
        requested = {(name, pending.digests[name]) for name in request.files}
        new = requested - self._announced.keys()
        if not new and now - max(self._announced[one] for one in requested) < self.again:
            return f"{state}; announced"
        if self.server.waiting() or (not new and self.server.running()):
            return f"{state}; a run that takes them in is scheduled or running"
        resource = {"prefect.resource.id": inbox_id(self.root), "prefect.resource.name": source}
        payload = {
            "reason": str(request),
            "inbox": source,
            "files": request.files[:SHOWN_NAMES],
            "file_count": len(request.files),
            "points": request.points,
            "oldest_seconds": round(request.oldest),
        }
        self.server.announce(resource, payload)
        self._announced |= dict.fromkeys(requested, now)
        return f"{state}; announced"

    def _failed(self, error: Exception, poll: float) -> float:
        pause = min(max(poll, 1.0) * 2**self._failures, max(MAX_RETRY_SECONDS, poll))
        self._failures += 1
        why = (str(error) or type(error).__name__).removesuffix(".")
        self._report(f"the inbox can't be checked: {why}; retries at growing intervals")
        return pause

    def _report(self, line: str) -> None:
        if line != self._last_line:
            self.say(line)
        self._last_line = line


def _description(pending: PendingFiles) -> str:
    result = pending.result
    new_points = f"{counted(result.points, 'new point')} in {counted(len(result.good), 'file')}"
    parts = [new_points] if result.good else []
    parts += [f"{len(result.same)} with nothing new"] if result.same else []
    parts += [f"{len(pending.settling)} still being written"] if pending.settling else []
    faults = {**result.rejected, **pending.lost}
    bad = [f"{name} can't be used: {why.removesuffix('.')}" for name, why in faults.items()]
    return "; ".join([", ".join(parts)] * bool(parts) + bad) or "nothing new"
