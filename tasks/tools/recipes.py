"""Recipes: params to start from. Switching to one keeps the user's own sections: data, title, machine, operation.

A recipe names another one in `extends` and has the values that differ from it; recipes/base.yaml has all keys.
params.yaml is written in full, since DVC must see every value, with the comments of the whole chain: a recipe's comment
behind a value replaces the comment of the recipe that it extends.
"""

from __future__ import annotations

import copy
import difflib
import io
import itertools
import re
from collections.abc import Collection
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
"""The project's own recipes."""
OURS = Path(__file__).parent / "project" / "recipes"
"""Those that come with points2model."""
EXTENDS = "extends"
NOTIFY = "operate.notify"
OWN = ("ingest", "points", "review", "report.title", "runtime", "operate")
"""The user's own keys, which a recipe changes only with --all: where the data are, where and how things run."""
_SECTION = re.compile(r"^([A-Za-z_]\w*):", re.MULTILINE)


@dataclass(frozen=True)
class Switch:
    """params.yaml after a switch to a recipe."""

    name: str
    text: str
    changes: list[str]
    """the values that change, `- key: value` and `+ key: value`"""
    kept: list[str]
    """the user's own values that differ from the recipe's, `key: value (recipe's name: its value)`"""


def find_recipe(name: str, folder: Path = FOLDER) -> Path:
    """The file of a recipe: its name, or a path to any params file.

    Raises:
        TaskError: there is none; its text has similar names.
    """
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return Path(name)
    # The project's own first: a clone has ours in the same folder.
    found = {path.stem: path for place in (OURS, folder) for path in sorted(place.glob("*.yaml"))}
    names, stem = sorted(found), Path(name).stem
    if stem in found:
        return found[stem]
    near = difflib.get_close_matches(stem.lower(), names, n=3, cutoff=0.5)
    near += [one for one in names if stem and one.startswith(stem.split("_")[0]) and one not in near]
    meant = f"; did you mean {' or '.join(near[:4])}?" if near else ""
    raise TaskError(
        f"{folder}/{stem}.yaml: no such recipe{meant or '.'} There are {', '.join(names) or 'none'}"
    )


def whole(recipe: Path) -> str:
    """A recipe's text merged with the recipes that it extends: a full params file, its own comment first.

    Raises:
        TaskError: a recipe that it extends is missing or extends it in turn, or it has a key that none of them has.
    """
    return merge(chain_of(recipe))


def merge(chain: list[tuple[Path, str]]) -> str:
    """The texts of recipes, each of which extends the next one, merged; the last one has all keys.

    Raises:
        TaskError: a key that the last one doesn't have.
    """
    if len(chain) == 1:
        return chain[0][1]
    merged = _tree(*chain[-1])
    for path, text in reversed(chain[:-1]):
        unknown: list[str] = []
        _merge(merged, _tree(path, text), "", unknown)
        if unknown:
            lines = "".join(f"\n  - {path}: {line}" for line in unknown)
            raise TaskError(f"keys that aren't in {chain[-1][0]}; correct them, or add them there:{lines}")
    stream = io.StringIO()
    round_trip().dump(merged, stream)
    return _head(chain[0][1]) + stream.getvalue()[len(_head(stream.getvalue())) :]


def load_recipe(recipe: Path) -> Params:
    """The params of a recipe merged with the recipes that it extends.

    Raises:
        TaskError: as for `whole`; faults of its values.
    """
    text = whole(recipe)
    _check_sections(text, recipe, given=())
    return parse_params(text, recipe)


def chain_of(recipe: Path) -> list[tuple[Path, str]]:
    """The recipe, the one that it extends, and so on, each with its text."""
    chain = [(recipe, _read(recipe))]
    while (name := values_of(chain[-1][1], chain[-1][0]).get(EXTENDS)) is not None:
        folder = recipe.parent if (recipe.parent / f"{name}.yaml").is_file() else FOLDER
        path = find_recipe(str(name), folder)
        names = [one.stem for one, _ in chain]
        if path.stem in names:
            circle = " -> ".join([*names, path.stem])
            raise TaskError(
                f"{chain[-1][0]}: {EXTENDS}: {circle}, a circle; one of them must extend base or nothing"
            )
        chain.append((path, _read(path)))
    return chain


def round_trip() -> YAML:
    """Reads and writes YAML with its comments."""
    yaml = YAML()
    yaml.width = 10_000
    yaml.preserve_quotes = True
    yaml.representer.add_representer(type(None), _null)
    return yaml


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _tree(path: Path, text: str) -> CommentedMap:
    values_of(text, path)  # its faults are reported alike everywhere
    tree = round_trip().load(text)
    tree.pop(EXTENDS, None)
    return cast(CommentedMap, tree)


