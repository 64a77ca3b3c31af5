"""Logs a deployment's runs: a line when each starts, and one when it ends with its state and duration."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

EVERY = 5.0
"""Seconds between requests to the server; each returns a few rows."""

log = logging.getLogger(__name__)


class Run(NamedTuple):
    """A run that has started; `state` is Prefect's name of its state, such as Completed."""

    id: str
    name: str
    state: str
    has_ended: bool
    seconds: float


class Server(Protocol):
    """The requests of `RunLog` to Prefect."""

    def started(self, deployment: str, since: datetime) -> Sequence[Run]:
        """The newest runs of a deployment that started since then, the oldest first."""


class RunLog:
    """Requests the runs from the server at intervals; failed requests are ignored.

    Args:
        deployment: whose runs are logged, from now on.
        server: takes the requests.
        say: takes the lines.
    """

    def __init__(self, deployment: str, server: Server, say: Callable[[str], None]) -> None:
        self.deployment, self.server, self.say = deployment, server, say
        self._since = datetime.now(UTC)
        self._ended: dict[str, bool] = {}
        self._lock = threading.Lock()

    def run(self, stopped: threading.Event) -> None:
        """Logs until `stopped` is set."""
        while not stopped.wait(EVERY):
            self.update()

    def update(self) -> None:
        """Logs what is new since the last request."""
        try:
            runs = self.server.started(self.deployment, self._since)
        except Exception:  # no connection to the server, which others report
            log.debug("the runs can't be requested", exc_info=True)
            return
        with self._lock:
            for run in runs:
                if run.id not in self._ended:
                    self.say(f"run {run.name!r} has started")
                if run.has_ended and not self._ended.get(run.id, False):
                    self.say(f"run {run.name!r} has ended: {run.state}, after {duration(run.seconds)}")
            self._ended = {run.id: run.has_ended for run in runs}


def duration(seconds: float) -> str:
    """`1 h 2 min`, `2 min 3 s`, `3 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
