"""A decision, and its JSON on one line of a reviewer's file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import numpy as np

from data.annotations.strict_json import duplicate_fault, is_number, parse_json, to_json
from data.errors import DataError, Fault
from data.masks.rle import area, check_rle, runs_of_many
from data.points.values import shown
from data.text import TEXT, is_text

Action = Literal["accept", "reject", "mask", "class", "clicks", "add", "complete", "undo"]

_ALL = ("id", "time", "reviewer", "action")
_OBJECT = (*_ALL, "image", "object")
FIELDS: dict[Action, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "accept": ((*_OBJECT, "mask"), ("audit", "imported")),
    "reject": (_OBJECT, ("audit", "imported")),
    "mask": ((*_OBJECT, "mask", "source"), ("audit", "imported")),
    "class": ((*_OBJECT, "category"), ("audit", "imported")),
    "clicks": ((*_OBJECT, "point", "further"), ("audit",)),
    "add": ((*_OBJECT, "category"), ("point", "further", "mask", "source", "imported")),
    "complete": ((*_ALL, "image"), ()),
    "undo": ((*_ALL, "undoes"), ()),
}
"""The fields that each action needs, and those that it may have."""
MAX_SIDE = 2**20
AT_ONCE = 2000
"""Lines whose masks are checked together."""
SOURCES = ("click", "polygon", "brush")
"""How a person drew a mask."""
STEP = "correct or remove this line; `git log -p` shows what it was"
REVIEWER = re.compile(r"[a-z0-9]([a-z0-9._@+-]{0,62}[a-z0-9])?", re.ASCII)
REVIEWER_FORM = (
    "a name of 1 to 64 lower-case letters, digits and . _ @ + -, with a letter or digit at both ends"
)
NEWER = "; a newer version of points2model may have more"
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.ASCII)
"""Names that Windows gives to devices."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class Mask(NamedTuple):
    """A mask that isn't empty, as COCO's compressed RLE."""

    height: int
    width: int
    counts: bytes


class Click(NamedTuple):
    """A further click on an object, in pixels of the image; not `inside`: the place isn't the object."""

    x: float
    y: float
    inside: bool


@dataclass(frozen=True)
class Decision:
    """What a reviewer decided; `FIELDS` has the fields of each action.

    Attributes:
        id: unique among all decisions.
        time: UTC, ISO 8601 with milliseconds.
        reviewer: also the name of the file.
        action: see docs/decisions.md.
        image: its file_name, as ingest has it.
        object: a point's id, or the id of an added object.
        mask: the mask that was accepted or drawn.
        source: how it was drawn, one of `SOURCES`.
        category: the name of a class.
        point: x, y of the object's main click, in pixels of the image.
        further: all further clicks of the object.
        undoes: the id of an earlier decision of the same reviewer.
        audit: the id of the random sample for which it was made (tasks/review/audit.py).
        imported: a hash of the file from which it was imported (tasks/review/imports.py).
    """

    id: str
    time: str
    reviewer: str
    action: Action
    image: str | None = None
    object: str | None = None
    mask: Mask | None = None
    source: str | None = None
    category: str | None = None
    point: tuple[float, float] | None = None
    further: tuple[Click, ...] | None = None
    undoes: str | None = None
    audit: str | None = None
    imported: str | None = None

    @property
    def moment(self) -> datetime:
        """`time`, to compare."""
        return datetime.fromisoformat(self.time)

    def to_line(self) -> str:
        """The JSON, without a line break."""
        row: dict[str, Any] = {
            name: value
            for name in (
                "id",
                "time",
                "reviewer",
                "action",
                "image",
                "object",
                "source",
                "category",
                "undoes",
                "audit",
                "imported",
            )
            if (value := getattr(self, name)) is not None
        }
        if self.mask is not None:
            height, width, counts = self.mask
            row["mask"] = {"size": [height, width], "counts": counts.decode("ascii")}
        if self.point is not None:
            row["point"] = list(self.point)
        if self.further is not None:
            row["further"] = [click._asdict() for click in self.further]
        return to_json(row)


