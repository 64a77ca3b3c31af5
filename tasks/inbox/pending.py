"""Pending files of the inbox: complete ones without a decision yet, and the result of importing them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import strict_yaml
from data.errors import Fault
from data.remote.inbox import Inbox, InboxFile
from data.remote.s3 import file_digest
from data.storage import is_s3, split_s3
from data.tables import Split
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.common.stage_main import WORKSPACE
from tasks.inbox.check import CheckResult, check_files
from tasks.inbox.ledger import Ledger


@dataclass(frozen=True)
class PendingFiles:
    """The files of the inbox at one check.

    Attributes:
        files: complete ones without a decision, by name.
        paths: a copy of each; None if the same files were checked before.
        digests: SHA-256 (hex) of each.
        result: the result of importing them.
        settling: names of files that changed a moment ago, or are still being written.
        lost: complete files that couldn't be read this time -> the reason.
    """

    files: dict[str, InboxFile]
    paths: dict[str, Path] | None
    digests: dict[str, str]
    result: CheckResult
    settling: list[str]
    lost: dict[str, str]

    @property
    def oldest(self) -> float:
        """Seconds since the oldest file arrived, of those with new content."""
        return max((one.age for name, one in self.files.items() if name not in self.result.same), default=0.0)


class InboxChecker:
    """Checks the inbox repeatedly; keeps results about files that don't change.

    Args:
        root: the project's folder.
        place: a folder of its own, for copies.
    """

    def __init__(self, root: Path, place: Path) -> None:
        self.root, self.place = root, place
        self._digests: dict[tuple[str, str], str] = {}
        self._result: tuple[Any, CheckResult] | None = None

    def check(self, params: Params, *, fresh: bool = False) -> PendingFiles:
        """Checks the inbox once.

        Args:
            params: `operate.inbox.source` must be set.
            fresh: copy and import all pending files, even if they are the same as at the last check.

        Raises:
            DataError: the inbox can't be listed; (an S3Error) its server can't be reached; points.classes has faults;
                the disk is full.
            TaskError: the ledger can't be read, or the settings can't work; see `check_inbox`.
        """
        check_inbox(params, self.root)
        config = params.operate.inbox
        assert config.source is not None
        inbox = Inbox(config.source if is_s3(config.source) else str(self.root / config.source))
        ledger = Ledger(self.root)
        listing = inbox.list()
        if is_inbox_itself(params) and params.points.classes is not None:
            listing.files.pop(params.points.classes, None)
        settling = [name for name, one in listing.files.items() if one.age < config.stable_seconds]
        complete = {name: one for name, one in listing.files.items() if name not in settling}
        open_ = {name: one for name, one in complete.items() if not self._is_decided(inbox, one, ledger)}
        lost = dict.fromkeys(listing.unsafe, "a name that no file below a folder can have; rename it")
        state = self._state(params, open_, ledger)
        if not fresh and self._result is not None and self._result[0] == state:
            digests = {name: self._digests[name, one.identity] for name, one in open_.items()}
            return PendingFiles(open_, None, digests, self._result[1], settling, lost)
        into = self.place / "files"
        if open_:
            lost |= inbox.copy(open_.values(), self.place / "cache", into)
        else:
            shutil.rmtree(self.place, ignore_errors=True)  # earlier downloads aren't needed any more
        open_ = {name: one for name, one in open_.items() if name not in lost}
        for name, one in open_.items():
            self._digests[name, one.identity] = file_digest(into / name, "sha256")
        # An object with the same content that was uploaded in other parts has another ETag.
        open_ = {name: one for name, one in open_.items() if not self._is_decided(inbox, one, ledger)}
        result = self._import(params, {name: into / name for name in open_})
        self._result = (self._state(params, open_, ledger), result)
        digests = {name: self._digests[name, one.identity] for name, one in open_.items()}
        return PendingFiles(open_, {name: into / name for name in open_}, digests, result, settling, lost)

    def _is_decided(self, inbox: Inbox, one: InboxFile, ledger: Ledger) -> bool:
        digest = self._digests.get((one.name, one.identity))
        if digest is None and (digest := inbox.digest(one)) is not None:
            self._digests[one.name, one.identity] = digest
        return ledger.find(one.name, sha256=digest, etag=one.etag) is not None

    def _state(self, params: Params, files: dict[str, InboxFile], ledger: Ledger) -> Any:
        """What the result depends on; `points.files` changes together with the ledger."""
        images = self.root / WORKSPACE / "dataset" / "weak" / "images.arrow"
        read_at = images.stat().st_mtime_ns if images.is_file() else None
        names = frozenset((name, one.identity) for name, one in files.items())
        return names, params.points, read_at, len(ledger.arrivals)

    def _import(self, params: Params, files: dict[str, Path]) -> CheckResult:
        if not files:
            return CheckResult()
        weak = self.root / WORKSPACE / "dataset" / "weak"
        split = Split.open(weak) if (weak / "images.arrow").is_file() else None
        if is_inbox_itself(
            params
        ):  # the files are there already: they are only read, the import reports faults
            return check_files(params.points.model_copy(update={"classes": None}), files, None, None)
        config = params.points.model_copy(update={"files": str(self.root / params.points.files)})
        return check_files(config, files, self.root / params.points.files, split)


def is_inbox_itself(params: Params) -> bool:
    """Whether `points.files` is the inbox: then nothing is copied."""
    source, files = params.operate.inbox.source, params.points.files
    if source is None or is_s3(source) != is_s3(files):
        return False
    if is_s3(source):
        return split_s3(source) == split_s3(files)
    return Path(source).resolve() == Path(files).resolve()


def check_inbox(params: Params, root: Path) -> None:
    """Checks the settings of the inbox.

    Raises:
        TaskError: files can't be taken in with them; all faults are listed.
    """
    source, files = params.operate.inbox.source, params.points.files
    if source is None:
        return
    faults: list[Fault] = []

    def fault(key: str, found: str, expected: str, step: str) -> None:
        faults.append(Fault("params.yaml", key, found, expected, step))

    if is_inbox_itself(params):
        if params.points.on_reject == "stop":
            expected = "report, where points.files is the inbox itself: no file can be left out there"
            fault(
                "points.on_reject",
                "stop",
                expected,
                "set it to report, or use another folder for points.files",
            )
    elif is_s3(files):
        step = "set points.files to a folder here, or to the inbox itself: new objects there start a run too"
        fault("points.files", files, "a folder that new files can be copied into", step)
    else:
        target = (root / files).resolve()
        if (made_by := _made_by(root, target)) is not None:
            step = "put your point files into a folder of your own, e.g. points/, and name it in points.files"
            fault("points.files", f"{files}, which stage {made_by} writes", "a folder of your own", step)
        if target.exists() and not target.is_dir():
            fault("points.files", f"{files}, a file", "a folder", "name the folder that it is in")
        if not is_s3(source):
            inbox = (root / source).resolve()
            if inbox.is_relative_to(target) or target.is_relative_to(inbox):
                found = f"{source}, and points.files {files}: one is inside the other"
                step = "move one of them, or name the same folder in both"
                fault("operate.inbox.source", found, "two separate folders", step)
    if faults:
        raise TaskError("\n".join(map(str, faults)))


def _made_by(root: Path, target: Path) -> str | None:
    """The stage of dvc.yaml with an output that is the folder, inside it, or around it."""
    try:
        stages = strict_yaml.read(root / "dvc.yaml")["stages"]
        outs = {name: [*_paths(stage.get("outs", []))] for name, stage in stages.items()}
    except (OSError, strict_yaml.YamlError, KeyError, TypeError, AttributeError):
        return None  # DVC reports it
    for name, paths in outs.items():
        for path in paths:
            out = (root / path).resolve()
            if target.is_relative_to(out) or out.is_relative_to(target):
                return name
    return None


def _paths(outs: Iterable[Any]) -> Iterable[str]:
    for out in outs:
        yield from [out] if isinstance(out, str) else out


def inbox_id(root: Path) -> str:
    """The resource of Prefect's events about a project's inbox, points2model.inbox.NAME. It depends on the project's
    folder alone, so that a deployment stays valid when `operate.inbox.source` changes."""
    whole = root.resolve()
    kept = "".join(char if char.isalnum() else "-" for char in whole.name.lower()).strip("-")
    return f"points2model.inbox.{kept or 'project'}-{hashlib.sha256(str(whole).encode()).hexdigest()[:6]}"