def _merge(below: CommentedMap, above: CommentedMap, place: str, unknown: list[str]) -> None:
    """Writes the values of `above` into `below`; keys that only `above` has are added to `unknown`."""
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
    """Copies the comment behind a key or its value; the lines after it, up to the next key, stay."""
    for place in (2, 3):  # behind a value, or behind the key of a mapping
        new = _comment(above, key, place)
        comment, _, _ = (new.value if new is not None else "").partition("\n")
        if new is None or not comment:
            continue
        old = _comment(below, key, place)
        after = old.value.partition("\n")[2] if old is not None else ""
        token = copy.copy(new)
        token.value = f"{comment}\n{after}"
        tokens = below.ca.items.setdefault(key, [None, None, None, None])
        tokens[place] = token if place == 2 else [token]


def _comment(tree: CommentedMap, key: object, place: int) -> Any:
    found = (tree.ca.items.get(key) or [None] * 4)[place]
    return found[0] if isinstance(found, list) and found else found or None


def _head(text: str) -> str:
    """The comment lines that a file begins with."""
    return "".join(itertools.takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))


def switch(recipe: Path, current: Path, *, everything: bool) -> Switch:
    """`current` with the recipe's values.

    Args:
        recipe: a file of recipes/, or any params file.
        current: params.yaml; if it is missing, the whole recipe is taken.
        everything: take the whole recipe, with its values for the user's own sections.

    Raises:
        TaskError: one of the files isn't a params file, or the result isn't one.
    """
    text = recipe_text = whole(recipe)
    before = _read(current) if current.is_file() else ""
    keeps = bool(before) and not everything
    _check_sections(text, recipe, given=OWN if keeps else ())
    if keeps:
        text = _with_own(recipe_text, before, current)
    parse_params(text, Path(f"{recipe} with your sections of {current}" if keeps else recipe))
    try:
        old = values_of(before, current) if before else {}
    except TaskError:  # with --all nothing of it is needed
        old = {}
    values = values_of(text, recipe)
    kept = _kept(values, values_of(recipe_text, recipe), recipe.stem)
    return Switch(recipe.stem, text, changes(old, values), kept)


def _kept(values: dict[str, Any], recipe: dict[str, Any], name: str) -> list[str]:
    """The own keys whose value isn't the recipe's."""
    mine, theirs = dict(leaves(values)), dict(leaves(recipe))
    return [
        f"{key}: {_shown(mine.get(key), key)} ({name}: {_shown(value, key)})"
        for key, value in theirs.items()
        if f"{key}.".startswith(tuple(f"{own}." for own in OWN)) and not equal(key, mine, theirs)
    ]


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Lines `- key: value` and `+ key: value` of the leaves that differ, in the order of the keys in the files."""
    old, new = dict(leaves(before)), dict(leaves(after))
    lines = []
    for key in [*new, *(key for key in old if key not in new)]:
        if equal(key, old, new):
            continue
        lines += [f"- {key}: {_shown(old[key], key)}"] if key in old else []
        lines += [f"+ {key}: {_shown(new[key], key)}"] if key in new else []
    return lines


def equal(key: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether both have the key, with the same value of the same type."""
    return key in old and key in new and old[key] == new[key] and type(old[key]) is type(new[key])


def leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """(key, value) of each leaf, the key with dots, in the file's order. An empty mapping below a key is a leaf."""
    if isinstance(value, dict) and (value or not key):
        return [
            leaf for name, one in value.items() for leaf in leaves(one, f"{key}.{name}" if key else str(name))
        ]
    return [(key, value)]


def _shown(value: Any, key: str) -> str:
    if key == NOTIFY and value is not None:
        return HIDDEN  # with the address of a webhook, anyone can post to it
    return on_one_line(value)


def on_one_line(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _with_own(recipe: str, current: str, file: Path) -> str:
    """The recipe's text with the user's own sections in place of its sections."""
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
    # Some values can't be copied as text: an anchor of another section, a title of several lines. Report them.
    before = values_of(current, file)
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
                f"{file}: {name} can't be copied; write each value on one line and without anchors, or use --all"
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
        # A comment at the file's head belongs to the recipe, not to its first section.
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


def values_of(text: str, path: Path) -> dict[str, Any]:
    """The values of a params file or recipe.

    Raises:
        TaskError: it isn't one; the error names `path`.
    """
    try:
        values = strict_yaml.parse(text)
    except strict_yaml.YamlError as error:
        raise TaskError(f"{path}: not YAML: {error}; fix it, or use --all") from None
    if not isinstance(values, dict):
        raise TaskError(f"{path}: found no keys, expected a params file; fix it, or use --all")
    return values


def _check_sections(text: str, recipe: Path, given: Collection[str]) -> None:
    """Names the likely cause if a recipe without `extends` lacks sections that aren't `given` either."""
    missing = [key for key in Params.model_fields if key not in values_of(text, recipe) and key not in given]
    if missing and EXTENDS not in values_of(_read(recipe), recipe):
        raise TaskError(
            f"{recipe}: found no `{EXTENDS}` and no {', '.join(missing)}; begin the file with `{EXTENDS}: base`, or "
            "with another recipe, if it holds only the values that differ, else add the missing sections"
        )
