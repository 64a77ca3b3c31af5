"""Files that have shapes or predictions but no point: what is in them, and where it belongs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from data.errors import Fault
from data.points.record import PointRecord

_KINDS = (
    ("prediction", re.compile(r"prediction")),
    ("line", re.compile(r"line")),
    ("box", re.compile(r"box|rect")),
    ("ellipse", re.compile(r"ellips|circle|oval|radius")),
    ("polygon", re.compile(r"poly|freehand|traced|vertices")),
    ("mask", re.compile(r"mask|brush|rle|composite")),
)
"""Kinds of shapes by a word in the description of what was found."""
_PLURALS = {"box": "boxes"}
_MASKS = frozenset({"polygon", "mask", "ellipse"})
MASK_STEP = (
    "masks don't belong among the points: name the file under ingest.strong (`--masks` of `points2model init`); "
    "else export points"
)
BOX_STEP = "export points; boxes and lines are neither points nor masks"
PREDICTION_STEP = "these are predictions, not annotations: submit them in the tool first, then export again"


def counted(kinds: Mapping[str, int]) -> str:
    """Such as `12 polygons, 1 box and no point`."""
    parts = [
        f"{count:,} {kind if count == 1 else _PLURALS.get(kind, f'{kind}s')}" for kind, count in kinds.items()
    ]
    return f"{', '.join(parts)} and no point"


def find_without_points(files: Mapping[str, Sequence[PointRecord]]) -> list[Fault]:
    """One fault for all files of only predictions, one for files with masks, one for files with other shapes.

    Args:
        files: the records of each file, by its name.
    """
    found: dict[str, list[tuple[str, Counter[str]]]] = {}
    for name, records in files.items():
        problems = [record.problem for record in records]
        if records and all(
            one is not None and one.reason in ("not_a_point", "prediction") for one in problems
        ):
            kinds = Counter(_kind(one.found) for one in problems if one is not None)
            found.setdefault(_step(kinds), []).append((name, kinds))
    return [_fault(step, some) for step, some in found.items()]


def _kind(found: str) -> str:
    return next((kind for kind, word in _KINDS if word.search(found.lower())), "shape")


def _step(kinds: Iterable[str]) -> str:
    kinds = set(kinds)
    if kinds == {"prediction"}:
        return PREDICTION_STEP
    return MASK_STEP if kinds & _MASKS else BOX_STEP


def _fault(step: str, some: Sequence[tuple[str, Counter[str]]]) -> Fault:
    total: Counter[str] = Counter()
    for _, kinds in some:
        total += kinds
    file = some[0][0] + (f" and {len(some) - 1:,} more files" if len(some) > 1 else "")
    return Fault(file, "file", counted(dict(total.most_common())), "points", step)
