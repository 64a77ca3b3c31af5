"""Intake: at the start of a run, new point files are copied from the inbox into the folder that the pipeline reads."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import get_run_logger

from data.errors import DataError
from data.storage import atomic_write, discard_partials
from flows.dvc.environment import environment
from flows.dvc.repo import DvcRepo, StageNode
from flows.run.stage import show_line
from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError
from tasks.inbox.ledger import ARRIVALS, Arrival, Ledger
from tasks.inbox.pending import InboxChecker, PendingFiles, check_inbox, is_inbox_itself

PLACE = Path("workspace/runs/arrivals/intake")
Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True)
class Intake:
    """The result of an intake.

    Attributes:
        inbox: the inbox; None where params.yaml has none.
        arrivals: the decision on each file, as in the ledger.
        points: how many points are new or moved (or removed, if those are more).
        left_out: records of the files taken in that are no usable points, by reason.
        settling: files that are still being written; a later run takes them in.
        problems: problems that a person should fix, a sentence each; the run goes on.
    """

    inbox: str | None = None
    arrivals: list[Arrival] = field(default_factory=list)
    points: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    settling: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def of(self, state: str) -> list[Arrival]:
        """The arrivals that were `taken`, `same` or `rejected`."""
        return [one for one in self.arrivals if one.state == state]

    def __str__(self) -> str:
        if self.inbox is None:
            return "no inbox"
        taken, rejected = self.of("taken"), self.of("rejected")
        parts = [f"{counted(self.points, 'new point')} in {counted(len(taken), 'file')}"] if taken else []
        parts += [f"{counted(len(rejected), 'file')} rejected"] if rejected else []
        parts += [f"{len(self.of('same'))} with nothing new"] if self.of("same") else []
        parts += [f"{len(self.settling)} still being written"] if self.settling else []
        return ", ".join(parts or ["nothing new"])


def counted(count: int, what: str) -> str:
    """`3 files`, `1 file`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class ShownLog(logging.LoggerAdapter[Any]):
    """The run's log, whose lines are shown on the terminal too."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        super().log(level, msg, *args, **kwargs)
        show_line("inbox", str(msg) % args)


def take_in_new_points(
    repo: DvcRepo, nodes: dict[str, StageNode], run: Callable[[dict[str, StageNode]], list[Any]]
) -> Intake:
    """The flow's intake: `take_in`, with the table of images brought up to date by the flow's own stages.

    Args:
        repo: the project.
        nodes: the stages of the run; where none of them reads points, nothing is taken in.
        run: brings some stages up to date; returns the result of each.
    """
    if "import_points" not in nodes or "ingest" not in nodes:
        return Intake()
    try:
        params = load_params(repo.root / "params.yaml")
    except TaskError:  # another pipeline, or a fault that the first stage reports
        return Intake()
    return take_in(
        repo.root,
        params,
        ShownLog(get_run_logger(), {}),
        before=lambda: all(one.state != "Failed" for one in run(repo.graph("ingest"))),
    )


def take_in(root: Path, params: Params, log: Logger, before: Callable[[], bool] = lambda: True) -> Intake:
    """Copies new, complete and valid files from the inbox into `points.files`, and makes a version of that folder.

    Files are never removed from the inbox. An invalid one is rejected: it is logged, entered into the ledger, and
    checked again when its content changes. An inbox that can't be reached is a warning, and its files wait for the next
    run.

    Args:
        root: the project's folder; the caller holds the run lock.
        params: of the run.
        log: takes one line per file.
        before: brings the table of images up to date, if there are pending files, since they may be of new images.
            Returns False if that failed: then nothing is taken in.

    Raises:
        TaskError: the settings are wrong (see `check_inbox`), or the ledger can't be read.
    """
    source = params.operate.inbox.source
    if source is None:
        return Intake()
    check_inbox(params, root)
    place = root / PLACE
    try:
        checker = InboxChecker(root, place)
        waiting = checker.check(params)
        if waiting.files and not is_inbox_itself(params):
            if not before():
                return Intake(source, settling=waiting.settling)
            waiting = checker.check(params, fresh=True)
        return _Intake(root, params, log, waiting).run()
    except DataError as error:
        log.warning("inbox: nothing was taken in, the run goes on with the points that are here: %s", error)
        return Intake(source, problems=[f"nothing was taken in: {error}"])
    finally:
        shutil.rmtree(place, ignore_errors=True)


class _Intake:
    """One intake of the pending files."""

    def __init__(self, root: Path, params: Params, log: Logger, waiting: PendingFiles) -> None:
        self.root, self.params, self.log, self.waiting = root, params, log, waiting
        self.folder = root / params.points.files
        self.copies = not is_inbox_itself(params)
        self.ledger = Ledger(root)
        self.arrivals: list[Arrival] = []
        self.problems: list[str] = []

    def run(self) -> Intake:
        waiting, result = self.waiting, self.waiting.result
        for name, why in waiting.lost.items():
            self._problem(f"{name}: {why}")
        kept = self._version() if result.good and self.copies else True
        for name, reason in result.rejected.items():
            self._decide(name, "rejected", reason)
        for name, other in result.same.items():
            self._decide(name, "same", f"the content of {other}, which counts")
        for name, points in result.good.items():
            try:
                self._take(name, points, kept)
            except OSError as error:
                self._problem(f"{name}: not taken in: {error.strerror or error} at {error.filename}")
        taken = [one for one in self.arrivals if one.state == "taken"]
        if taken and self.copies:
            self._version()
        if result.left_out and taken:
            reasons = ", ".join(f"{count} {reason}" for reason, count in result.left_out.items())
            self.log.warning("inbox: records that are no usable points: %s; see rejected.parquet", reasons)
        intake = Intake(
            self.params.operate.inbox.source, self.arrivals, result.points if taken else 0, result.left_out,
            waiting.settling, self.problems,
        )  # fmt: skip
        self.log.info("inbox: %s", intake)
        return intake

    def _take(self, name: str, points: int, kept: bool) -> None:
        reason = ""
        if self.copies:
            assert self.waiting.paths is not None
            target = self.folder / name
            former = self.ledger.last_taken(name)
            if target.exists():
                if not kept and former is None:
                    reason = f"{target} is another file, no version of it is kept; rename one"
                    self._decide(name, "rejected", reason)
                    return
                reason = "replaces the version of " + (former.when[:19] + "Z" if former else "this folder")
            if target.parent.is_dir():
                discard_partials(target.parent, target.name)
            with atomic_write(target) as partial:
                shutil.copyfile(self.waiting.paths[name], partial)
        self._decide(name, "taken", reason, points)

    def _decide(self, name: str, state: str, reason: str, points: int = 0) -> None:
        one = self.waiting.files[name]
        inbox = self.params.operate.inbox.source or ""
        digest = self.waiting.digests[name]
        arrival = Arrival(name, digest, one.etag, state, reason, points, inbox, self.ledger.moment())  # type: ignore[arg-type]
        self.ledger.add(arrival)
        self.arrivals.append(arrival)
        self.log.log(logging.WARNING if state == "rejected" else logging.INFO, "inbox: %s", arrival)

    def _problem(self, text: str) -> None:
        self.problems.append(text)
        self.log.warning("inbox: %s", text)

    def _version(self) -> bool:
        """Makes a version of the folder that can be restored; False if that can't be done."""
        if not self.folder.is_dir():
            return True
        if not self.folder.resolve().is_relative_to(self.root.resolve()):
            self.log.info("inbox: %s is outside of the project: its versions are not kept", self.folder)
            return False
        name = os.path.relpath(self.folder, self.root)
        tracked = subprocess.run(
            ["git", "ls-files", "--", name], cwd=self.root, capture_output=True, text=True, check=False
        )
        if tracked.returncode == 0 and tracked.stdout.strip():
            changed = subprocess.run(
                ["git", "status", "--porcelain", "--", name], cwd=self.root, capture_output=True, text=True, check=False
            )  # fmt: skip
            if changed.stdout.strip():
                self.log.info("inbox: git keeps %s: `git add %s %s` and commit", name, name, ARRIVALS)
            return not changed.stdout.strip()
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "add", "--quiet", name]
        done = subprocess.run(
            command, cwd=self.root, env=environment(self.root), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            output = (done.stderr or done.stdout).strip().removeprefix("ERROR: ")
            self._problem(f"`dvc add {name}` failed, so that this version can't be restored later: {output}")
        return done.returncode == 0
