"""dvc.lock, read: what DVC wrote of the stages that are done.

DVC writes it, so it isn't held to the rules of the files that people write (data/strict_yaml.py): it may be large, and
is read by libyaml, once until it changes. Scalars are those of YAML 1.2, as DVC reads them; dates are texts.
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
"""What dvc.lock says of a finished stage: {"stage", "cmd", "deps", "params", "outs"}."""
LOCK = "dvc.lock"
MAX_EXPANDED = 1_000_000
"""Values, those of aliases counted wherever they are used; a file of more characters may have as many values."""
_NEXT = f"bring it back with `git checkout {LOCK}`, or remove it: what is done comes back from DVC's cache of runs"
_SETTLED_NS = 10**8
"""A file changed less long ago may change again within the same tick of the file system's clock."""
_read: dict[Path, tuple[tuple[int, ...], dict[str, Any]]] = {}


class TornError(PipelineError):
    """The text ends in the middle, or is no YAML at all."""


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """libyaml's where PyYAML has it, which itself refuses more than 1000 levels."""

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
    """The content of dvc.lock in the project at `root`, empty where there is none. It is shared: not to be changed.

    Raises:
        PipelineError: it can't be used. TornError: it is half-written.
    """
    path = (root / LOCK).resolve()
    try:
        s = path.stat()
        seen = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        if path in _read and _read[path][0] == seen:
            return _read[path][1]
        text = strict_yaml.read_text(path, max_bytes=LOCK_BYTES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PipelineError(f"{LOCK}: can't be read ({error}); {_NEXT}") from None
    content = parse_lock(text)
    if time.time_ns() - s.st_mtime_ns > _SETTLED_NS:
        _read[path] = seen, content
    return content


def parse_lock(text: str) -> dict[str, Any]:
    """The content of a dvc.lock, empty of an empty one.

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
                raise TornError(f"{LOCK}: no YAML ({' '.join(str(error).split())}); {_NEXT}") from None
            if node is not None:
                _expanded(node, {}, max(MAX_EXPANDED, len(text)))
            content: Any = {} if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
        raise PipelineError(f"{LOCK}: no YAML that can be used ({error}); {_NEXT}") from None
    if content is None or content == {}:
        return {}
    try:
        COMPILED_LOCKFILE_SCHEMA(content)
    except (Invalid, RecursionError) as error:
        # Where DVC is killed, it ends within a line, or with a key.
        torn = not text.endswith("\n") or text.rstrip().endswith(":")
        kind = TornError if torn else PipelineError
        raise kind(f"{LOCK}: not as DVC writes it ({error}); {_NEXT}") from None
    return dict(content)


def read_manifest(root: Path, name: str) -> Manifest | None:
    """What dvc.lock says of the stage, None where it isn't in there. Plain YAML: safe from any thread.

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
    """How many values it stands for, those of aliases counted wherever they are used.

    Raises:
        ValueError: too many, an alias that holds itself, or a key that stands twice.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1
    line = node.start_mark.line + 1
    if (known := sizes.get(id(node))) is not None:
        if known == 0:
            raise ValueError(f"line {line}: an alias that holds itself")
        return known
    sizes[id(node)] = 0
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"below line {line}: key {twice!r} found more than once")
        parts = [part for pair in node.value for part in pair]
    else:
        parts = node.value
    size = 1 + sum(_expanded(part, sizes, limit) for part in parts)
    if size > limit:
        raise ValueError(f"line {line}: aliases that expand to more than {limit:,} values")
    sizes[id(node)] = size
    return size
