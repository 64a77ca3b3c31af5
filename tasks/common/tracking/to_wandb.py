"""W&B: offline, unless WANDB_MODE says otherwise; `wandb sync FOLDER` uploads an offline run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from data.images.content import sha256
from tasks.common.tracking.backend import Target
from tasks.common.tracking.journal import Event


class Tracker:
    """See `Backend`. An offline run can't be gone on with: its folder is written anew whenever a stage has ended."""

    def __init__(self, target: Target, state: dict[str, Any]) -> None:
        self.mode: Any = os.environ.get("WANDB_MODE") or "offline"
        self.live = self.mode == "online"
        self.target = target
        self.folder = target.folder if target.to is None else target.root / Path(target.to)
        self.run: Any = None

    def _begin(self, events: Sequence[Event]) -> None:
        for old in self.folder.glob(f"wandb/offline-run-*-{self.target.run}") if not self.live else ():
            shutil.rmtree(old, ignore_errors=True)
        params = {
            key: value for event in events if event.kind == "params" for key, value in event.values.items()
        }
        tags = {key: value for event in events if event.kind == "tags" for key, value in event.values.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
            os.environ.setdefault(name, str(self.folder / "wandb" / "files"))
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or self.target.project,
            id=self.target.run, name=self.target.name, dir=str(self.folder), mode=self.mode,
            resume="allow" if self.live else None,
            config={**params, **tags}, allow_val_change=True,
            settings=wandb.Settings(
                console="off", silent=True, x_disable_stats=True, disable_git=True, x_save_requirements=False
            ),
        )  # fmt: skip

    def send(self, events: Sequence[Event], before: Sequence[Event]) -> None:
        if self.run is None:
            self._begin([*before, *events])
        for event in events if self.live else [*before, *events]:
            if event.kind == "curve":
                axis = f"{event.name}/step"
                self.run.define_metric(f"{event.name}/*", step_metric=axis)
                values = {f"{event.name}/{key}": value for key, value in event.values.items()}
                self.run.log({axis: event.step, **values})
            elif event.kind == "metrics":
                self.run.summary.update(event.values)
            elif event.kind == "tags":
                self.run.config.update(event.values, allow_val_change=True)
            elif event.kind == "file":
                path = self.target.root / event.values["path"]
                if path.is_file() and sha256(path) == event.values["hash"]:
                    self.run.save(str(path), base_path=str(path.parent), policy="now")
        if not self.live:
            self.close()

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()
            self.run = None
