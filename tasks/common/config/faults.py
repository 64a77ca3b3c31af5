"""Faults of params, made from errors of pydantic: key, what was found, what was expected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

LISTED_KEYS = 8
"""A section with more keys isn't described by them."""


class ParamFault(NamedTuple):
    """A fault of one key."""

    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.key}: found {self.found}; expected {self.expected}"


def distinct(faults: Iterable[ParamFault]) -> list[ParamFault]:
    """The faults without those that repeat another one.

    A value may be validated by two models, and as a number and as a list; a fault of the list's entry is more exact."""
    first = {(fault.key, fault.found): fault for fault in reversed([*faults])}
    keys = {fault.key for fault in first.values()}
    return [one for one in reversed(first.values()) if not any(key.startswith(f"{one.key}.") for key in keys)]


def explain(detail: Any, root: type[BaseModel], section: str = "") -> ParamFault:
    """One of pydantic's errors."""
    kind: Any = root
    keys = [section] * bool(section)
    for part in detail["loc"]:
        inner = _inside(kind, part)
        if inner is not None:
            outer, kind = kind, inner
            keys.append(str(part))
        elif part == "[key]":
            kind = next(get_args(one)[0] for one in _options(outer) if get_origin(one) is dict)
    if detail["type"] == "extra_forbidden":
        last = str(detail["loc"][-1])
        known = _keys(kind)
        near = difflib.get_close_matches(last, known, n=1, cutoff=0.5)
        expected = f"{near[0]}, the nearest key" if near else f"one of {', '.join(sorted(known))}"
        return ParamFault(".".join([*keys, last]), "an unknown key", expected)
    key = ".".join(keys)
    if detail["type"] == "missing":
        return ParamFault(key, "no value", describe(kind))
    if "max_length" in detail.get("ctx", {}):
        kind_of = "characters" if isinstance(detail["input"], str) else "entries"
        found, most = len(detail["input"]), detail["ctx"]["max_length"]
        return ParamFault(key, f"{found} {kind_of}", f"at most {most}")
    if detail["type"] == "value_error":
        return _own(key, kind, str(detail["ctx"]["error"]))
    return ParamFault(key, _shown(detail["input"]), describe(kind))


def _own(key: str, kind: Any, text: str) -> ParamFault:
    """The fault of one of our validators: `found X; expected Y`, after `KEY: ` in validators of a section."""
    named, colon, rest = text.partition(": ")
    if colon and named in _keys(kind):
        key, text = ".".join(filter(None, [key, named])), rest
    found, _, expected = re.sub(r"[;,] expected ", "\0", text.removeprefix("found "), count=1).partition("\0")
    return ParamFault(key, found, expected or describe(kind))


def describe(kind: Any) -> str:
    """The values that a field or an annotation allows."""
    plain, bounds = _plain(kind)
    if get_origin(plain) in (Union, UnionType):
        return ", or ".join(map(describe, get_args(plain)))
    if get_origin(plain) is Literal:
        *others, last = get_args(plain)
        return " or ".join(filter(None, [", ".join(others), last]))
    if get_origin(plain) is tuple:
        entry, *more = get_args(plain)
        size = "" if more == [...] else f" of {1 + len(more)}"
        return f"a list{size}, each entry {describe(entry)}"
    keys = _keys(plain)
    section = f"keys {', '.join(keys)}" if 0 < len(keys) <= LISTED_KEYS else "a section of keys and values"
    names = {
        int: f"a whole number{_range(bounds)}",
        float: f"a number{_range(bounds)}",
        str: "a text",
        bool: "true or false",
        NoneType: "null",
    }
    return names.get(plain, section)


def _range(bounds: Sequence[Any]) -> str:
    """` from 0 to 1`, ` above 0 and at most 10`."""
    last = {type(one): one for one in bounds}  # a later bound of the same kind is the narrower one
    text = ""
    if Ge in last:
        text += f" from {last[Ge].ge:.10g}"
    if Gt in last:
        text += f" above {last[Gt].gt:.10g}"
    if Le in last:
        text += f" {'to' if Ge in last else 'and at most'} {last[Le].le:.10g}"
    if Lt in last:
        text += f" and below {last[Lt].lt:.10g}"
    return text + (f", a multiple of {last[MultipleOf].multiple_of}" if MultipleOf in last else "")


def _shown(value: Any) -> str:
    """As it is written in YAML, cut where it is long."""
    if value is None or isinstance(value, bool):
        return str({None: "null", True: "true", False: "false"}[value])
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _plain(kind: Any) -> tuple[Any, list[Any]]:
    """The type of a field or an annotation, and its bounds."""
    if isinstance(kind, FieldInfo):
        return kind.annotation, kind.metadata
    if get_origin(kind) is Annotated:
        plain, *metadata = get_args(kind)
        return plain, [
            bound for one in metadata for bound in (one.metadata if isinstance(one, FieldInfo) else [one])
        ]
    return kind, []


def _options(kind: Any) -> list[Any]:
    """The types of a union; else the one type."""
    plain, _ = _plain(kind)
    is_union = get_origin(plain) in (Union, UnionType)
    return [one for option in get_args(plain) for one in _options(option)] if is_union else [plain]


def _keys(kind: Any) -> list[str]:
    """The keys of the section that `kind` is or may be."""
    return [key for option in _options(kind) for key in getattr(option, "model_fields", ())]


def _inside(kind: Any, part: str | int) -> Any:
    """The field, or the annotation, of an entry of `kind`; None if it has no such entry."""
    for option in _options(kind):
        fields = getattr(option, "model_fields", {})
        if part in fields:
            return fields[part]
        entries = get_args(option)
        if get_origin(option) is tuple and isinstance(part, int):
            return entries[0] if entries[-1] is ... else entries[part]
        if get_origin(option) is dict and part != "[key]":
            return entries[1]
    return None
