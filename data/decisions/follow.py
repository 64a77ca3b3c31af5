"""Decisions of a folder as its files grow: other processes and reviewers append meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.decisions.record import Decision, check_reviewer, parse_lines
from data.decisions.store import SUFFIX, is_whole
from data.errors import DataError, Fault
from data.storage import open_regular

_TAIL = 256
"""Bytes before the place that was read up to: if they changed, the file was replaced and is read anew."""


@dataclass
class _File:
    """How far a file was read."""

    facts: tuple[int, int, int] = (0, 0, 0)
    """inode, size, time of the last change"""
    end: int = 0
    lines: int = 0
    tail: bytes = b""
    decisions: list[Decision] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


class Follower:
    """The decisions of all reviewers; `update` reads what is new.

    Unlike `read_decisions` it leaves out lines that aren't decisions, and keeps them as `faults`: a reviewer can go on.
    An unfinished last line is read once it is whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, _File] = {}

    @property
    def faults(self) -> list[Fault]:
        """Of all files, lines that aren't decisions."""
        return [fault for file in self._files.values() for fault in file.faults]

    def update(self) -> tuple[dict[str, list[Decision]], bool]:
        """New decisions by reviewer, in the order of their lines.

        Returns:
            the decisions; and whether they are all that there are, since a file was replaced or is gone, as by
            `git checkout`: what was read before is void then.
        """
        found: dict[str, _File] = {}
        new: dict[str, list[Decision]] = {}
        void = False
        for path in sorted(self.folder.glob(f"*{SUFFIX}")) if self.folder.exists() else ():
            reviewer = path.name.removesuffix(SUFFIX)
            known = self._files.get(reviewer)
            file, added, replaced = _read_on(path, reviewer, known or _File())
            found[reviewer] = file
            void |= replaced
            if added:
                new[reviewer] = added
        void |= bool(self._files.keys() - found.keys())
        self._files = found
        if void:
            return {name: file.decisions for name, file in found.items() if file.decisions}, True
        return new, False


def _read_on(path: Path, reviewer: str, known: _File) -> tuple[_File, list[Decision], bool]:
    """The file as it is now, its new decisions, and whether it isn't the one that was read before."""
    try:
        status = path.stat()
        facts = status.st_ino, status.st_size, status.st_mtime_ns
        if facts == known.facts:
            return known, [], False
        check_reviewer(reviewer)
        with open_regular(path) as file:
            begin = max(0, known.end - _TAIL)
            file.seek(begin)
            content = file.read()
    except (OSError, DataError) as error:
        found = getattr(error, "strerror", None) or str(error)
        fault = Fault(str(path), "file", found, "a file of decisions", "correct its name or permissions")
        return _File(faults=[fault]), [], bool(known.decisions)
    replaced = content[: known.end - begin] != known.tail
    if replaced:
        # Replaced or cut: from the start, which is rare.
        known = _File()
        with open_regular(path) as file:
            content = file.read()
        begin = 0
    content = content[known.end - begin :]
    lines = content.split(b"\n")
    if lines[-1] and not is_whole(lines[-1]):
        content = content[: len(content) - len(lines[-1])]
        lines[-1] = b""
    added = list(_parsed(lines, path, reviewer, known))
    known.end += len(content)
    known.tail = (known.tail + content)[-_TAIL:]
    known.lines += len(lines) - 1
    known.facts = facts
    known.decisions += added
    return known, added, replaced


def _parsed(lines: list[bytes], path: Path, reviewer: str, file: _File) -> Iterator[Decision]:
    for _, one in parse_lines(enumerate(lines, start=file.lines + 1), str(path), reviewer):
        if isinstance(one, DataError):
            file.faults += one.faults
        else:
            yield one
