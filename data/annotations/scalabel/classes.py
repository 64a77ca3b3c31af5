"""The classes of Scalabel files: those of config.categories, or BDD100K's, whose files have further names for them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from data.annotations.categories import BDD100K_IGNORED, BDD100K_NAMES, KNOWN
from data.annotations.coco.checks import is_id
from data.errors import Fault
from data.tables import Category
from data.text import is_text

_LISTED = 20


def classes_of(config: Any, where: str) -> tuple[list[Category], list[Fault]]:
    """The classes of a file's config, numbered from 1 as in Scalabel, and its faults.

    Categories are names, or objects with a name and possibly `subcategories`; the innermost are the classes. If each
    has a whole number as `id`, as in files that we write, these are the ids. Without config the classes are BDD100K's.
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
    if not all(map(is_id, ids)) or len(set(ids)) != len(ids):
        ids = list(range(1, len(names) + 1))
    return [Category(id, name) for id, name in zip(ids, names, strict=True)], faults


def resolve(name: str, ids: Mapping[str, int]) -> tuple[int | None, bool, str]:
    """The class of a label's category.

    Returns:
        The class id (None if unknown), whether the label is a region to ignore, and the expected classes, the nearest
        name first.
    """
    if name in ids:
        return ids[name], False, ""
    for table, to_ignore in ((BDD100K_NAMES, False), (BDD100K_IGNORED, True)):
        if table.get(name) in ids:
            return ids[table[name]], to_ignore, ""
    near = difflib.get_close_matches(name, ids, n=1)
    hint = f"{near[0]!r}, the nearest, or another" if near else "one"
    return None, False, f"{hint} of {', '.join(list(ids)[:_LISTED])}{', ...' * (len(ids) > _LISTED)}"
