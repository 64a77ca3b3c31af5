"""The speed of a training, and the fraction of its time that it waits for data."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

from data.storage import atomic_write
from tasks.common import processes

Item = TypeVar("Item")


class Speed:
    """Measures one training, for runs/STAGE/speed.json.

    The waiting time is this process's, for the loader: an upper bound of what faster reading could gain, since a GPU
    may still be busy with the step before.
    """

    def __init__(self, folder: Path, device: torch.device, batch_size: int) -> None:
        self.folder, self.device, self.batch_size = folder, device, batch_size
        self._started = self._window_started = time.monotonic()
        self._waited = self._window_waited = 0.0
        self._steps = 0

    def waits(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Yields the batches; the time until each is available counts as waiting."""
        source = iter(batches)
        while True:
            begin = time.monotonic()
            try:
                batch = next(source)
            except StopIteration:
                return
            waited = time.monotonic() - begin
            self._waited += waited
            self._window_waited += waited
            self._steps += 1
            yield batch

    def window(self) -> str:
        """A text on the time since the last call, for the progress line."""
        now = time.monotonic()
        share = self._window_waited / max(now - self._window_started, 1e-9)
        self._window_started, self._window_waited = now, 0.0
        return f"{100 * share:.0f}% waiting for data"

    def write(self) -> None:
        """Writes speed.json, of this run only, without interrupted ones before it."""
        if not processes.is_first():
            return
        seconds = time.monotonic() - self._started
        cuda = self.device.type == "cuda"
        figures = {
            "steps": self._steps,
            "seconds": round(seconds, 2),
            "images_per_second": round(self._steps * self.batch_size / max(seconds, 1e-9), 2),
            "waiting_for_data_share": round(self._waited / max(seconds, 1e-9), 4),
            "processes": processes.count(),
            "peak_gpu_memory_gib": round(torch.cuda.max_memory_allocated(self.device) / 2**30, 3)
            if cuda
            else None,
        }
        with atomic_write(self.folder / "speed.json") as path:
            path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
