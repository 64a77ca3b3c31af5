"""What a stage writes into the journal of its run, and the processes that send it meanwhile."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from data import strict_yaml
from data.images.content import sha256
from tasks.common import processes
from tasks.common.config import Params
from tasks.common.tracking.journal import LAST_STAGE, Journal, Runs, Status
from tasks.common.tracking.senders import Senders

logger = logging.getLogger(__name__)

FOLDER = Path("runs", "tracking")
"""In the workspace."""
IGNORED_STAGES = ("code",)
"""It runs whenever a source file has changed, and then mostly nothing else does."""
SENT_FROM_THE_START = ("pseudo_label", "evaluate", "report")
"""The trainings send from their first row on. Other stages take seconds, less than an import of MLflow: the next stage
sends what they log."""
MODELS = ("teacher", "refiner", "student")
_open: _Stage | None = None
"""Of this process's stage; None without trackers."""


def log(run_folder: Path, key: str, row: Mapping[str, float], images: int) -> None:
    """Logs the losses of a training's last steps.

    tasks/common/code_identity.py takes the call for a log line: it changes no result.

    Args:
        run_folder: of the training, in workspace/runs.
        key: of its params, data and code.
        row: has its number in `step`.
        images: of a step.
    """
    if _open is not None:
        with _open.survives():
            _open.row(run_folder, key, dict(row), images)


@contextlib.contextmanager
def stage(name: str, params: Params, workspace: Path) -> Iterator[None]:
    """Tracks the stage that runs inside, if `runtime.trackers` says so. Errors of trackers are warnings."""
    global _open  # noqa: PLW0603  (the training loop doesn't pass it on)
    if not params.runtime.trackers or name in IGNORED_STAGES or not processes.is_first():
        yield
        return
    one = _Stage(name, params, workspace)
    with one.survives():
        one.begin()
        _open = one
    status: Status = "failed"
    try:
        yield
        status = "finished"
    except (KeyboardInterrupt, SystemExit):
        status = "killed"
        raise
    finally:
        _open = None
        with one.survives():
            one.end(status)


def promoted(params: Params, root: Path, version: str, model: str, folder: Path) -> None:
    """A version is promoted, or again after a roll-back: sends it to the trackers that have a registry.

    Args:
        root: the project's folder.
        model: the hash of its student.
        folder: of the model, relative to `root`.
    """
    if not any(one.registered_model is not None for one in params.runtime.trackers):
        return
    runs = Runs(root / "workspace" / FOLDER)
    try:
        for journal in runs.journals():
            if any(one.kind == "tags" and one.values.get("dvc.student") == model for one in journal.events()):
                journal.add("model", {"path": folder.as_posix(), "hash": model}, version)
                Senders(runs.root, params, root).close("", seconds=60)
                return
    except OSError as error:
        logger.warning("tracking: %s isn't registered: %s", version, error)
        return
    logger.warning(
        "tracking: %s isn't registered: no tracked run of the last ones made it, so there is none to upload it to",
        version,
    )


