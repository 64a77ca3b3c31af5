"""Curves for `dvc plots` and DVC's extension for VS Code: a table for each curve, and a dvc.yaml that names them.

DVC can't read log.jsonl, the log of a training.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from data import strict_yaml
from data.storage import atomic_write
from tasks.common.tracking.backend import Target, UnusableError
from tasks.common.tracking.journal import Event


class Tracker:
    """See `Backend`. The tables are those of the last run; they are written anew each time."""

    live = True

    def __init__(self, target: Target, state: dict[str, Any]) -> None:
        self.folder = target.folder if target.to is None else target.root / Path(target.to)
        self.file = self.folder / "dvc.yaml"
        if self.file.is_file() and not _is_ours(self.file):
            raise UnusableError(
                f"{self.file} has more than plots, such as a pipeline: name another folder in `to`. The run goes on "
                "without it"
            )

    def send(self, events: Sequence[Event], before: Sequence[Event]) -> None:
        rows: dict[str, list[Event]] = defaultdict(list)
        for event in (*before, *events):
            if event.kind == "curve":
                rows[event.name].append(event)
        plots: list[dict[str, Any]] = []
        for name, curve in sorted(rows.items()):
            keys = list(dict.fromkeys(key for event in curve for key in event.values))
            path = self.folder / f"{name}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with (
                atomic_write(path) as temporary,
                Path(temporary).open("w", encoding="utf-8", newline="") as file,
            ):
                table = csv.writer(file, delimiter="\t", lineterminator="\n")
                table.writerow(["step", *keys])
                for event in sorted(curve, key=lambda one: one.step):
                    table.writerow([event.step, *(event.values.get(key, "") for key in keys)])
            for key in keys:
                plot = {
                    "template": "linear",
                    "x": "step",
                    "y": {path.relative_to(self.folder).as_posix(): key},
                }
                plots.append({f"{name} {key.removeprefix('loss_')}": plot})
        if plots:
            with atomic_write(self.file) as temporary:
                Path(temporary).write_text(
                    yaml.safe_dump({"plots": plots}, sort_keys=False), encoding="utf-8"
                )

    def close(self) -> None:
        """Nothing is buffered."""


def _is_ours(file: Path) -> bool:
    try:
        return list(strict_yaml.read(file)) == ["plots"]
    except (strict_yaml.YamlError, TypeError):
        return False
