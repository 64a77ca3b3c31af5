"""Images and classes of the data set, found by id or by name; an unknown name comes with the nearest known ones."""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Iterable, Mapping
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
            near = difflib.get_close_matches(value, self._likely(value), n=NEAREST_NAMES, cutoff=0.5)
        if near:
            return f"a known {self.kind}; the nearest: {', '.join(near)}"
        some = self._sorted[:SHOWN_NAMES]
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

    def _find(self, value: Value) -> int | Problem:
        said = "" if value is None else str(value)
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


class Images:
    """Images of a split, by the data set's id, file name, or a path that ends alike.

    A path in a point file stands for the image whose file_name it ends with, or which ends with it, if there is only
    one: tools write bare names, or folders of their own before them. A name without an ending stands for the only
    image of that stem (frames of a video, tables of one image).
    """

    def __init__(self, split: Split) -> None:
        names = dict(
            zip(split.images["image_id"].to_pylist(), split.images["file_name"].to_pylist(), strict=True)
        )
        self._names = Names("image", names)
        self._by_bare: dict[str, list[int]] = {}
        self._by_stem: dict[str, list[int]] = {}
        for image_id, name in names.items():
            bare = name.rpartition("/")[2]
            self._by_bare.setdefault(bare, []).append(image_id)
            self._by_stem.setdefault(bare.rpartition(".")[0] or bare, []).append(image_id)
        self._found: dict[tuple[Value, tuple[str, ...]], int | Problem] = {}

    def find(self, value: Value, also: tuple[str, ...] = ()) -> int | Problem:
        """The id, or why there is none.

        Args:
            value: the image's name or id.
            also: other names, tried in this order after it.
        """
        key = (value, also)
        if key not in self._found:
            self._found[key] = self._find([value, *also])
        return self._found[key]

    def _find(self, values: list[Value]) -> int | Problem:
        ambiguous = None
        for value in values:
            known = self._names.known(value)
            if known is not None:
                return known
            if isinstance(value, str):
                same = self._alike(value) or self._alike(value.replace("\\", "/"))
                if len(same) == 1:
                    return same[0]
                if same and ambiguous is None:
                    some = ", ".join(self._names.names[i] for i in same[:SHOWN_NAMES])
                    ambiguous = Problem("unknown_image", f"image {value!r}"[:300], f"one of {some}")
        return ambiguous or self._names.problem(values[0])

    def _alike(self, value: str) -> list[int]:
        """Images whose path and ``value`` end alike, as far as the shorter of the two goes; the longest such ends."""
        bare = value.rpartition("/")[2]
        by_path = self._ending_alike(value, self._by_bare.get(bare, []))
        if by_path or bare.lower().endswith(IMAGE_SUFFIXES):
            return by_path
        return self._ending_alike(value, self._by_stem.get(bare, []))

    def _ending_alike(self, value: str, candidates: Iterable[int]) -> list[int]:
        wanted = PurePosixPath(value).parts[:-1][::-1]
        best = -1
        found: list[int] = []
        for image_id in candidates:
            folders = PurePosixPath(self._names.names[image_id]).parts[:-1][::-1]
            common = min(len(wanted), len(folders))
            if wanted[:common] != folders[:common]:
                continue
            if common > best:
                best, found = common, []
            if common == best:
                found.append(image_id)
        return found
