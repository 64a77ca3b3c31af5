"""TensorBoard: event files, in a folder for each run of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboard.summary import Writer

from tasks.common.tracking.backend import Target
from tasks.common.tracking.journal import Event


class Tracker:
    """See `Backend`. Params and tags aren't shown: TensorBoard's plug-in for them needs all runs' values at once."""

    live = True

    def __init__(self, target: Target, state: dict[str, Any]) -> None:
        folder = target.folder if target.to is None else target.root / Path(target.to)
        self.writer = Writer(str(folder / target.run))

    def send(self, events: Sequence[Event], before: Sequence[Event]) -> None:
        for event in events:
            if event.kind in ("curve", "metrics"):
                section = f"{event.name}/" if event.kind == "curve" else ""
                for key, value in event.values.items():
                    self.writer.add_scalar(section + key, value, event.step, wall_time=event.at)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
