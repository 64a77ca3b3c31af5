"""The registry: the models that were promoted or refused, which one is promoted, and their origins. Plain files in Git.

registry/VERSION/entry.json   a file for each candidate v1, v2, ..., so that branches merge
registry/VERSION/model.dvc    of promoted versions: their files, which DVC stores
registry/promoted.json        the promoted version, and all promotions and roll-backs so far
registry/baseline.json        the model that a new student is compared with, see `tasks.promotion.baseline`
registry/start/promoted.json  the model that it starts from, with `student.start: promoted`

Nothing here uses DVC; flows/registry/decide.py stores and restores models.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tasks.common.errors import TaskError
from tasks.common.stage_main import write_json
from tasks.promotion.baseline import (
    BASELINE,
    START,
    VERSION,
    Baseline,
    ModelHash,
    Record,
    Version,
    model_folder,
    read_baseline,
    read_record,
    restoring,
)
from tasks.promotion.rule import Comparison

ENTRY = "entry.json"
PROMOTED = "promoted.json"

Decision = Literal["promoted", "refused"]
Action = Literal["promoted", "forced", "rolled back"]


class Code(Record):
    """The code that trained a model."""

    commit: str | None
    dirty: bool | None
    """whether files differed from the commit; both null without Git"""
    sources: str
    """hash of the code that the stages depend on"""


class Entry(Record):
    """registry/VERSION/entry.json: a candidate that was promoted or refused."""

    version: Version
    decision: Decision
    model: ModelHash
    """of workspace/student, as in dvc.lock"""
    comparison: Comparison
    metrics: dict[str, Any]
    """of stage evaluate, see docs/evaluate.md"""
    data: dict[str, str | None]
    """path -> hash in dvc.lock, of all inputs of the stages but source files"""
    params: dict[str, Any]
    """the sections that the stages depend on"""
    code: Code
    who: str
    when: str
    """UTC, ISO 8601"""
    reason: str
    """of the run, or of a promotion by hand"""


class Event(Record):
    """A change of the promoted version."""

    version: Version
    action: Action
    """`forced`: against the comparison's verdict"""
    who: str
    when: str
    reason: str


class Promoted(Record):
    """registry/promoted.json: the promoted version (null before the first), and all changes of it, oldest first."""

    version: Version | None
    history: list[Event]


class Registry:
    """The files in the folder `root`. Every write is atomic; every read checks the content."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def entries(self) -> list[Entry]:
        """All entries, by version.

        Raises:
            TaskError: files are damaged; all are listed.
        """
        found: list[Entry] = []
        faults: list[str] = []
        for version in sorted(self._versions(), key=_number):
            try:
                found.append(self.entry(version))
            except TaskError as error:
                faults.append(str(error))
        if faults:
            raise TaskError("\n".join(faults))
        return found

    def entry(self, version: str) -> Entry:
        """The entry of a version.

        Raises:
            TaskError: the version doesn't exist, or its file is damaged.
        """
        path = self.root / version / ENTRY
        if not path.is_file():
            known = ", ".join(sorted(self._versions(), key=_number)) or "none"
            raise TaskError(f"{path}: no such version; there are: {known} (`points2model models` lists them)")
        entry = read_record(path, Entry)
        if entry.version != version:
            raise TaskError(
                f"{path}: found version {entry.version}, expected {version} the name of its folder; "
                f"{restoring(path)}"
            )
        return entry

    def entry_of(self, model: str) -> Entry | None:
        """The last decision on a model, by its hash."""
        return next((entry for entry in reversed(self.entries()) if entry.model == model), None)

    def promoted(self) -> Promoted:
        """The promoted version and the history.

        Raises:
            TaskError: promoted.json is damaged, or names a version without an entry.
        """
        path = self.root / PROMOTED
        if not path.is_file():
            return Promoted(version=None, history=[])
        promoted = read_record(path, Promoted)
        unknown = sorted({event.version for event in promoted.history} - self._versions(), key=_number)
        last = promoted.history[-1].version if promoted.history else None
        if unknown:
            raise TaskError(
                f"{path}: names {', '.join(unknown)}, whose {ENTRY} is missing; {restoring(self.root)}"
            )
        if promoted.version != last:
            raise TaskError(
                f"{path}: version is {promoted.version}, but its history ends with {last}; edited by hand? Correct "
                f"it, or {restoring(path)}; to change the version use `points2model rollback --to VERSION`"
            )
        return promoted

    def baseline(self) -> Baseline:
        """The model that a new student is compared with."""
        return read_baseline(self.root)

    def next_version(self) -> str:
        """The version after the highest one."""
        return f"v{max(map(_number, self._versions()), default=0) + 1}"

    def former(self) -> str | None:
        """The version that a roll-back goes to: the one promoted before the current one; None if there is none.

        Versions that were rolled back don't count: after v1, v2, v3 and two roll-backs it is None, not v2.
        """
        path: list[str] = []
        for event in self.promoted().history:
            if event.version in path:
                del path[path.index(event.version) + 1 :]
            else:
                path.append(event.version)
        return path[-2] if len(path) > 1 else None

    def write_entry(self, entry: Entry) -> None:
        """Writes the entry of a new version, or of one whose decision changed."""
        write_json(self.root / entry.version / ENTRY, entry.model_dump(mode="json"))

    def write_promotion(self, event: Event) -> None:
        """Makes a version the promoted one; nothing else does."""
        history = [*self.promoted().history, event]
        promoted = Promoted(version=event.version, history=history)
        write_json(self.root / PROMOTED, promoted.model_dump(mode="json"))

    def write_baseline(self, version: str) -> None:
        """Moves the baseline, and the model that a student may start from: stages that depend on them run again."""
        entry = self.entry(version)
        start = Baseline(version=version, model=entry.model)
        baseline = start.model_copy(update={"trainings": entry.comparison.trainings})
        write_json(self.root / START / "promoted.json", start.model_dump(mode="json"))
        # Last: with it the new round begins.
        write_json(self.root / BASELINE, baseline.model_dump(mode="json"))

    def checked_out(self) -> list[str]:
        """Versions whose model is in the registry."""
        return sorted(
            (path.name for path in self._folders() if model_folder(self.root, path.name).is_dir()),
            key=_number,
        )

    def _versions(self) -> set[str]:
        """Versions with an entry: a promotion that was killed leaves a folder without one."""
        return {path.name for path in self._folders() if (path / ENTRY).is_file()}

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return [path for path in self.root.iterdir() if VERSION.fullmatch(path.name) and path.is_dir()]


def now() -> str:
    """The present time in the format of entries."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _number(version: str) -> int:
    return int(version[1:])
