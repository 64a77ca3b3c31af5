"""Tells of a deployment's runs: a line as each begins, and one as it ends with its state and how long it took."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

EVERY = 5.0
"""Seconds between questions to the server; each is answered with a handful of rows."""

log = logging.getLogger(__name__)


class Run(NamedTuple):
    """A run that has begun; `state` is as people are told it, such as Completed."""

    id: str
    name: str
    state: str
    has_ended: bool
    seconds: float


class Server(Protocol):
    """What is asked of Prefect."""

    def begun(self, deployment: str, since: datetime) -> Sequence[Run]:
        """The newest runs of a deployment that began since then, the oldest first."""


class RunTeller:
    """Asks the server for runs time after time; an answer that doesn't come is no matter.

    Args:
        deployment: whose runs are told of, from now on.
        server: what is asked.
        say: gets the lines.
    """

    def __init__(self, deployment: str, server: Server, say: Callable[[str], None]) -> None:
        self.deployment, self.server, self.say = deployment, server, say
        self._since = datetime.now(UTC)
        self._ended: dict[str, bool] = {}
        self._lock = threading.Lock()

    def run(self, stopped: threading.Event) -> None:
        """Tells until `stopped` is set."""
        while not stopped.wait(EVERY):
            self.look()

    def look(self) -> None:
        """Tells what is new since the last look."""
        try:
            runs = self.server.begun(self.deployment, self._since)
        except Exception:  # the server is away: whoever needs it says so
            log.debug("no answer on runs", exc_info=True)
            return
        with self._lock:
            for run in runs:
                if run.id not in self._ended:
                    self.say(f"run {run.name!r} has begun")
                if run.has_ended and not self._ended.get(run.id, False):
                    self.say(f"run {run.name!r} has ended: {run.state}, after {lasted(run.seconds)}")
            self._ended = {run.id: run.has_ended for run in runs}


def lasted(seconds: float) -> str:
    """`1 h 2 min`, `2 min 3 s`, `3 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
