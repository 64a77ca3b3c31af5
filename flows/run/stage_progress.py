"""How far a stage is, as a progress artifact in Prefect's UI: read from the lines that it prints."""

from __future__ import annotations

import contextvars
import logging
import re
import threading
from types import TracebackType
from typing import NamedTuple, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]
EVERY_S = 2.0
"""The server is told no more often: a step may print a line a second."""
PATIENCE_S = 10.0
"""At a stage's end, how long its last figure may take to reach the server."""

# tasks/common/progress.py prints `train_teacher: 22/1000 steps, 2.2/s, 7 min 27 s left, loss 1.234`.
_LINE = re.compile(r".+: (?P<done>\d+)/(?P<total>\d+) \w+, .+ left")


class Progress(NamedTuple):
    """A share of a stage's present piece of work, in percent, and the line that told it."""

    percent: float
    line: str


def read_line(line: str) -> Progress | None:
    """What a line tells of progress; None for any other line."""
    match = _LINE.match(line)
    if match is None or int(match["total"]) == 0:
        return None
    percent = 100 * int(match["done"]) / int(match["total"])
    return Progress(round(min(100.0, percent), 1), line)


class StageProgress:
    """Hands a stage's progress to the server; use as a context manager around the stage, in its task.

    The artifact appears with the first line that tells of progress, so stages of a few seconds have none, and ends at
    100 where the stage ends well. A thread of its own talks to the server: one that is slow or gone holds up
    no stage, and never fails one.
    """

    def __init__(self, stage: str, logger: Logger) -> None:
        self._stage, self._logger = stage, logger
        self._key = f"progress-{re.sub('[^a-z0-9]+', '-', stage.lower())}".strip("-")
        self._latest: Progress | None = None
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> StageProgress:
        return self

    def line(self, line: str) -> None:
        """Takes a line of the stage; only those that tell of progress count."""
        progress = read_line(line)
        if progress is not None:
            self._tell(progress)

    def end(self, well: bool) -> None:
        """The stage has ended, well or not: it failed, or the run was cancelled."""
        if self._latest is not None:
            percent = self._latest.percent
            early = Progress(percent, f"{self._stage}: ended early, at {percent:g}%")
            self._tell(Progress(100.0, f"{self._stage}: done") if well else early)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(PATIENCE_S)

    def _tell(self, progress: Progress) -> None:
        self._latest = progress
        self._changed.set()
        if self._thread is None:
            # The artifact belongs to the task run, which Prefect finds by context variables.
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run, args=(self._send_all,), name=self._key, daemon=True
            )
            self._thread.start()

    def _send_all(self) -> None:
        artifact: UUID | None = None
        sent: Progress | None = None
        try:
            while not (self._closed.is_set() and sent == self._latest):
                self._changed.wait()
                self._changed.clear()
                latest = self._latest
                if latest is None or latest == sent:
                    continue
                if artifact is None:
                    made = create_progress_artifact(latest.percent, key=self._key, description=latest.line)
                    artifact = cast(UUID, made)
                else:
                    update_progress_artifact(artifact, progress=latest.percent, description=latest.line)
                sent = latest
                self._closed.wait(EVERY_S)
        except Exception as fault:
            self._logger.warning("%s: its progress isn't shown in Prefect's UI (%s)", self._stage, fault)
