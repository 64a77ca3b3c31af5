"""Faults in data: each says where, what was found, what was expected and what to do next."""

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
    """Every fault that was found, not only the first one.

    The message shows at most ``SHOWN_FAULTS`` of them; ``faults`` holds all.
    """

    passing = False
    """Whether the same may go well a little later, nothing being mended."""
    has_lines = True
    """The text may have several lines, in logs too."""

    def __init__(self, faults: Fault | Iterable[Fault] | str) -> None:
        # torch hands on a loader process's exception as TYPE(message): that text is all that is left of it.
        self._told = faults if isinstance(faults, str) else None
        self.faults: list[Fault] = (
            [] if isinstance(faults, str) else [faults] if isinstance(faults, Fault) else list(faults)
        )
        super().__init__(faults if isinstance(faults, str) else self.faults)

    def __str__(self) -> str:
        if self._told is not None:
            return plain(self._told, lines=True)
        if len(self.faults) == 1:
            return str(self.faults[0])
        lines = [f"{len(self.faults)} faults:"]
        lines += [f"  {fault}" for fault in self.faults[:SHOWN_FAULTS]]
        if len(self.faults) > SHOWN_FAULTS:
            lines.append(f"  and {len(self.faults) - SHOWN_FAULTS} more")
        return "\n".join(lines)
