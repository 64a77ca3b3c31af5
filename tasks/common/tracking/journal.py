"""The journal of a run, for trackers.

workspace/runs/tracking:
  run.json               the current run: which stages have run, which run
  RUN/events.jsonl       what happened in a run, a JSON object a line, in order
  RUN/TRACKER.json       how many of these a tracker has

A run is one of the whole pipeline. It goes on, also after a kill, until its report is written, its params change, or a
stage that it has done is done again: then the next one begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from data.storage import atomic_write
from tasks.common.config import ROUNDING, Params

LAST_STAGE = "report"
KEPT_RUNS = 20
UNTRACKED = ("runtime", "operate")
"""Sections that no result depends on. They aren't sent: they may hold addresses with secrets."""

Kind = Literal["params", "tags", "curve", "metrics", "file", "model", "status"]
Status = Literal["running", "finished", "failed", "killed"]


@dataclass(frozen=True)
class Event:
    """A line of the journal.

    Attributes:
        kind: params and tags have texts in `values`; curve (a row of the curves `name`/KEY) and metrics have numbers.
            file: to be shown as `name`; model: version `name` is promoted now; each has the `path`, relative to the
            project's folder, and a hash. status: `name` is one of Status.
        at: seconds since 1970.
        step: of a curve.
    """

    kind: Kind
    at: float
    name: str = ""
    step: int = 0
    values: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The events of one run, in a folder whose name is the run's id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "events.jsonl"

    def add(
        self, kind: Kind, values: Mapping[str, Any] = MappingProxyType({}), name: str = "", step: int = 0
    ) -> None:
        """Appends an event.

        Raises:
            OSError: such as a full disk.
        """
        line = json.dumps(
            asdict(Event(kind, round(time.time(), 3), name, step, dict(values))), allow_nan=False
        )
        file = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, f"{line}\n".encode())  # in one piece: stages that run at once write to one journal
        finally:
            os.close(file)

    def size(self) -> int:
        """In bytes; 0 if there is no event yet."""
        return self._file.stat().st_size if self._file.exists() else 0

    def events(self) -> list[Event]:
        """All events, in order. The later ones of a step that a resumed training repeated are left out, and so are
        lines that a kill cut off. It only ever grows at its end."""
        found: list[Event] = []
        steps: set[tuple[str, int]] = set()
        with contextlib.suppress(OSError):
            for line in self._file.read_bytes().split(b"\n"):
                event = _parsed(line)
                if event is None or (event.kind == "curve" and (event.name, event.step) in steps):
                    continue
                steps.add((event.name, event.step))
                found.append(event)
        return found


def _parsed(line: bytes) -> Event | None:
    try:
        event = Event(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    return event if event.kind in get_args(Kind) and isinstance(event.values, dict) else None


class Runs:
    """All runs of a project, in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def journals(self) -> list[Journal]:
        """The newest first."""
        return [Journal(path.parent) for path in sorted(self.root.glob("*/events.jsonl"), reverse=True)]

    def current(self) -> Journal | None:
        """The run that began last."""
        name = self._read().get("run")
        return Journal(self.root / name) if isinstance(name, str) else None

    def begin(self, stage: str, params: Params) -> Journal:
        """The stage begins: the run goes on, or the next one begins."""
        digest = _digest(params)
        with self._change() as run:
            if run.get("closed", True) or run["digest"] != digest or stage in run["done"]:
                self._new(run, digest, params)
            run["running"] = sorted({*run["running"], stage})
            journal = Journal(self.root / run["run"])
            journal.add("status", name="running")
        return journal

    def end(self, journal: Journal, stage: str, status: Status) -> None:
        """The stage has ended. The run counts as ended until another stage begins."""
        with self._change() as run:
            if run.get("run") != journal.folder.name:
                return
            run["running"] = [one for one in run["running"] if one != stage]
            if status == "finished":
                run["done"] = sorted({*run["done"], stage})
                run["closed"] = stage == LAST_STAGE
            if not run["running"] or status != "finished":
                journal.add("status", name=status)

    def begin_curve(self, journal: Journal, curve: str, key: str, stage: str, params: Params) -> Journal:
        """A training begins or is resumed; `key` is of its params, data and code. If this run has a part of this curve
        by another key, the next run begins: the training starts over."""
        with self._change() as run:
            if run.get("run") != journal.folder.name:
                return journal
            if run["keys"].setdefault(curve, key) != key:
                self._new(run, run["digest"], params)
                run["running"], run["keys"] = [stage], {curve: key}
                journal = Journal(self.root / run["run"])
                journal.add("status", name="running")
        return journal

    def _new(self, run: dict[str, Any], digest: str, params: Params) -> None:
        """Begins a run, in place of the one in `run`."""
        if run and run["running"]:
            Journal(self.root / run["run"]).add("status", name="killed")
        identity = f"{datetime.now():%Y%m%d-%H%M%S-%f}"  # sorted by name they are sorted by time
        journal = Journal(self.root / identity)
        journal.folder.mkdir(parents=True)
        journal.add("params", _flat(params.model_dump(mode="json", exclude=set(UNTRACKED))))
        run.clear()
        run |= {"run": identity, "digest": digest, "running": [], "done": [], "keys": {}, "closed": False}
        for old in self.journals()[KEPT_RUNS:]:
            shutil.rmtree(old.folder, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads((self.root / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        whole = isinstance(content, dict) and content.keys() == {
            "run", "digest", "running", "done", "keys", "closed"
        }  # fmt: skip
        return content if whole else {}

    @contextlib.contextmanager
    def _change(self) -> Iterator[dict[str, Any]]:
        """The content of run.json, to change, while no other stage changes it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            run = self._read()
            yield run
            with atomic_write(self.root / "run.json") as path:
                path.write_text(json.dumps(run, indent=2), encoding="utf-8")


def _digest(params: Params) -> str:
    """A hash of the params on which results depend."""
    content = params.model_dump(mode="json", exclude={*UNTRACKED, "report", "demo"})
    kept = {
        key: {name: one for name, one in value.items() if name not in ROUNDING}
        if isinstance(value, dict)
        else value
        for key, value in content.items()
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _flat(content: dict[str, Any], before: str = "") -> dict[str, str]:
    """`{"student.lr": "0.0015", ...}`; lists stay whole."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[before + key] = value if isinstance(value, str) else json.dumps(value)
    return flat
