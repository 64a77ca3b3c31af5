"""Findings of the doctor: errors, which end a run, and warnings, which don't."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from data.errors import Fault
from data.messages import plain

SHOWN_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """A fault, or one kind of fault with its number of records and a few examples.

    `check` names the kind of fault, for scripts.
    """

    check: str
    fault: Fault
    count: int = 1
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        examples = f" Such as: {'; '.join(map(plain, self.examples))}." if self.examples else ""
        return str(self.fault) + examples

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "check": self.check,
            "file": self.fault.file,
            "record": self.fault.record,
            "found": self.fault.found,
            "expected": self.fault.expected,
            "next": self.fault.next_step,
            "count": self.count,
            "examples": list(self.examples),
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Finding:
        """The inverse of `to_json`."""
        fault = Fault(row["file"], row["record"], row["found"], row["expected"], row["next"])
        return cls(row["check"], fault, row["count"], tuple(row["examples"]))


@dataclass
class Diagnosis:
    """All findings. `notes` are no faults: what a run needs, what wasn't checked and why."""

    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 with errors, else 0."""
        return 1 if self.errors else 0

    def error(self, check: str, faults: Fault | Iterable[Fault]) -> None:
        """Adds an error for each fault."""
        self.errors += [Finding(check, one) for one in ([faults] if isinstance(faults, Fault) else faults)]

    def warn(self, check: str, fault: Fault, count: int = 1, examples: Iterable[str] = ()) -> None:
        """Adds a warning about `count` records."""
        self.warnings.append(Finding(check, fault, count, tuple(examples)[:SHOWN_EXAMPLES]))

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "errors": [finding.to_json() for finding in self.errors],
            "warnings": [finding.to_json() for finding in self.warnings],
            "notes": self.notes,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Diagnosis:
        """The inverse of `to_json`."""
        return cls(
            [Finding.from_json(row) for row in content["errors"]],
            [Finding.from_json(row) for row in content["warnings"]],
            list(content["notes"]),
        )
