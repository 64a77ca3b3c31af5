"""YAML without ambiguity: no duplicate keys, no recursive aliases, no aliases that expand without limit.

Numbers are those of YAML 1.2, as DVC reads them: `1e-4` is a number, `1:30` is text and not 90. Values that YAML 1.1
and DVC read differently are refused unless they are quoted: `010`, which is 8 or 10; `yes`, `no`, `on` and `off`, which
are booleans or text. Dates are text. Tags of types that JSON doesn't have are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from data.storage import open_regular

MERGE = re.compile(r"^(<<<<<<< |>>>>>>> )", re.MULTILINE)
MAX_BYTES = 2**20
MAX_DEPTH = 50
MAX_NODES = 100_000
"""Values; those of an alias count at each use."""


class YamlError(ValueError):
    """Not a valid document; the message says where and why, in one line."""


def _error(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


class _Loader(yaml.SafeLoader):
    """Checks while it parses, before anything is expanded. `duplicates`: duplicate keys, each with its lines."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []
        self._sizes: dict[int, int] = {}  # of whole nodes, by id
        self._path: list[str] = []
        self._nodes = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            target = self.anchors.get(event.anchor)
            if target is not None and id(target) not in self._sizes:
                raise _error(f"alias *{event.anchor} contains itself", event)
            self._count(self._sizes.get(id(target), 1), event)
            return super().compose_node(parent, index)
        before = self._nodes
        self._count(1, event)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _error(f"more than {MAX_DEPTH} levels", event)
        named = isinstance(parent, yaml.MappingNode) and isinstance(index, yaml.ScalarNode)
        self._path += [index.value] if named else []
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.MappingNode):
            self._find_duplicates(node)
        del self._path[len(self._path) - named :]
        self._depth -= 1
        self._sizes[id(node)] = self._nodes - before
        return node

    def _count(self, more: int, event: yaml.Event) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            raise _error(f"more than {MAX_NODES:,} values, those of an alias counted at each use", event)

    def _find_duplicates(self, node: yaml.MappingNode) -> None:
        """Keys are compared by value: 1, 0x1 and 1.0 are one key."""
        found: dict[Any, list[yaml.ScalarNode]] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                is_merge = key.tag == f"{_TAG}merge"
                found.setdefault(key.tag if is_merge else self.construct_object(key), []).append(key)
        for keys in found.values():
            if len(keys) > 1:
                path = ".".join([*self._path, " and ".join(dict.fromkeys(key.value for key in keys))])
                lines = ", ".join(str(key.start_mark.line + 1) for key in keys)
                self.duplicates.append(f"{path}: found {len(keys)} times, in lines {lines}")


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    digits = node.value.replace("_", "")
    if re.fullmatch(r"[-+]?0[0-9]+", digits):
        raise _error(
            f"{node.value} is octal for some parsers; write it without the leading 0, or in quotes", node
        )
    try:
        return int(digits, 0)
    except ValueError:
        raise yaml.MarkedYAMLError(
            problem="not a whole number, or too long", problem_mark=node.start_mark
        ) from None


def _bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    if node.value.lower() in ("true", "false"):
        return bool(node.value.lower() == "true")
    raise _error(
        f"{node.value} is a boolean for some parsers, text for others; write true or false, or put it in quotes",
        node,
    )


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if not text.isascii() and any("\ud800" <= one <= "\udfff" for one in text):
        raise _error("a lone surrogate in a text", node)
    return text


_TAG = "tag:yaml.org,2002:"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag.removeprefix(_TAG) not in ("int", "float", "timestamp")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    f"{_TAG}int",
    re.compile(r"^(?:[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)$", re.ASCII),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(
        r"^(?:[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        re.ASCII,
    ),
    list("-+.0123456789"),
)
_Loader.yaml_constructors = {
    tag: made
    for tag, made in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in ("null", "float", "seq", "map")
}
_Loader.add_constructor(f"{_TAG}bool", _bool)
_Loader.add_constructor(f"{_TAG}int", _int)
_Loader.add_constructor(f"{_TAG}str", _text)


def parse(text: str, *, duplicates: list[str] | None = None) -> Any:
    """The content of one document; None if it is empty.

    Args:
        text: YAML.
        duplicates: a list to which duplicate keys are added, as `a.b: found 2 times, in lines 3, 9`. None: they are an
            error.

    Raises:
        YamlError: not YAML, or against one of the rules of this module.
    """
    found: list[str] = []
    if (merge := MERGE.search(text)) is not None:
        line = text.count("\n", 0, merge.start()) + 1
        raise YamlError(f"line {line}: marks of a merge that isn't resolved; take one side")
    try:
        loader = _Loader(text)
        try:
            content = loader.get_single_data()
            found = loader.duplicates
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        # If an error has two places, the second is the faulty one. PyYAML's own message has six lines.
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        why = " ".join(filter(None, (error.context, error.problem)))
        hint = "; indent with spaces, not tabs" if "'\\t'" in why else ""
        raise YamlError(f"{where}{why}{hint}") from None
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise YamlError(" ".join(str(error).split()) or type(error).__name__) from None
    if duplicates is not None:
        duplicates += found
    elif found:
        raise YamlError("; ".join(found))
    return content


def read(path: Path, *, duplicates: list[str] | None = None, max_bytes: int = MAX_BYTES) -> Any:
    """The content of a file; see `parse`.

    Raises:
        OSError: the file can't be read.
        YamlError: see `read_text` and `parse`.
    """
    return parse(read_text(path, max_bytes=max_bytes), duplicates=duplicates)


def read_text(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file.

    Raises:
        OSError: the file can't be read.
        YamlError: larger than `max_bytes`, or not UTF-8.
    """
    with open_regular(path) as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise YamlError(f"more than {max_bytes:,} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(f"not UTF-8 (byte {error.start}); save it as UTF-8") from None