def now() -> str:
    """The present time in the form of `Decision.time`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def check_reviewer(name: str) -> None:
    """
    Raises:
        DataError: a name that can't be a file's on every system.
    """
    if not (REVIEWER.fullmatch(name) and not _RESERVED.fullmatch(name)):
        raise DataError(
            Fault("review", "reviewer", shown(name), REVIEWER_FORM, "choose another name, e.g. anna")
        )


class _BadValue(Exception):
    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found)
        self.found, self.expected = found, expected


def parse_line(line: bytes, file: str, record: str, reviewer: str) -> Decision:
    """The decision on a line of a reviewer's file.

    Raises:
        DataError: all faults of the line.
    """
    return _decision(*_json(line, file, record), file, record, reviewer, frozenset())


def parse_lines(
    lines: Iterable[tuple[int, bytes]], file: str, reviewer: str
) -> Iterator[tuple[int, Decision | DataError]]:
    """The decision on each line, or all faults of it; with the line's number. Masks are checked many at a time.

    Args:
        lines: number and content; blank ones are left out.
    """
    written = [(number, line) for number, line in lines if line.strip()]
    for at in range(0, len(written), AT_ONCE):
        rows: list[tuple[int, Any]] = []
        for number, line in written[at : at + AT_ONCE]:
            try:
                rows.append((number, _json(line, file, f"line {number}")))
            except DataError as error:
                rows.append((number, error))
        found = [row[0] for _, row in rows if isinstance(row, tuple)]
        good = _good_masks(row.get("mask") for row in found if isinstance(row, dict))
        for number, row in rows:
            try:
                if isinstance(row, DataError):
                    raise row
                value, duplicates = row
                yield number, _decision(value, duplicates, file, f"line {number}", reviewer, good)
            except DataError as error:
                yield number, error


def _good_masks(values: Iterable[Any]) -> frozenset[tuple[int, int, bytes]]:
    """Of masks as JSON has them, those that are known to be right and not empty; the others are looked at singly."""
    codes: dict[tuple[int, int, bytes], None] = {}
    for value in values:
        try:
            (height, width), counts = value["size"], value["counts"].encode("ascii")
            if (
                type(height) is int
                and type(width) is int
                and 0 < height <= MAX_SIDE
                and 0 < width <= MAX_SIDE
            ):
                codes[height, width, counts] = None
        except (TypeError, KeyError, ValueError, AttributeError):
            continue
    if not codes:
        return frozenset()
    try:
        lengths, counts_of = runs_of_many([code for *_, code in codes])
    except ValueError:
        return frozenset()
    first = np.cumsum(counts_of) - counts_of
    inside = np.arange(len(lengths)) - np.repeat(first, counts_of)
    whole = np.add.reduceat(lengths, first)
    drawn = np.add.reduceat(np.where(inside % 2 == 1, lengths, 0), first)
    least = np.minimum.reduceat(lengths, first)
    sizes = np.array([height * width for height, width, _ in codes])
    fine = (least >= 0) & (whole == sizes) & (drawn > 0)
    return frozenset(code for code, is_fine in zip(codes, fine.tolist(), strict=True) if is_fine)


def _json(line: bytes, file: str, record: str) -> tuple[Any, list[tuple[str, str]]]:
    try:
        return parse_json(line)
    except ValueError as error:
        found = f"{shown(line.decode('utf-8', 'backslashreplace'))}, not JSON ({error})"
        raise DataError(Fault(file, record, found, "a decision, a JSON object", STEP)) from None


def _decision(
    row: Any, duplicates: list[tuple[str, str]], file: str, record: str, reviewer: str,
    good: frozenset[tuple[int, int, bytes]],
) -> Decision:  # fmt: skip
    def fault(found: str, expected: str) -> Fault:
        return Fault(file, record, found, expected, STEP)

    if not isinstance(row, dict):
        raise DataError(fault(shown(row), "a decision, a JSON object"))
    if duplicates:
        raise DataError([duplicate_fault(file, f"{record}, {place}", keys) for place, keys in duplicates])
    action = row.get("action")
    if not isinstance(action, str) or action not in FIELDS:
        raise DataError(fault(f"action {shown(action)}", f"one of {', '.join(FIELDS)}{NEWER}"))
    faults = [fault(found, expected) for found, expected in _problems(row, action)]
    values: dict[str, Any] = {}
    for name in (one for one in _READ if one in row):
        try:
            values[name] = _mask(row[name], good) if name == "mask" else _READ[name](row[name])
        except _BadValue as bad:
            faults.append(fault(f"{name} {bad.found}", bad.expected))
    if not faults and values["reviewer"] != reviewer:
        faults.append(fault(f"reviewer {values['reviewer']!r}", f"{reviewer!r}, the name of the file"))
    if faults:
        raise DataError(faults)
    return Decision(**values)


def _problems(row: Mapping[str, Any], action: Action) -> Iterator[tuple[str, str]]:
    """What is found and expected, where fields are missing or don't belong to the action."""
    needed, possible = FIELDS[action]
    for name in needed:
        if name not in row:
            yield f"no {name}", f"a decision {action!r} with {', '.join(needed)}"
    for name in row:
        if name not in needed and name not in possible:
            has = ", ".join([*needed, *possible])
            yield f"key {shown(name)}", f"a decision {action!r} with {has}{NEWER}"
    if action != "add":
        return
    if "point" not in row and "mask" not in row:
        yield "neither point nor mask", "where the added object is"
    if ("mask" in row) != ("source" in row):
        yield "one of mask and source", "both or none"
    if "further" in row and "point" not in row:
        yield "further without point", "the main click too"


