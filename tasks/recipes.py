"""Recipes: whole params files to start from. Taking one keeps what is the user's own: data, title, machine, operation.

Sections are taken as text, so that comments of both files stay.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data import strict_yaml
from tasks.config import load_params
from tasks.errors import TaskError

FOLDER = Path("recipes")
OWN = ("ingest", "points", "report.title", "runtime", "operate")
"""What a recipe doesn't change unless asked: it says where this user's data are, and where and how things run."""
_SECTION = re.compile(r"^([A-Za-z_]\w*):", re.MULTILINE)


@dataclass(frozen=True)
class Switch:
    """params.yaml as it would be: its text, and the values that change, `key: value` a line with `-` and `+`."""

    name: str
    text: str
    changes: list[str]


def find_recipe(name: str, folder: Path = FOLDER) -> Path:
    """The file of a recipe: its name, or a path to any params file.

    Raises:
        TaskError: there is none; the near names are told.
    """
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return Path(name)
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    stem = Path(name).stem
    if stem in names:
        return folder / f"{stem}.yaml"
    near = difflib.get_close_matches(stem.lower(), names, n=3, cutoff=0.5)
    near += [one for one in names if stem and one.startswith(stem.split("_")[0]) and one not in near]
    meant = f"; did you mean {' or '.join(near[:4])}?" if near else ""
    raise TaskError(f"{folder}/{stem}.yaml: no such recipe{meant} There are {', '.join(names) or 'none'}")


def switch(recipe: Path, current: Path, *, everything: bool) -> Switch:
    """What `current` becomes with the recipe's values.

    Args:
        recipe: a whole params file.
        current: params.yaml; where it is missing or `everything`, the recipe is taken as it is.
        everything: the user's own sections too.

    Raises:
        TaskError: one of them isn't a params file, or what comes out wouldn't be one.
    """
    text = _read(recipe)
    before = _read(current) if current.is_file() else ""
    if before and not everything:
        text = _with_own(text, before, current)
    _check(text, recipe, current)
    try:
        old = _values(before, current) if before else {}
    except TaskError:  # it is replaced as a whole
        old = {}
    return Switch(recipe.stem, text, changes(old, _values(text, recipe)))


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Lines `- key: value` and `+ key: value` of the leaves that differ, in the order of the keys in the files."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    lines = []
    for key in [*new, *(key for key in old if key not in new)]:
        if key in old and key in new and old[key] == new[key] and type(old[key]) is type(new[key]):
            continue
        lines += [f"- {key}: {_shown(old[key])}"] if key in old else []
        lines += [f"+ {key}: {_shown(new[key])}"] if key in new else []
    return lines


def _leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [
            leaf
            for name, one in value.items()
            for leaf in _leaves(one, f"{key}.{name}" if key else str(name))
        ]
    return [(key, value)]


def _shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _with_own(recipe: str, current: str, file: Path) -> str:
    """The recipe's text with the user's own sections in place of its."""
    theirs, mine = _sections(recipe), _sections(current)
    for name in OWN:
        section, _, key = name.partition(".")
        if section not in mine:
            continue
        if not key:
            theirs[section] = mine[section]
        elif section in theirs:
            line = re.search(rf"^ +{key}:.*\n", mine[section], re.MULTILINE)
            place = re.search(rf"^ +{key}:.*\n", theirs[section], re.MULTILINE)
            if line is not None and place is not None:
                whole = theirs[section]
                theirs[section] = whole[: place.start()] + line[0] + whole[place.end() :]
    text = "".join(theirs.values())
    # What text can't carry over (an anchor of another section, a title of several lines) must not be lost silently.
    before = _values(current, file)
    try:
        after = strict_yaml.parse(text)
    except strict_yaml.YamlError:
        after = None
    if not isinstance(after, dict):
        after = {}
    for name in OWN:
        section, _, key = name.partition(".")
        found = (before.get(section), after.get(section))
        kept = [one.get(key) if key and isinstance(one, dict) else one for one in found]
        if section in before and kept[0] != kept[1]:
            raise TaskError(
                f"{file}: {name} can't be carried over as it is written; write it out, or use --all"
            )
    return text


def _sections(text: str) -> dict[str, str]:
    """The text of each top-level section, with the comment lines right above it; "" is what comes before the first."""
    starts = [(match.start(), match[1]) for match in _SECTION.finditer(text)]
    places = []
    for start, name in starts:
        above = text[:start].splitlines(keepends=True)
        size = 0
        while above and above[-1].startswith("#"):
            size += len(above.pop())
        # A comment at the file's head is the recipe's own, not its first section's.
        places.append((start - size if above else start, name))
    sections = {"": text[: places[0][0]] if places else text}
    for (start, name), end in zip(places, [*(place for place, _ in places[1:]), len(text)], strict=True):
        sections[name] = text[start:end]
    return sections


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: can't be read ({error})") from None


def _values(text: str, path: Path) -> dict[str, Any]:
    try:
        values = strict_yaml.parse(text)
    except strict_yaml.YamlError as error:
        raise TaskError(f"{path}: not YAML: {error}; mend it, or use --all") from None
    if not isinstance(values, dict):
        raise TaskError(f"{path}: found no keys, expected a whole params file; mend it, or use --all")
    return values


def _check(text: str, recipe: Path, current: Path) -> None:
    """What comes out must be a params file: a recipe or sections from an older version may not be."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / current.name
        path.write_text(text, encoding="utf-8")
        try:
            load_params(path)
        except TaskError as error:
            told = str(error).replace(str(path), f"{recipe} with what is yours in {current}")
            raise TaskError(told) from None
