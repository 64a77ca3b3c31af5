"""Recipes: params to start from. Taking one keeps what is the user's own: data, title, machine, operation.

A recipe names another one in `extends` and has the values that differ from it; recipes/base.yaml has all keys. What is
written is whole, since DVC must see every value, with the comments of all of them: a recipe's comment behind a value
replaces that of the one it extends.
"""

from __future__ import annotations

import copy
import difflib
import io
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from data import strict_yaml
from data.messages import HIDDEN
from tasks.common.config import Params, parse_params
from tasks.common.errors import TaskError

FOLDER = Path("recipes")
EXTENDS = "extends"
NOTIFY = "operate.notify"
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
    raise TaskError(
        f"{folder}/{stem}.yaml: no such recipe{meant or '.'} There are {', '.join(names) or 'none'}"
    )


def whole(recipe: Path) -> str:
    """A recipe's text with all that it extends: a whole params file, the recipe's own comment at its head.

    Raises:
        TaskError: what it extends isn't there or comes back to it, or it has keys that no recipe above it has.
    """
    chain = _chain(recipe)
    if len(chain) == 1:
        return chain[0][1]
    merged = _tree(*chain[-1])
    for path, text in reversed(chain[:-1]):
        unknown: list[str] = []
        _merge(merged, _tree(path, text), "", unknown)
        if unknown:
            lines = "".join(f"\n  - {path}: {line}" for line in unknown)
            raise TaskError(f"keys that {chain[-1][0]} doesn't have; correct them, or add them there:{lines}")
    stream = io.StringIO()
    _round_trip().dump(merged, stream)
    return _head(chain[0][1]) + stream.getvalue()[len(_head(stream.getvalue())) :]


def load_recipe(recipe: Path) -> Params:
    """The params of a recipe with all that it extends.

    Raises:
        TaskError: see `whole`, and what is at fault in its values.
    """
    return parse_params(whole(recipe), recipe)


def _chain(recipe: Path) -> list[tuple[Path, str]]:
    """The recipe, the one that it extends, and so on, each with its text."""
    chain = [(recipe, _read(recipe))]
    while (name := _values(chain[-1][1], chain[-1][0]).get(EXTENDS)) is not None:
        beside = recipe.parent if (recipe.parent / f"{name}.yaml").is_file() else FOLDER
        path = find_recipe(str(name), beside)
        names = [one.stem for one, _ in chain]
        if path.stem in names:
            circle = " -> ".join([*names, path.stem])
            raise TaskError(
                f"{chain[-1][0]}: {EXTENDS}: {circle}, a circle; one of them must extend base or nothing"
            )
        chain.append((path, _read(path)))
    return chain


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.width = 10_000
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), _null)
    return yaml


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _tree(path: Path, text: str) -> CommentedMap:
    _values(text, path)  # its faults are reported alike everywhere
    tree = _round_trip().load(text)
    tree.pop(EXTENDS, None)
    return cast(CommentedMap, tree)


def _merge(below: CommentedMap, above: CommentedMap, place: str, unknown: list[str]) -> None:
    """Puts the values of `above` into `below`; keys that are only above go to `unknown`."""
    for key, value in above.items():
        here = f"{place}{key}"
        if key not in below:
            near = difflib.get_close_matches(str(key), map(str, below), n=1, cutoff=0.5)
            unknown.append(f"{here}: unknown key" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif isinstance(value, CommentedMap) and isinstance(below[key], CommentedMap):
            _merge(below[key], value, f"{here}.", unknown)
        else:
            below[key] = value
        if key in below:
            _take_comment(below, above, key)


def _take_comment(below: CommentedMap, above: CommentedMap, key: object) -> None:
    """The comment behind a key or its value; what stands in the lines after it, up to the next key, stays."""
    for place in (2, 3):  # behind a value, or behind the key of a mapping
        new = _comment(above, key, place)
        said, _, _ = (new.value if new is not None else "").partition("\n")
        if new is None or not said:
            continue
        old = _comment(below, key, place)
        after = old.value.partition("\n")[2] if old is not None else ""
        token = copy.copy(new)
        token.value = f"{said}\n{after}"
        tokens = below.ca.items.setdefault(key, [None, None, None, None])
        tokens[place] = token if place == 2 else [token]


def _comment(tree: CommentedMap, key: object, place: int) -> Any:
    found = (tree.ca.items.get(key) or [None] * 4)[place]
    return found[0] if isinstance(found, list) and found else found or None


def _head(text: str) -> str:
    """The comment lines that a file begins with."""
    return "".join(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))


def switch(recipe: Path, current: Path, *, everything: bool) -> Switch:
    """What `current` becomes with the recipe's values.

    Args:
        recipe: of this folder, or a params file of one's own.
        current: params.yaml; where it is missing or `everything`, the recipe is taken as it is.
        everything: the user's own sections too.

    Raises:
        TaskError: one of them isn't a params file, or what comes out wouldn't be one.
    """
    text = whole(recipe)
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
        lines += [f"- {key}: {_shown(old[key], key)}"] if key in old else []
        lines += [f"+ {key}: {_shown(new[key], key)}"] if key in new else []
    return lines


def _leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [
            leaf
            for name, one in value.items()
            for leaf in _leaves(one, f"{key}.{name}" if key else str(name))
        ]
    return [(key, value)]


def _shown(value: Any, key: str) -> str:
    if key == NOTIFY and value is not None:
        return HIDDEN  # whoever has a webhook's address may write there
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
    parse_params(text, Path(f"{recipe} with what is yours in {current}"))
