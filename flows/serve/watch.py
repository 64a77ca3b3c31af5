"""The watcher: looks into the inbox and tells Prefect when there is enough to run for, once for a burst."""

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
AGAIN = 600.0
"""Seconds after which files are announced again that no run has taken in, if none is under way."""
PATIENCE = 600.0
"""Seconds between attempts, at most, while the inbox or the server can't be reached."""
SHOWN_NAMES = 20

log = logging.getLogger(__name__)


class Server(Protocol):
    """What the watcher asks of Prefect."""

    def announce(self, resource: dict[str, str], payload: dict[str, Any]) -> None:
        """Sends the event; raises unless the server has it."""

    def waiting(self) -> int:
        """Runs that are due and haven't started yet: they will take in what lies there then."""

    def running(self) -> int:
        """Runs that have started and haven't ended."""


@dataclass(frozen=True)
class Call:
    """Why a run should start now: new points in `files`, some of which can't be read."""

    files: list[str]
    points: int
    bad: int
    oldest: float  # seconds

    def __str__(self) -> str:
        good = len(self.files) - self.bad
        told = [f"{counted(self.points, 'new point')} in {counted(good, 'file')}"] if good else []
        told += [f"{counted(self.bad, 'file')} that can't be used"] if self.bad else []
        return ", ".join(told)


def call_for(waiting: PendingFiles, config: InboxConfig) -> Call | None:
    """Whether what waits is enough: `min_points` and nothing still being written, or the oldest waits too long.

    A burst ends when all of its files are complete, so that it makes one run; `max_wait_seconds` bounds that too. Files
    that can't be used start a run only by their age: it enters them into the ledger and tells people.
    """
    result = waiting.result
    files = sorted([*result.good, *result.rejected])
    if not files:
        return None
    call = Call(files, result.points, len(result.rejected), waiting.oldest)
    if waiting.oldest >= config.max_wait_seconds:
        return call
    enough = bool(result.good) and result.points >= config.min_points
    return call if enough and not waiting.settling else None


class Watcher:
    """Looks into the inbox of the project at `root` time after time.

    Args:
        root: the project's folder.
        server: where events go.
        say: gets a line whenever there is something new to say.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        root: Path,
        server: Server,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        again: float = AGAIN,
    ) -> None:
        self.root, self.server, self.say, self.clock, self.again = root, server, say, clock, again
        self._inbox = InboxChecker(root, root / PLACE)
        self._announced: dict[tuple[str, str], float] = {}
        self._failures = 0
        self._said = ""

    def run(self, stopped: threading.Event) -> None:
        """Looks until `stopped` is set."""
        while not stopped.is_set():
            stopped.wait(self.look())

    def look(self) -> float:
        """One look; returns the seconds until the next one. Nothing that may pass ends it."""
        try:
            params = load_params(self.root / "params.yaml")
        except TaskError as error:  # someone is editing it
            return self._failed(error, 30.0)
        config = params.operate.inbox
        if config.source is None:
            self._tell("no inbox: params.yaml has operate.inbox.source: null")
            return config.poll_seconds
        try:
            self._tell(f"inbox {config.source}: {self._look(params, config.source)}")
        except (DataError, TaskError, OSError) as error:
            return self._failed(error, config.poll_seconds)
        except Exception as error:  # Prefect's client, or a fault of ours: neither may end a watch of months
            log.debug("the watcher's look failed", exc_info=True)
            return self._failed(error, config.poll_seconds)
        self._failures = 0
        return config.poll_seconds

    def _look(self, params: Params, source: str) -> str:
        waiting = self._inbox.check(params)
        now = self.clock()
        contents = {(name, waiting.digests[name]) for name in waiting.files}
        self._announced = {one: at for one, at in self._announced.items() if one in contents}
        told = _told(waiting)
        call = call_for(waiting, params.operate.inbox)
        if call is None:
            return told
        asked = {(name, waiting.digests[name]) for name in call.files}
        new = asked - self._announced.keys()
        if not new and now - max(self._announced[one] for one in asked) < self.again:
            return f"{told}; announced"
        if self.server.waiting() or (not new and self.server.running()):
            return f"{told}; a run that takes them in is on its way"
        resource = {"prefect.resource.id": inbox_id(self.root), "prefect.resource.name": source}
        payload = {
            "reason": str(call),
            "inbox": source,
            "files": call.files[:SHOWN_NAMES],
            "file_count": len(call.files),
            "points": call.points,
            "oldest_seconds": round(call.oldest),
        }
        self.server.announce(resource, payload)
        self._announced |= dict.fromkeys(asked, now)
        return f"{told}; announced"

    def _failed(self, error: Exception, poll: float) -> float:
        pause = min(max(poll, 1.0) * 2**self._failures, max(PATIENCE, poll))
        self._failures += 1
        why = (str(error) or type(error).__name__).removesuffix(".")
        self._tell(f"can't look: {why}; tries again, less and less often")
        return pause

    def _tell(self, line: str) -> None:
        if line != self._said:
            self.say(line)
        self._said = line


def _told(waiting: PendingFiles) -> str:
    result = waiting.result
    told = (
        [f"{counted(result.points, 'new point')} in {counted(len(result.good), 'file')}"]
        if result.good
        else []
    )
    told += [f"{len(result.same)} with nothing new"] if result.same else []
    told += [f"{len(waiting.settling)} still being written"] if waiting.settling else []
    faults = {**result.rejected, **waiting.lost}
    bad = [f"{name} can't be used: {why.removesuffix('.')}" for name, why in faults.items()]
    return "; ".join([", ".join(told)] * bool(told) + bad) or "nothing new"
