"""The ledger of arrivals: the decision on each file of the inbox, by name and content.

Each arrival is a file of its own in a folder that git tracks, so that a colleague's clone has the decisions too, and
merges don't conflict.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from data.storage import atomic_write
from tasks.common.errors import TaskError

ARRIVALS = Path("arrivals")
"""Below the project's root."""

State = Literal["taken", "same", "rejected"]


@dataclass(frozen=True)
class Arrival:
    """A decision on one file.

    Attributes:
        name: relative to the inbox, and to `points.files` once the file is taken in.
        sha256: of its content, hex.
        etag: of an object in S3, which identifies it without a download; None for local files.
        state: `taken` in; `same`: it has the content of another file; or `rejected`.
        reason: why it was rejected, the file with the same content, or the version of the file that it replaced; "" for
            none.
        points: usable points in it, imported alone.
        inbox: as in params.yaml.
        when: UTC, ISO 8601.
    """

    name: str
    sha256: str
    etag: str | None
    state: State
    reason: str
    points: int
    inbox: str
    when: str

    def __str__(self) -> str:
        points = f"{self.points} point" + ("" if self.points == 1 else "s")
        what = {"taken": f"taken in, {points}", "same": "nothing new", "rejected": "rejected"}
        return f"{self.name}: {what[self.state]}" + (f": {self.reason}" if self.reason else "")


class Ledger:
    """The arrivals of a project, also those from colleagues' clones; read once, at the start."""

    def __init__(self, root: Path) -> None:
        """
        Raises:
            TaskError: entries that aren't valid; all are listed.
        """
        self.folder = root / ARRIVALS
        self.arrivals = sorted(_read(self.folder), key=lambda one: one.when)
        self._by_content = {(one.name, one.sha256): one for one in self.arrivals}
        self._by_etag = {(one.name, one.etag): one for one in self.arrivals if one.etag is not None}

    def find(self, name: str, *, sha256: str | None = None, etag: str | None = None) -> Arrival | None:
        """The decision on this content under this name; None if there is none yet."""
        found = self._by_etag.get((name, etag)) if etag is not None else None
        return found or (self._by_content.get((name, sha256)) if sha256 is not None else None)

    def last_taken(self, name: str) -> Arrival | None:
        """The version of a file that was taken in last."""
        taken = [one for one in self.arrivals if one.name == name and one.state == "taken"]
        return taken[-1] if taken else None

    def moment(self) -> str:
        """The time for a new entry. It is after the last entry even if the clock was set back, since the order of the
        entries decides which version of a file is the newest."""
        last = datetime.fromisoformat(self.arrivals[-1].when) if self.arrivals else None
        moment = datetime.now(UTC)
        if last is not None and last >= moment:
            moment = last + timedelta(milliseconds=1)
        return moment.isoformat(timespec="milliseconds")

    def add(self, arrival: Arrival) -> Path:
        """Writes a decision; returns the file."""
        self.arrivals.append(arrival)
        self._by_content[arrival.name, arrival.sha256] = arrival
        if arrival.etag is not None:
            self._by_etag[arrival.name, arrival.etag] = arrival
        moment = datetime.fromisoformat(arrival.when)
        key = hashlib.sha256(f"{arrival.name}\0{arrival.sha256}".encode()).hexdigest()[:12]
        path = self.folder / f"{moment:%Y-%m}" / f"{moment:%Y%m%dT%H%M%SZ}-{key}.json"
        with atomic_write(path) as partial:
            partial.write_text(
                json.dumps(asdict(arrival), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        return path


def now() -> str:
    """The present time in the format of entries."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _read(folder: Path) -> Iterable[Arrival]:
    faults = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            arrival = Arrival(**content)
            texts = (arrival.name, arrival.sha256, arrival.state, arrival.when)
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("a value of another type")
            if datetime.fromisoformat(arrival.when).tzinfo is None:
                raise ValueError(f"when: {arrival.when} without a time zone")
            yield arrival
        except (ValueError, TypeError, RecursionError) as error:
            faults.append(f"{path}: found {error}; expected an arrival as `points2model run` writes it")
    if faults:
        step = "restore it with git, or remove it: that file is then checked again"
        raise TaskError("\n".join(f"{fault}. Next: {step}." for fault in faults))
