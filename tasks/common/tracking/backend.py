"""What a tracker's module offers, and which packages it needs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tasks.common.tracking.journal import Event


class Needs(NamedTuple):
    """The package that a tracker imports, and the extra of points2model that brings it; None: no package."""

    package: str | None
    extra: str | None


TRACKERS = {
    "mlflow": Needs("mlflow", "mlflow"),
    "tensorboard": Needs("tensorboard", "tensorboard"),
    "wandb": Needs("wandb", "wandb"),
    "dvc": Needs(None, None),
}


@dataclass(frozen=True)
class Target:
    """A run, and where a tracker shows it.

    Attributes:
        run: its id.
        to, project, registered_model: see TrackerConfig; `project` is never null.
        folder: of the tracker's files, if `to` is null.
        root: the project's folder.
    """

    run: str
    to: str | None
    project: str
    registered_model: str | None
    folder: Path
    root: Path

    @property
    def name(self) -> str:
        """How people find the run: the project's folder and when it began."""
        day, time = self.run.split("-")[:2]
        return f"{self.root.name} {day[:4]}-{day[4:6]}-{day[6:]} {time[:2]}:{time[2:4]}:{time[4:]}"


class Backend(Protocol):
    """A tracker, for one run.

    `live`: it gets events while a stage runs; else when a stage ends.
    """

    live: bool

    def __init__(self, target: Target, state: dict[str, Any]) -> None:
        """`state` is kept for the run's next backend; may be changed in place."""
        ...

    def send(self, events: Sequence[Event], before: Sequence[Event]) -> None:
        """Sends events; those `before` were sent. What is sent twice, since a kill came between, is shown once."""
        ...

    def close(self) -> None:
        """Writes what is buffered."""
        ...


UNREACHABLE = re.compile(
    r"connection refused|timed out|name or service not known|temporary failure in name resolution|no route to host|"
    r"network is unreachable",
    re.IGNORECASE,
)


LOGIN = re.compile(r"//[^/\s]*@")
"""Of an address; a password may have an @."""


class UnusableError(Exception):
    """Trying again is of no use; the text says what to do."""


def cause(error: Exception) -> str:
    """An error in a line, without secrets: those of addresses, and values of variables that are named like one."""
    if (unreachable := UNREACHABLE.search(str(error))) is not None:
        return f"can't be reached ({unreachable[0].lower()})"
    lines = str(error).strip().splitlines() or [""]
    text = LOGIN.sub("//", lines[0])
    text = re.sub(r"([?&]\w+=)[^&\s'\")]*", r"\1...", text)
    for name, value in os.environ.items():
        if len(value) >= 4 and re.search(r"TOKEN|PASSWORD|SECRET|KEY|LOGIN|AUTH|USERNAME", name.upper()):
            text = text.replace(value, "...")
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def shown_address(address: str) -> str:
    """Without login and query."""
    return LOGIN.sub("//", address).partition("?")[0]
