"""Faults on which DVC fails with an unclear message: in the project's path, and in files after a merge or of another
version.

They are checked before anything is started, and wherever DVC is opened (flows/dvc/repo.py).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from configobj import ConfigObj, ConfigObjError

from data import strict_yaml
from data.errors import Fault

LOCK_SCHEMA = "2.0"
LOCK_BYTES = 2**26
"""A larger dvc.lock, or other file of these, isn't read."""
CONFIGS = (".dvc/config", ".dvc/config.local")
PARAMS = "params.yaml"
_ALIAS = re.compile(r"[\s\[,{:]\*[^\s\[\]{},]")
_SCHEMA = re.compile(
    r"^schema: *['\"]?([0-9][^'\"\s#]*)['\"]?\s*\n", re.MULTILINE
)  # a whole line: a killed dvc may leave a part of it


def faults(root: Path) -> list[Fault]:
    """Faults of the path of the project at `root` and of files that DVC reads; takes milliseconds."""
    files = ("dvc.yaml", "dvc.lock", *CONFIGS, PARAMS)
    return [*_path(root), *(fault for name in files for fault in _file(root, name))]


def cache_folder(root: Path) -> Path:
    """The folder of DVC's cache, which its configuration may put on another disk."""
    named = None
    for name in CONFIGS:
        try:
            lines = strict_yaml.read_text(root / name, max_bytes=LOCK_BYTES).splitlines()
            named = ConfigObj(lines, interpolation=False).get("cache", {}).get("dir", named)
        except (OSError, ValueError, AttributeError, ConfigObjError):
            continue  # no such file, or one that `faults` reports
    return root / ".dvc" / (named or "cache")


def _path(root: Path) -> Iterator[Fault]:
    path = str(root.resolve())
    if bad := sorted({"{", "}"}.intersection(path)):
        found = f"{' and '.join(map(repr, bad))} in it, on which DVC's progress bars fail"
        yield Fault(path, "path", found, "a folder without them", "rename the folder, or move the project")
    if not path.isascii() and (encoding := sys.getfilesystemencoding()) != "utf-8":
        found = f"letters in it that this locale's encoding ({encoding}) doesn't have"
        step = "run `export LC_ALL=C.UTF-8` (or PYTHONUTF8=1) first, or move the project"
        yield Fault(path, "path", found, "a locale with UTF-8", step)


def _file(root: Path, name: str) -> Iterator[Fault]:
    try:
        text = strict_yaml.read_text(root / name, max_bytes=LOCK_BYTES)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        found = f"a file that can't be read ({getattr(error, 'strerror', None) or error})"
        yield Fault(name, "file", found, "a text in UTF-8", f"correct it, or `git checkout {name}`")
        return
    if (mark := strict_yaml.MERGE.search(text)) is not None:
        step = f"take one side, `git checkout --ours {name}` or --theirs, then `git add {name}`"
        if name == "dvc.lock":
            step += "; what the side lacks comes back from DVC's cache or is run again"
        line = f"line {text.count(chr(10), 0, mark.start()) + 1}"
        yield Fault(name, line, "marks of a merge that isn't resolved", "one side's lines", step)
    elif name == "dvc.lock":
        schema = _SCHEMA.search(text)
        if schema is not None and schema[1] != LOCK_SCHEMA:
            step = "install the version of dvc that wrote it, or `git checkout dvc.lock`"
            yield Fault(name, "schema", repr(schema[1]), f"{LOCK_SCHEMA!r}, which this dvc reads", step)
    elif name == PARAMS and _ALIAS.search(text) is not None:
        try:
            strict_yaml.parse(text, duplicates=[])
        except strict_yaml.YamlError as error:  # dvc would expand the aliases without end
            yield Fault(
                name, "file", f"no YAML that can be used ({error})", "a params file", "correct it there"
            )
    elif name in CONFIGS:
        try:
            ConfigObj(text.splitlines(), interpolation=False)
        except ConfigObjError as error:
            step = f"correct it, or `git checkout {name}`"
            yield Fault(
                name, "file", f"no configuration of DVC's ({error})", "sections of `key = value`", step
            )
