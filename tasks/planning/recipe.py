"""A plan as a recipe, recipes/plan.yaml of the project: planned values, each with its reason.

params.yaml is that recipe merged with base, and then the values that a person set: those that aren't the former plan's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.common.config import Params, parse_params
from tasks.planning.rules import Planned
from tasks.tools.recipes import OURS, chain_of, equal, leaves, merge, on_one_line, values_of

NAME = "plan"
HEAD = (
    "# Written by `points2model plan` from the images, masks and clicks; it writes this file anew.\n"
    "# Your own values belong into params.yaml, where they stay.\n"
)
HEAD_OF_PARAMS = (
    "# Planned by points2model (recipes/plan.yaml), each value with its reason; values that you set here stay.\n"
    "# Each section's keys are explained in docs/own-data.md and tasks/common/config/.\n"
)
PARAMS = Path("params.yaml")
EXTENDED = f"extends: {NAME}\n"
COMMENT_COLUMN = 46


class Kept(NamedTuple):
    """A person's value."""

    key: str
    value: Any
    planned: Any


class Written(NamedTuple):
    """params.yaml as a plan makes it."""

    text: str
    kept: list[Kept]
    """The values that aren't the former plan's, and stay"""


def recipe_text(planned: Sequence[Planned]) -> str:
    """The text of recipes/plan.yaml."""
    return HEAD + "extends: base\n" + _yaml(planned)


def _yaml(planned: Sequence[Planned]) -> str:
    tree: dict[str, Any] = {}
    for one in planned:
        *sections, key = one.key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = one
    return "".join(_lines(tree, 0))


def _lines(tree: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in tree.items():
        indent = "  " * depth
        if isinstance(value, Planned):
            text = f"{indent}{key}: {on_one_line(value.value)}"
            lines.append(f"{text:<{COMMENT_COLUMN}}  # {value.reason}\n" if value.reason else text + "\n")
        else:
            lines += [f"{indent}{key}:\n", *_lines(value, depth + 1)]
    return lines


def write_params(plan: str, recipe: Path, current: str | None, before: str | None) -> Written:
    """The text of params.yaml for a plan.

    Args:
        plan: its text, see `recipe_text`.
        recipe: the path of the plan, for messages.
        current: the text of params.yaml; None: there is none.
        before: the whole text of the former plan; None: there was none, and each value of `current` is a person's.

    Raises:
        TaskError: a value can't be used.
    """
    chain = [(recipe, plan), *chain_of(OURS / "base.yaml")]
    if current is None:
        return Written(merge([(PARAMS, HEAD_OF_PARAMS + EXTENDED), *chain]), [])
    planned = dict(leaves(values_of(merge(chain), recipe)))
    old = {} if before is None else dict(leaves(values_of(before, recipe)))
    mine = dict(leaves(values_of(current, PARAMS)))
    kept = [
        Kept(key, value, planned.get(key))
        for key, value in mine.items()
        if not equal(key, old, mine) and not equal(key, planned, mine)
    ]
    own = _yaml([Planned(one.key, one.value, f"yours; planned: {one.planned}") for one in kept])
    return Written(merge([(PARAMS, HEAD_OF_PARAMS + EXTENDED + own), *chain]), kept)


def params_of(text: str) -> Params:
    """
    Raises:
        TaskError: the values don't fit each other.
    """
    return parse_params(text, PARAMS)
