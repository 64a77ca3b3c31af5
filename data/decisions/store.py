"""The folder of decisions: a JSON-lines file for each reviewer, to which decisions are appended.

A decision is on the disk when `DecisionLog.append` returns. A process that is killed as it writes leaves at most a part
of the last line, which is no decision: readers ignore it, and the next writer removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from data.annotations.strict_json import parse_json
from data.decisions.record import Action, Decision, check_reviewer, now, parse_line, parse_lines
from data.errors import DataError, Fault
from data.storage import atomic_write, open_regular

SUFFIX = ".jsonl"
README = "README.md"
"""Git keeps no empty folders."""
AUDIT = "audit.json"
"""A random sample of objects (tasks/review/audit.py). The folder has no other files."""


class Decisions(NamedTuple):
    """All decisions of a folder, by reviewer and in the order of their lines."""

    decisions: list[Decision]
    torn: list[Fault]
    """files whose last line was cut off as it was written; nothing else is lost"""


def read_decisions(folder: Path) -> Decisions:
    """The decisions of all reviewers; a folder that doesn't exist has none.

    Raises:
        DataError: all faults of all files.
    """
    faults: list[Fault] = []
    found = Decisions([], [])
    where: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path.name.startswith(".") or path.name in (README, AUDIT):
            continue
        try:
            one = read_file(path)
        except DataError as error:
            faults += error.faults
            continue
        for decision in one.decisions:
            other = where.setdefault(decision.id, path.name)
            if other != path.name:
                step = "remove the copy"
                faults.append(
                    Fault(str(path), decision.id, f"a decision of {other} too", "ids that differ", step)
                )
        found.decisions.extend(one.decisions)
        found.torn.extend(one.torn)
    if faults:
        raise DataError(faults)
    return found


def read_file(path: Path) -> Decisions:
    """The decisions of one reviewer.

    Raises:
        DataError: all faults of the file.
    """
    if path.suffix != SUFFIX:
        expected = f"files of decisions, REVIEWER{SUFFIX}"
        raise DataError(Fault(str(path), "file", "another file", expected, "rename it, or move it out"))
    reviewer = path.name.removesuffix(SUFFIX)
    try:
        check_reviewer(reviewer)
        with open_regular(path) as file:
            content = file.read()
    except DataError as error:
        raise DataError([replace(one, file=str(path), record="file name") for one in error.faults]) from None
    except OSError as error:
        found = f"unreadable ({error.strerror or error})"
        raise DataError(
            Fault(str(path), "file", found, "a file of decisions", "check its permissions")
        ) from None
    lines = content.split(b"\n")
    torn = []
    if lines[-1] and not is_whole(lines[-1]):
        expected = "a line that was written to its end"
        step = "decide that object again; the next decision of this reviewer removes the line"
        found = f"{len(lines[-1])} bytes of an unfinished line"
        torn = [Fault(str(path), f"line {len(lines)}", found, expected, step)]
        del lines[-1]
    decisions: dict[str, Decision] = {}
    faults: list[Fault] = []
    for number, one in parse_lines(enumerate(lines, start=1), str(path), reviewer):
        record = f"line {number}"
        if isinstance(one, DataError):
            faults += one.faults
            continue
        if one.id in decisions:
            faults.append(
                Fault(str(path), record, f"id {one.id} again", "ids that differ", "remove one of the lines")
            )
        if one.undoes is not None and one.undoes not in decisions:
            expected = "the id of a decision above, of the same reviewer"
            faults.append(
                Fault(str(path), record, f"undoes {one.undoes}", expected, "remove one of the lines")
            )
        decisions[one.id] = one
    if faults:
        raise DataError(faults)
    return Decisions(list(decisions.values()), torn)


def is_whole(line: bytes) -> bool:
    """Whether a last line without a line break is JSON to its end; an editor may have removed the line break."""
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


class DecisionLog:
    """Appends the decisions of one reviewer.

    Several processes may do so at once, also of the same reviewer: each append has the folder's lock.
    """

    def __init__(self, folder: Path, reviewer: str) -> None:
        """Makes the folder, and removes a line that a killed process left unfinished.

        Raises:
            DataError: a reviewer's name that can't be a file's.
            OSError: the folder can't be written.
        """
        check_reviewer(reviewer)
        self.folder, self.reviewer = folder, reviewer
        self.path = folder / f"{reviewer}{SUFFIX}"
        self._ids: set[str] = set()
        self._read = 0  # bytes of the file whose ids are known
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            with self._opened():
                pass

    def append(self, action: Action, **fields: Any) -> Decision:
        """Appends a decision; it is on the disk when this returns. If it raises, the file is as before.

        Args:
            fields: those of `Decision` that the action has, without id, time and reviewer.

        Raises:
            DataError: fields that the action doesn't have or that it needs, or wrong values; an undo of a decision that
                this reviewer didn't make.
            OSError: the disk is full, the file can't be written, ...
        """
        return self.extend([(action, fields)])[0]

    def extend(self, rows: Sequence[tuple[Action, Mapping[str, Any]]]) -> list[Decision]:
        """Appends several decisions, all or none: actions with their fields; as `append`."""
        decisions = [
            Decision(uuid.uuid4().hex, now(), self.reviewer, action, **fields) for action, fields in rows
        ]
        lines = [self._line(decision) for decision in decisions]
        with self._opened() as file:
            self._check_undos(decisions, file)
            end = os.lseek(file, 0, os.SEEK_END)
            try:
                _write_all(file, b"".join(line + b"\n" for line in lines))
            except BaseException:
                os.ftruncate(file, end)
                raise
        return decisions

    def _line(self, decision: Decision) -> bytes:
        """The line of a decision, checked."""
        try:
            line = decision.to_line().encode()
        except ValueError as error:  # an infinite number, a lone surrogate
            step = "correct the value"
            raise DataError(
                Fault(str(self.path), "a new decision", str(error), "values of JSON and UTF-8", step)
            ) from None
        parse_line(line, str(self.path), "a new decision", self.reviewer)
        return line

    def _check_undos(self, decisions: Sequence[Decision], file: int) -> None:
        for decision in decisions:
            if decision.undoes is not None and decision.undoes not in self._known(file):
                expected = "the id of an earlier decision of the same reviewer"
                step = "undo a decision of one's own"
                found = f"undoes {decision.undoes}"
                raise DataError(Fault(str(self.path), "a new decision", found, expected, step))

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The file's descriptor, with the folder's lock, after its last line was repaired."""
        lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            new = not self.path.exists()
            if not new:
                self._own()
            # The path anew for each decision: git or DVC may have replaced the file.
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                if new:
                    os.fsync(lock)  # the file's name
                _repair(file)
                yield file
            finally:
                os.close(file)
        finally:
            os.close(lock)  # and with it the lock

    def _own(self) -> None:
        """Makes the file one of its own: DVC may have linked it to its cache, which mustn't change."""
        if self.path.is_symlink() or self.path.stat().st_nlink > 1 or not os.access(self.path, os.W_OK):
            with atomic_write(self.path) as partial:
                shutil.copyfile(self.path, partial)

    def _known(self, file: int) -> set[str]:
        """The ids of all decisions of the file."""
        size = os.fstat(file).st_size
        if size < self._read:  # another version was checked out
            self._read = 0
            self._ids.clear()
        for line in _read_from(file, self._read, size).splitlines():
            try:
                row, _ = parse_json(line)
            except ValueError:
                continue  # the reader reports it
            if isinstance(row, dict) and isinstance(row.get("id"), str):
                self._ids.add(row["id"])
        self._read = size
        return self._ids


def _repair(file: int) -> None:
    """Removes an unfinished last line; ends a whole one that lacks its line break."""
    size = os.fstat(file).st_size
    begin = size
    tail = b""
    while begin > 0 and b"\n" not in tail:
        begin = max(0, begin - (1 << 16))
        tail = _read_from(file, begin, size)
    last = tail.rpartition(b"\n")[2]
    if not last:
        return
    if is_whole(last):
        try:
            _write_all(file, b"\n")
        except BaseException:
            os.ftruncate(file, size)
            raise
    else:
        os.ftruncate(file, size - len(last))
        os.fsync(file)


def _read_from(file: int, begin: int, end: int) -> bytes:
    parts = []
    while begin < end and (part := os.pread(file, end - begin, begin)):
        parts.append(part)
        begin += len(part)
    return b"".join(parts)


def _write_all(file: int, content: bytes) -> None:
    """Writes and syncs; the caller restores the size if it raises."""
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
    os.fsync(file)