class _Stage:
    """A stage that is tracked. All methods may raise OSError."""

    def __init__(self, name: str, params: Params, workspace: Path) -> None:
        self.name, self.params, self.workspace = name, params, workspace
        self.runs = Runs(workspace / FOLDER)
        self.started = time.monotonic()
        self.journal: Journal | None = None
        self.senders: Senders | None = None
        self._last: dict[str, tuple[int, float]] = {}

    @contextlib.contextmanager
    def survives(self) -> Iterator[None]:
        """Nothing that fails inside ends the stage: a warning, and nothing more is tracked in it."""
        global _open  # noqa: PLW0603
        try:
            yield
        except Exception as error:
            _open = None
            logger.warning("tracking: off for the rest of %s: %s: %s", self.name, type(error).__name__, error)

    def begin(self) -> None:
        self.journal = self.runs.begin(self.name, self.params)
        self._add_tags(self.journal)
        if self.name in SENT_FROM_THE_START:
            self._send()

    def _add_tags(self, journal: Journal) -> None:
        if not any(event.kind == "tags" for event in journal.events()):
            journal.add("tags", _tags(self.workspace.parent))

    def _send(self) -> None:
        if self.senders is None:
            self.senders = Senders(self.runs.root, self.params, self.workspace.parent)

    def row(self, run_folder: Path, key: str, row: dict[str, float], images: int) -> None:
        assert self.journal is not None
        curve, step, now = curve_of(run_folder), int(row.pop("step")), time.monotonic()
        self._send()
        if curve not in self._last:
            self.journal = self.runs.begin_curve(self.journal, curve, key, self.name, self.params)
            self._add_tags(self.journal)
        else:
            before, then = self._last[curve]
            row["images_per_second"] = round((step - before) * images / max(now - then, 1e-9), 3)
        self._last[curve] = (step, now)
        self.journal.add("curve", row, curve, step)

    def end(self, status: Status) -> None:
        if self.journal is None:
            return
        if status != "finished":
            self._send()
        try:
            if status == "finished":
                self.journal.add(
                    "metrics", {f"seconds/{self.name}": round(time.monotonic() - self.started, 2)}
                )
                self._add_results(self.journal)
            self.runs.end(self.journal, self.name, status)
        finally:
            if self.senders is not None:
                self.senders.close(status, seconds=60 if self.name == LAST_STAGE else 15)

    def _add_results(self, journal: Journal) -> None:
        """The metrics after evaluate; at the end of the run whatever it lacks, as DVC had it from an earlier one."""
        metrics = self.workspace / "evaluation" / "metrics.json"
        if self.name == "evaluate":
            journal.add("metrics", _numbers(metrics), "evaluation")
        if self.name != LAST_STAGE:
            return
        events = journal.events()
        for name in MODELS:
            if not any(event.kind == "curve" and event.name == name for event in events):
                for line in (self.workspace / name / "log.jsonl").read_text(encoding="utf-8").splitlines():
                    row = json.loads(line)
                    journal.add("curve", row, name, row.pop("step"))
        if metrics.is_file() and not any(event.name == "evaluation" for event in events):
            journal.add("metrics", _numbers(metrics), "evaluation")
        if (student := _hash_of_student(self.workspace.parent)) is not None:
            journal.add("tags", {"dvc.student": student})
        for path in (self.workspace / "report.html", metrics):
            if path.is_file():
                shown = path.relative_to(self.workspace.parent).as_posix()
                journal.add("file", {"path": shown, "hash": sha256(path)}, path.name)


def curve_of(run_folder: Path) -> str:
    """`student`, `repeats/seed-1` or `rounds/round-2`, by the folder of a training in workspace/runs."""
    parts = run_folder.parts[len(run_folder.parts) - run_folder.parts[::-1].index("runs") :]
    return "/".join([parts[0].removeprefix("train_"), *(part for part in parts[1:] if part != "all")])


def _numbers(metrics: Path) -> dict[str, float]:
    """`{"student/AP": 48.8, ...}`, without those that are undefined."""
    content: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    return {
        f"{section}/{key}": float(value)
        for section, values in content.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _tags(root: Path) -> dict[str, str]:
    tags = {"points2model": metadata.version("points2model")}
    commit = _git(root, "rev-parse", "HEAD")
    if commit is not None:
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
        tags |= {"git.commit": commit, "git.changed": "yes" if changed else "no"}
    return tags


def _git(root: Path, *arguments: str) -> str | None:
    """What Git prints; None without Git or a repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _hash_of_student(root: Path) -> str | None:
    """As dvc.lock has it; None if there is none."""
    try:
        outs = strict_yaml.read(root / "dvc.lock")["stages"]["train_student"]["outs"]
        return str(next(out["md5"] for out in outs if out["path"] == "workspace/student"))
    except (OSError, KeyError, TypeError, StopIteration, strict_yaml.YamlError):
        return None
