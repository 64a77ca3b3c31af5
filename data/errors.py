"""Faults in data: where, what was found, what was expected, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from data.messages import plain

SHOWN_FAULTS = 50


@dataclass(frozen=True)
class Fault:
    """One bad record of one file."""

    file: str
    record: str
    found: str
    expected: str
    next_step: str

    def __str__(self) -> str:
        return plain(
            f"{self.file}: {self.record}: found {self.found}; expected {self.expected}. "
            f"Next: {self.next_step}."
        )


class DataError(Exception):
    """All faults that were found.

    The message shows at most ``SHOWN_FAULTS`` of them; ``faults`` holds all.
    """

    passing = False
    """Whether a later retry may succeed without any fix."""
    has_lines = True
    """Whether the text may have several lines, also in logs."""

    def __init__(self, faults: Fault | Iterable[Fault] | str) -> None:
        # torch re-raises an exception of a loader process as TYPE(message): only the text is left of it.
        self._text = faults if isinstance(faults, str) else None
        self.faults: list[Fault] = (
            [] if isinstance(faults, str) else [faults] if isinstance(faults, Fault) else list(faults)
        )
        super().__init__(faults if isinstance(faults, str) else self.faults)

    def __str__(self) -> str:
        if self._text is not None:
            return plain(self._text, lines=True)
        if len(self.faults) == 1:
            return str(self.faults[0])
        lines = [f"{len(self.faults)} faults:"]
        lines += [f"  {fault}" for fault in self.faults[:SHOWN_FAULTS]]
        if len(self.faults) > SHOWN_FAULTS:
            lines.append(f"  and {len(self.faults) - SHOWN_FAULTS} more")
        return "\n".join(lines)
