"""Images and classes of the data set, found by id or by name; an unknown name comes with the nearest known ones."""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import PurePosixPath

from data.points.record import Problem
from data.storage import IMAGE_SUFFIXES
from data.tables import Split

NEAREST_NAMES = 3
NEIGHBOURS = 20
SHOWN_NAMES = 10
COMPARED = 200
"""Unknown names that are compared with the known ones; of more, a hundred thousand say, nobody reads the hints."""
ALIKE, ALIKE_HASHES = 0.5, 0.9
"""How alike a known name must be (difflib's ratio) to be a hint. Any two hashes have half their digits in common."""
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
        """The id, for an id or for the name itself; a name that is a number may be an id too."""
        if isinstance(value, str):
            if value in self.ids:
                return self.ids[value]
            if not (value.isascii() and value.isdigit() and len(value) < 19):
                return None
            value = int(value)
        return value if value in self.names else None

    def problem(self, value: Value) -> Problem:
        """That there is none of this name."""
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
        """Names to compare with: all of a few, of many those that begin or end alike. 100,000 would take a second."""
        if len(self._sorted) <= 4 * NEIGHBOURS:
            return self._sorted
        found: dict[str, None] = {}
        for names, wanted, step in ((self._sorted, value, 1), (self._backwards, value[::-1], -1)):
            at = bisect.bisect(names, wanted)
            found.update(
                dict.fromkeys(name[::step] for name in names[max(at - NEIGHBOURS, 0) : at + NEIGHBOURS])
            )
        return list(found)


class Categories:
    """Classes of a split, by the data set's id or name, or by a name that a mapping gives them.

    Where no name is the very one, the only one that differs in upper and lower case alone is taken.

    Args:
        split: whose classes.
        classes: name in point files -> name in the data set; None leaves the class out; "" stands for no class.
    """

    def __init__(self, split: Split, classes: Mapping[str, str | None] | None) -> None:
        self._names = Names("category", {c.id: c.name for c in split.categories})
        self._classes = classes or {}
        self._found: dict[Value, int | Problem] = {}

    def find(self, value: Value) -> int | Problem:
        """The id, or why there is none. Without a class, it is the only one of a data set that has one."""
        if value not in self._found:
            self._found[value] = self._find(value)
        return self._found[value]

    def choose(self, choices: tuple[str, ...]) -> int | Problem:
        """The one class among answers about a point, which may be about anything else; without one, as of no class."""
        found = {
            self.find(choice) for choice in choices if self._named(choice) is not None
        }  # five stars are no id
        if len(found) == 1:
            return found.pop()
        if found:
            return Problem(
                "bad_point", f"{len(found)} classes: {', '.join(choices)}"[:300], "one class a point"
            )
        none = self.find(None)
        unknown = isinstance(none, Problem) and none.reason == "unknown_category"
        return self._names.problem(choices[0]) if unknown else none

    def _named(self, said: str) -> str | None:
        """The name of a class or in the mapping, but for upper and lower case where only one differs in that."""
        names = {*self._classes, *self._names.ids}
        alike = [said] if said in names else [name for name in names if name.casefold() == said.casefold()]
        return alike[0] if len(alike) == 1 else None

    def _find(self, value: Value) -> int | Problem:
        said = "" if value is None else str(value)
        if isinstance(value, str) and self._names.known(value) is None:
            value = said = self._named(said) or said
        if said in self._classes:
            mapped = self._classes[said]
            if mapped is None:
                return Problem(
                    "ignored_class", f"category {said!r}"[:300], "a class that points.classes keeps"
                )
            value = mapped
        elif value is None and len(self._names.names) == 1:
            return next(iter(self._names.names))
        known = self._names.known(value)
        return self._names.problem(value) if known is None else known


class _Endings:
    """Images by their path and by every end of it."""

    def __init__(self) -> None:
        self._whole: dict[str, list[int]] = {}
        self._ends: dict[str, list[int]] = {}

    def add(self, path: str, image_id: int) -> None:
        parts = PurePosixPath(path).parts
        self._whole.setdefault("/".join(parts), []).append(image_id)
        for n in range(len(parts)):
            self._ends.setdefault("/".join(parts[n:]), []).append(image_id)

    def alike(self, path: str) -> list[int]:
        """Images whose path and ``path`` end alike, as far as the shorter of the two goes; the longest such ends."""
        if path.rpartition("/")[2] in ("", "."):  # a folder
            return []
        parts = PurePosixPath(path).parts
        found = self._ends.get("/".join(parts), [])
        for n in range(1, len(parts)):
            if found:
                break
            found = self._whole.get("/".join(parts[n:]), [])
        return found


class Images:
    """Images of a split, by the data set's id, file name, or a path that ends alike.

    A path in a point file stands for the image whose file_name it ends with, or which ends with it, if there is only
    one: tools write bare names, or folders of their own before them. A name without an ending stands for the only
    image of that stem (frames of a video, tables of one image).

    Args:
        split: whose images.
        more: further ones, id -> file_name.
    """

    def __init__(self, split: Split, more: Mapping[int, str] | None = None) -> None:
        ids, file_names = (split.images[name].to_pylist() for name in ("image_id", "file_name"))
        names = {**(more or {}), **dict(zip(ids, file_names, strict=True))}
        self._names = Names("image", names)
        self._paths, self._stems = _Endings(), _Endings()
        for image_id, name in names.items():
            folder, slash, bare = name.rpartition("/")
            self._paths.add(name, image_id)
            self._stems.add(folder + slash + (bare.rpartition(".")[0] or bare), image_id)
        self._found: dict[tuple[Value, tuple[str, ...], bool], int | Problem] = {}

    def find(self, value: Value, also: tuple[str, ...] = (), may_be_id: bool = False) -> int | Problem:
        """The id, or why there is none.

        Args:
            value: the image's id, a number; or its name, a text.
            also: other names, tried in this order after it.
            may_be_id: a text of digits may be an id too. Where the two readings differ it says no image.
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
        """Why no image is called by any of the values."""
        return self._names.problem(values[0])

    def name(self, image_id: int) -> str:
        """Its file_name."""
        return self._names.names[image_id]

    def _two_readings(self, value: str, known: int, same: list[int]) -> Problem:
        found = f"image {value!r}: the id of {self._names.names[known]}, and a name of {self._some(same)}"
        return Problem(
            "unknown_image", found[:300], "a file_name with its ending; or ids in a column image_id"
        )

    def _some(self, image_ids: list[int]) -> str:
        return ", ".join(self._names.names[i] for i in image_ids[:SHOWN_NAMES])

    def _alike(self, path: str) -> list[int]:
        """Images of a path that ends alike; of such a stem, where no path does and it has no image's ending."""
        return self._paths.alike(path) or (
            [] if path.lower().endswith(IMAGE_SUFFIXES) else self._stems.alike(path)
        )
