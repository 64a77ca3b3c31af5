"""The classes over which two models are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from data.tables import Category


class Classes(NamedTuple):
    """The classes that the val split and the older model have in common, by name; ids may have changed."""

    common: list[int]
    """indices among the val split's classes, ascending"""
    ids: list[int]
    """the val split's id of each class of the older model; an unused id for a class that the split doesn't have"""
    only_baseline: list[str]
    only_candidate: list[str]


def common_classes(older: Sequence[Category], val: Sequence[Category]) -> Classes:
    """The classes that can be compared.

    Args:
        older: classes of the older model, in its own order.
        val: classes of the val split, and so of the new model, by id.
    """
    names = {category.name: category.id for category in val}
    if len(names) < len(val) or len({category.name for category in older}) < len(older):
        # Names that aren't unique are made so with their ids.
        names = {f"{category.name} {category.id}": category.id for category in val}
        older = [Category(category.id, f"{category.name} {category.id}") for category in older]
    nowhere = min(names.values(), default=0) - 1
    known = {category.name for category in older}
    return Classes(
        [k for k, name in enumerate(names) if name in known],
        [names.get(category.name, nowhere - n) for n, category in enumerate(older)],
        [category.name for category in older if category.name not in names],
        [name for name in names if name not in known],
    )
