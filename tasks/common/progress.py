"""Progress with rate and time left: a live bar on a terminal, else a log line every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tasks.common import processes

log = logging.getLogger(__name__)

PLAIN_LINE_EVERY_S = 10.0


def format_seconds(seconds: float) -> str:
    """`5 s`, `2 min 05 s` or `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_rate(rate: float, unit: str) -> str:
    """`2.5/s`, or `1.6 s/step` for less than one a second."""
    return f"{rate:.1f}/s" if rate >= 1 or rate <= 0 else f"{1 / rate:.1f} s/{unit}"


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else format_rate(task.speed, self.unit))


class Bar:
    """Counts `total` units of work; use as a context manager.

    `done` units that were finished before (by an interrupted run) are shown but don't count for the rate.
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._start_done = done
        self._rich: Progress | None = None

    def __enter__(self) -> Bar:
        self._started = self._last_line = time.monotonic()
        # Only the first process of a step draws.
        if sys.stderr.isatty() and processes.is_first():
            from rich.console import Console

            self._rich = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(self.unit),
                TimeRemainingColumn(), TextColumn("{task.fields[facts]}"),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._rich.add_task(self.what, total=self.total, completed=self.done, facts="")
            self._rich.start()
        return self

    def advance(self, n: int = 1, facts: str = "") -> None:
        """Counts `n` more units; `facts` (such as `loss 1.234`) are shown next to the rate."""
        self.done += n
        if self._rich is not None:
            self._rich.update(self._task, advance=n, facts=facts)
            return
        now = time.monotonic()
        if now - self._last_line >= PLAIN_LINE_EVERY_S and self.done < self.total:
            self._last_line = now
            rate = (self.done - self._start_done) / (now - self._started)
            left = format_seconds((self.total - self.done) / rate) if rate > 0 else "unknown"
            log.info(
                "%s: %d/%d %ss, %s, %s left%s",
                self.what, self.done, self.total, self.unit, format_rate(rate, self.unit), left,
                f", {facts}" if facts else "",
            )  # fmt: skip

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
        seconds = time.monotonic() - self._started
        if kind is None:
            rate = (self.done - self._start_done) / max(seconds, 1e-9)
            log.info(
                "%s: %d %s in %s (%s)",
                self.what, self.done, self.unit + "s" * (self.done != 1), format_seconds(seconds),
                format_rate(rate, self.unit),
            )  # fmt: skip