def _id(value: Any) -> str:
    if not (isinstance(value, str) and _ID.fullmatch(value)):
        raise _BadValue(shown(value), "an id, 1 to 64 letters, digits, _ and -")
    return value


def _time(value: Any) -> str:
    try:
        if isinstance(value, str) and datetime.fromisoformat(value).utcoffset() == timedelta(0):
            return value
    except ValueError:
        pass
    raise _BadValue(shown(value), "a time in UTC, e.g. 2026-06-01T09:30:00.000+00:00")


def _reviewer(value: Any) -> str:
    if not isinstance(value, str):
        raise _BadValue(shown(value), REVIEWER_FORM)
    return value


def _name(value: Any) -> str:
    if not is_text(value) or len(value) > 4096:
        raise _BadValue(shown(value), f"a name, {TEXT}")
    return value


def _mask(value: Any, good: frozenset[tuple[int, int, bytes]] = frozenset()) -> Mask:
    form = 'a mask {"size": [height, width], "counts": compressed RLE}'
    if not (isinstance(value, dict) and value.keys() == {"size", "counts"}):
        raise _BadValue(shown(value), form)
    size, counts = value["size"], value["counts"]
    whole = isinstance(size, list) and all(type(side) is int and 0 < side <= MAX_SIDE for side in size)
    if not whole or len(size) != 2 or not isinstance(counts, str):
        raise _BadValue(shown(value), form)
    height, width = size
    try:
        code = counts.encode("ascii")
        if (height, width, code) in good:
            return Mask(height, width, code)
        check_rle(code, height, width)
    except ValueError as error:  # not ASCII is one too
        raise _BadValue(f"{shown(value)} ({error})", form) from None
    if area(code, height, width) == 0:
        raise _BadValue("without a pixel", "a mask of one pixel or more; `reject` an object that isn't there")
    return Mask(height, width, code)


def _source(value: Any) -> str:
    if value not in SOURCES:
        raise _BadValue(shown(value), f"one of {', '.join(SOURCES)}")
    return str(value)


def _point(value: Any) -> tuple[float, float]:
    if not (isinstance(value, list) and len(value) == 2 and all(map(is_number, value))):
        raise _BadValue(shown(value), "a click [x, y] in pixels")
    return float(value[0]), float(value[1])


def _further(value: Any) -> tuple[Click, ...]:
    form = 'a list of further clicks {"x": pixels, "y": pixels, "inside": true or false}'
    if not isinstance(value, list):
        raise _BadValue(shown(value), form)
    clicks = []
    for one in value:
        if not (isinstance(one, dict) and one.keys() == set(Click._fields) and type(one["inside"]) is bool):
            raise _BadValue(shown(one), form)
        clicks.append(Click(*_point([one["x"], one["y"]]), one["inside"]))
    return tuple(clicks)


_READ: dict[str, Callable[[Any], Any]] = {
    "id": _id, "time": _time, "reviewer": _reviewer, "action": str, "image": _name, "object": _id, "mask": _mask,
    "source": _source, "category": _name, "point": _point, "further": _further, "undoes": _id,
    "audit": _id, "imported": _id,
}  # fmt: skip
