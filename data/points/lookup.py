"""Images and classes of the data set by id or name; for an unknown name the nearest known ones are reported."""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Mapping
from functools import cached_property

from data.images.endings import Endings
from data.points.record import Problem
from data.storage import IMAGE_SUFFIXES
from data.tables import Split

NEAREST_NAMES = 3
NEIGHBOURS = 20
SHOWN_NAMES = 10
COMPARED = 200
"""Number of unknown names that are compared with the known ones; further ones get no hints, to bound the time."""
ALIKE, ALIKE_HASHES = 0.5, 0.9
"""Similarity (difflib's ratio) from which a known name is a hint. Two hashes always have many digits in common."""
HASH = re.compile(r"[0-9a-f][0-9a-f-]{14}", re.IGNORECASE)

Value = str | int | None


class Names:
    """Ids by name, and the names nearest to an unknown one."""

    def __init__(self, kind: str, names: Mapping[int, str]) -> None:
        self.kind = kind
        self.names = names
        self.ids = {name: i for i, name in names.items()}
        self._compared = 0

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.ids)

    @cached_property
    def _backwards(self) -> list[str]:
        return sorted(name[::-1] for name in self.ids)

    def known(self, value: Value) -> int | None:
        """The id, for an id or a name; a text of digits that is no name is looked up as an id."""
        if isinstance(value, str):
            if value in self.ids:
                return self.ids[value]
            if not (value.isascii() and value.isdigit() and len(value) < 19):
                return None
            value = int(value)
        return value if value in self.names else None

    def problem(self, value: Value) -> Problem:
        """The problem of an unknown name."""
        found = f"no {self.kind}" if value is None else f"{self.kind} {value!r}"[:300]
        return Problem(
            f"unknown_{self.kind}", found, self._expected("" if value is None else str(value)[:300])
        )

    def _expected(self, value: str) -> str:
        near: list[str] = []
        if value and self._compared < COMPARED:
            self._compared += 1
            cutoff = ALIKE_HASHES if HASH.search(value) else ALIKE
            near = difflib.get_close_matches(value, self._likely(value), n=NEAREST_NAMES, cutoff=cutoff)
        if near:
            return f"a known {self.kind}; the nearest: {', '.join(near)}"
        some = self._sorted[: NEAREST_NAMES if self.kind == "image" else SHOWN_NAMES]
        return f"a known {self.kind}: {', '.join(some)}" + (", ..." if len(self.ids) > len(some) else "")

    def _likely(self, value: str) -> list[str]:
        """Names to compare with: all if they are few, else those that begin or end alike (100,000 take a second)."""
        if len(self._sorted) <= 4 * NEIGHBOURS:
            return self._sorted
        found: dict[str, None] = {}
        for names, key, step in ((self._sorted, value, 1), (self._backwards, value[::-1], -1)):
            at = bisect.bisect(names, key)
            found.update(
                dict.fromkeys(name[::step] for name in names[max(at - NEIGHBOURS, 0) : at + NEIGHBOURS])
            )
        return list(found)


class Categories:
    """Classes of a split by id, by name, or by a name in a mapping.

    If no name is equal, a single name that differs only in case is used.

    Args:
        split: with the classes.
        classes: name in point files -> name in the data set; None leaves the class out; the name "" means no class.
    """

    def __init__(self, split: Split, classes: Mapping[str, str | None] | None) -> None:
        self._names = Names("category", {c.id: c.name for c in split.categories})
        self._classes = classes or {}
        self._found: dict[Value, int | Problem] = {}

    def find(self, value: Value) -> int | Problem:
        """The id, or why there is none. No class means the only class of a data set that has one."""
        if value not in self._found:
            self._found[value] = self._find(value)
        return self._found[value]

    def choose(self, choices: tuple[str, ...]) -> int | Problem:
        """The one class among choices, which may be about something else too; without one, as for no class."""
        # Only by name: a rating of 5 is no id.
        found = {self.find(choice) for choice in choices if self._named(choice) is not None}
        if len(found) == 1:
            return found.pop()
        if found:
            return Problem(
                "bad_point", f"{len(found)} classes: {', '.join(choices)}"[:300], "one class a point"
            )
        none = self.find(None)
        unknown = isinstance(none, Problem) and none.reason == "unknown_category"
        return self._names.problem(choices[0]) if unknown else none

    def _named(self, text: str) -> str | None:
        """The name of a class or in the mapping that is equal, or the only one that differs only in case."""
        names = {*self._classes, *self._names.ids}
        alike = [text] if text in names else [name for name in names if name.casefold() == text.casefold()]
        return alike[0] if len(alike) == 1 else None

    def _find(self, value: Value) -> int | Problem:
        name = "" if value is None else str(value)
        if isinstance(value, str) and self._names.known(value) is None:
            value = name = self._named(name) or name
        if name in self._classes:
            mapped = self._classes[name]
            if mapped is None:
                return Problem(
                    "ignored_class", f"category {name!r}"[:300], "a class that points.classes keeps"
                )
            value = mapped
        elif value is None and len(self._names.names) == 1:
            return next(iter(self._names.names))
        known = self._names.known(value)
        return self._names.problem(value) if known is None else known


