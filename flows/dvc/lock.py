"""Reads dvc.lock, DVC's record of the finished stages.

DVC writes it, so the rules for files that people write (data/strict_yaml.py) don't apply: it may be large, is read by
libyaml, and is read again only when it changes. Scalars are those of YAML 1.2, as DVC reads them; dates are texts.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from data import strict_yaml
from flows.dvc.repo import PipelineError
from tasks.common.project_files import LOCK_BYTES

Manifest = dict[str, Any]
"""The entry of a finished stage in dvc.lock: {"stage", "cmd", "deps", "params", "outs"}."""
LOCK = "dvc.lock"
MAX_EXPANDED = 1_000_000
"""Limit of values, with those of aliases counted at each use; for a longer file, its number of characters."""
_NEXT = f"restore it with `git checkout {LOCK}`, or remove it: finished stages come back from DVC's run-cache"
_TICK_NS = 10**8
"""A younger file may change again within the same tick of the file system's clock."""
_read: dict[Path, tuple[tuple[int, ...], dict[str, Any]]] = {}


class TornError(PipelineError):
    """The text is cut off, or isn't YAML."""


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """libyaml's loader if PyYAML has it; it refuses more than 1000 levels."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (as in PyYAML, whose own are of YAML 1.1)


for _tag, _form, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)"
        r"|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$", re.ASCII), _first)


def read_lock(root: Path) -> dict[str, Any]:
    """The content of dvc.lock in the project at `root`, empty if there is none. The caller must not change it.

    Raises:
        PipelineError: it can't be used. TornError: it is half-written.
    """
    path = (root / LOCK).resolve()
    try:
        s = path.stat()
        stat = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        if path in _read and _read[path][0] == stat:
            return _read[path][1]
        text = strict_yaml.read_text(path, max_bytes=LOCK_BYTES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PipelineError(f"{LOCK}: can't be read ({error}); {_NEXT}") from None
    content = parse_lock(text)
    if time.time_ns() - s.st_mtime_ns > _TICK_NS:
        _read[path] = stat, content
    return content


def parse_lock(text: str) -> dict[str, Any]:
    """The content of a dvc.lock; an empty text gives an empty dict.

    Raises:
        PipelineError: it can't be used. TornError: it is half-written.
    """
    if strict_yaml.MERGE.search(text) is not None:
        raise PipelineError(f"{LOCK}: marks of a merge that isn't resolved; take one side")
    try:
        loader = _Loader(text)
        try:
            try:
                node = loader.get_single_node()
            except yaml.YAMLError as error:
                raise TornError(f"{LOCK}: not YAML ({' '.join(str(error).split())}); {_NEXT}") from None
            if node is not None:
                _expanded(node, {}, max(MAX_EXPANDED, len(text)))
            content: Any = {} if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        raise PipelineError(f"{LOCK}: not usable as YAML ({error}); {_NEXT}") from None
    if content is None or content == {}:
        return {}
    try:
        COMPILED_LOCKFILE_SCHEMA(content)
    except (Invalid, RecursionError) as error:
        # If DVC was killed, the file ends within a line, or with a key.
        torn = not text.endswith("\n") or text.rstrip().endswith(":")
        kind = TornError if torn else PipelineError
        raise kind(f"{LOCK}: not as DVC writes it ({error}); {_NEXT}") from None
    return dict(content)


def read_manifest(root: Path, name: str) -> Manifest | None:
    """The entry of a stage in dvc.lock, None if it has none. Safe from any thread, since it only reads a file.

    Raises:
        PipelineError: dvc.lock can't be used.
    """
    entry = read_lock(root).get("stages", {}).get(name)
    if entry is None:
        return None
    return {
        "stage": name,
        "cmd": entry["cmd"],
        "deps": {dep["path"]: dep.get("md5") for dep in entry.get("deps", [])},
        "params": entry.get("params", {}),
        "outs": {out["path"]: out.get("md5") for out in entry.get("outs", [])},
    }


def _expanded(node: yaml.Node, sizes: dict[int, int], limit: int) -> int:
    """The number of values of a node, with those of aliases counted at each use.

    Raises:
        ValueError: there are too many, an alias contains itself, or a key is repeated.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1
    line = node.start_mark.line + 1
    if (known := sizes.get(id(node))) is not None:
        if known == 0:
            raise ValueError(f"line {line}: an alias that contains itself")
        return known
    sizes[id(node)] = 0
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"below line {line}: key {repeated!r} found more than once")
        parts = [part for pair in node.value for part in pair]
    else:
        parts = node.value
    size = 1 + sum(_expanded(part, sizes, limit) for part in parts)
    if size > limit:
        raise ValueError(f"line {line}: aliases that expand to more than {limit:,} values")
    sizes[id(node)] = size
    return size
