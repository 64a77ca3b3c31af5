"""What a reviewer decides who agrees with another one on an object."""

from __future__ import annotations

from typing import Any

from data.decisions.record import Action
from data.decisions.words import Word


def to_agree(mine: Word, other: Word) -> list[tuple[Action, dict[str, Any]]]:
    """The decisions, without image and object, after which a reviewer contradicts another one no more; none if they
    agree: class and clicks are given again, the other one's mask is accepted."""
    rows: list[tuple[Action, dict[str, Any]]] = []
    category, clicks, verdict = other.category, other.clicks, other.verdict
    if category is not None and (mine.category is None or mine.category.category != category.category):
        rows.append(("class", {"category": category.category}))
    before = None if mine.clicks is None else (mine.clicks.point, mine.clicks.further or ())
    redrawn = clicks is not None and before != (clicks.point, clicks.further or ())
    if clicks is not None and redrawn:
        rows.append(("clicks", {"point": clicks.point, "further": clicks.further or ()}))
    # New clicks end an earlier verdict, so it comes after them.
    is_reject = verdict is not None and verdict.action == "reject"
    said = None if mine.verdict is None else (mine.verdict.action == "reject", mine.verdict.mask)
    if verdict is not None and (redrawn or said != (is_reject, verdict.mask)):
        rows.append(("reject", {}) if is_reject else ("accept", {"mask": verdict.mask}))
    return rows