class Images:
    """Images of a split by id, by file_name, or by a part of its path.

    A path in a point file matches the only image whose file_name ends with it, or with whose file_name it ends: tools
    write bare names, or prepend folders of their own. A name without a suffix matches the only image of that stem
    (frames of a video, tables of one image).

    Args:
        split: with the images.
        more: further images, id -> file_name.
    """

    def __init__(self, split: Split, more: Mapping[int, str] | None = None) -> None:
        ids, file_names = (split.images[name].to_pylist() for name in ("image_id", "file_name"))
        names = {**(more or {}), **dict(zip(ids, file_names, strict=True))}
        self._names = Names("image", names)
        self._paths, self._stems = Endings[int](), Endings[int]()
        for image_id, name in names.items():
            folder, slash, bare = name.rpartition("/")
            self._paths.add(name, image_id)
            self._stems.add(folder + slash + (bare.rpartition(".")[0] or bare), image_id)
        self._found: dict[tuple[Value, tuple[str, ...], bool], int | Problem] = {}

    def find(self, value: Value, also: tuple[str, ...] = (), may_be_id: bool = False) -> int | Problem:
        """The id, or why there is none.

        Args:
            value: the image's id (a number) or name (text).
            also: other names, tried in this order after `value`.
            may_be_id: a text of digits may be an id too; if name and id are two images, neither is used.
        """
        key = (value, also, may_be_id)
        if key not in self._found:
            self._found[key] = self._find([value, *also], may_be_id)
        return self._found[key]

    def _find(self, values: list[Value], may_be_id: bool) -> int | Problem:
        ambiguous = None
        for value in values:
            known = self._names.known(value) if may_be_id or not isinstance(value, str) else None
            if isinstance(value, str):
                if value in self._names.ids:
                    return self._names.ids[value]
                same = self._alike(value) or self._alike(value.replace("\\", "/"))
                if known is not None and same not in ([], [known]):
                    return self._two_readings(value, known, same)
                if len(same) == 1:
                    return same[0]
                if same and ambiguous is None:
                    ambiguous = Problem(
                        "unknown_image", f"image {value!r}"[:300], f"one of {self._some(same)}"
                    )
            if known is not None:
                return known
        return ambiguous or self._unknown(values, may_be_id)

    def _unknown(self, values: list[Value], may_be_id: bool) -> Problem:
        """The problem of values that match no image."""
        return self._names.problem(values[0])

    def name(self, image_id: int) -> str:
        """Its file_name."""
        return self._names.names[image_id]

    def _two_readings(self, value: str, known: int, same: list[int]) -> Problem:
        found = f"image {value!r}: the id of {self._names.names[known]}, and a name of {self._some(same)}"
        return Problem(
            "unknown_image", found[:300], "a file_name with its suffix; or ids in a column image_id"
        )

    def _some(self, image_ids: list[int]) -> str:
        return ", ".join(self._names.names[i] for i in image_ids[:SHOWN_NAMES])

    def _alike(self, path: str) -> list[int]:
        """Images whose path ends alike; if there are none and ``path`` has no image suffix, those whose stem does."""
        return self._paths.alike(path) or (
            [] if path.lower().endswith(IMAGE_SUFFIXES) else self._stems.alike(path)
        )
