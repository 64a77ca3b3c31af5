"""The classes of Scalabel files: those of config.categories, or BDD100K's, whose files use further names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from data.annotations.categories import BDD100K_IGNORED, BDD100K_NAMES, KNOWN
from data.errors import Fault
from data.tables import Category
from data.text import is_text

_LISTED = 20


def classes_of(config: Any, where: str) -> tuple[list[Category], list[Fault]]:
    """The classes of a file's config, numbered from 1 as Scalabel does, and what is wrong with it.

    Categories are names, or objects with a name that may hold further ones (`subcategories`); the innermost are the
    classes. Where each has a whole number as `id`, as in files that we write, that is its id. Without
    config the classes are BDD100K's.
    """
    given = config.get("categories") if isinstance(config, dict) else config
    if given is None or given == []:
        return list(KNOWN["bdd100k"]), []
    names: list[str] = []
    ids: list[Any] = []
    faults = []
    todo: list[Any] = list(reversed(given)) if isinstance(given, list) else [given]
    while todo:
        entry = todo.pop()
        row = {"name": entry} if isinstance(entry, str) else entry
        name = row.get("name") if isinstance(row, dict) else None
        inner = row.get("subcategories") if isinstance(row, dict) else None
        if not is_text(name) or not isinstance(inner, list | None):
            found, expected = (
                repr(entry)[:100],
                "a class: a name that UTF-8 can hold, or {name, subcategories}",
            )
            faults.append(Fault(where, "config.categories", found, expected, "correct it"))
        elif inner:
            todo += reversed(inner)
        elif name in names:
            found = f"class {name!r} twice"
            faults.append(Fault(where, "config.categories", found, "names that differ", "correct it"))
        else:
            names.append(name)
            ids.append(row.get("id"))
    whole = all(
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 for value in ids
    )
    if not whole or len(set(ids)) != len(ids):
        ids = list(range(1, len(names) + 1))
    return [Category(id, name) for id, name in zip(ids, names, strict=True)], faults


def resolve(name: str, ids: Mapping[str, int]) -> tuple[int | None, bool, str]:
    """What a label's category stands for.

    Returns:
        The class id (None where it isn't known), whether the label is a region to ignore, and the classes that were
        expected, the nearest one first.
    """
    if name in ids:
        return ids[name], False, ""
    for table, to_ignore in ((BDD100K_NAMES, False), (BDD100K_IGNORED, True)):
        if table.get(name) in ids:
            return ids[table[name]], to_ignore, ""
    near = difflib.get_close_matches(name, ids, n=1)
    hint = f"{near[0]!r}, the nearest, or another" if near else "one"
    return None, False, f"{hint} of {', '.join(list(ids)[:_LISTED])}{', ...' * (len(ids) > _LISTED)}"
