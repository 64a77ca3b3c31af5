"""A stage's progress as an artifact in Prefect's UI, read from the lines that the stage prints."""

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
"""Between updates of the artifact: a stage may print a line per second."""
PATIENCE_S = 10.0
"""How long the last update may take at a stage's end."""

# tasks/common/progress.py prints `train_teacher: 22/1000 steps, 2.2/s, 7 min 27 s left, loss 1.234`.
_LINE = re.compile(r".+: (?P<done>\d+)/(?P<total>\d+) \w+, .+ left")


class Progress(NamedTuple):
    """Percent of a stage's current piece of work that are done, and the line with them."""

    percent: float
    line: str


def read_line(line: str) -> Progress | None:
    """The progress in a line; None for any other line."""
    match = _LINE.match(line)
    if match is None or int(match["total"]) == 0:
        return None
    percent = 100 * int(match["done"]) / int(match["total"])
    return Progress(round(min(100.0, percent), 1), line)


class StageProgress:
    """Sends a stage's progress to the server; a context manager around the stage, in its task.

    The artifact is made with the first line of progress, so stages of a few seconds have none, and ends at 100 where
    the stage succeeds. Requests are made in a thread of their own, so that a slow or missing server delays no stage and
    fails none.
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
        """Takes a line of the stage; lines without progress are ignored."""
        progress = read_line(line)
        if progress is not None:
            self._send(progress)

    def end(self, well: bool) -> None:
        """Ends the progress: `well` unless the stage failed or was cancelled."""
        if self._latest is not None:
            percent = self._latest.percent
            early = Progress(percent, f"{self._stage}: ended early, at {percent:g}%")
            self._send(Progress(100.0, f"{self._stage}: done") if well else early)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(PATIENCE_S)

    def _send(self, progress: Progress) -> None:
        self._latest = progress
        self._changed.set()
        if self._thread is None:
            # Prefect finds the task run of the artifact by context variables.
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
