"""What pydantic finds wrong with params, in words."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import BaseModel

from tasks.common.config.inputs import FACTOR_KINDS


def explain(detail: Any, root: type[BaseModel], section: str) -> str:
    """One pydantic error as a sentence: key, found, expected, nearest right key."""
    location = [str(part) for part in detail["loc"] if part not in FACTOR_KINDS]
    key = ".".join([section] * bool(section) + location)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(root, location)
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{key}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{key}: missing; every value that changes a result must stand in the file"
    if detail["type"] == "value_error":  # ours: the text says what was found
        return f"{key}: {detail['msg'].removeprefix('Value error, ')}"
    found = repr(detail["input"])
    return f"{key}: {detail['msg']}; found {found if len(found) <= 100 else found[:100] + '...'}"


def _known_keys(root: type[BaseModel], location: list[str]) -> list[str]:
    """The keys that the section at `location` (its last part being the unknown key) may have."""
    model: Any = root
    for part in location[:-1]:
        kind = model.model_fields[part].annotation
        # Of a section that may be null the section.
        model = next((one for one in get_args(kind) if hasattr(one, "model_fields")), kind)
    return list(model.model_fields)
