"""Images of the data set that can't have clicks: a click on one is reported as such, not as a misspelt name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from data.points.lookup import Images, Value
from data.points.record import Problem
from data.tables import Split


class Elsewhere(NamedTuple):
    """Images that can't have clicks.

    Attributes:
        rejected: weak images that can't be used: image id -> (file_name, reason in one word).
        splits: splits that have masks, by name.
    """

    rejected: Mapping[int, tuple[str, str]]
    splits: Mapping[str, Split]


class WeakImages(Images):
    """The images of the weak split, and those that can't have clicks.

    A name that fits a weak image and a rejected one is ambiguous: fixing the image must not move a point. A name that
    fits a weak image and one of another split is the weak image's.
    """

    def __init__(self, split: Split, elsewhere: Elsewhere) -> None:
        super().__init__(split, {i: name for i, (name, _) in elsewhere.rejected.items()})
        self._elsewhere = elsewhere

    @cached_property
    def _others(self) -> dict[str, Images]:
        return {name: Images(split) for name, split in self._elsewhere.splits.items()}

    def _find(self, values: list[Value], may_be_id: bool) -> int | Problem:
        found = super()._find(values, may_be_id)
        if isinstance(found, Problem) or found not in self._elsewhere.rejected:
            return found
        name, why = self._elsewhere.rejected[found]
        return Problem(
            "rejected_image",
            f"image {name!r}"[:300] + f", which ingest rejected ({why})",
            "a weak image that can be used",
        )

    def _unknown(self, values: list[Value], may_be_id: bool) -> Problem:
        for split, images in self._others.items():
            found = images.find(values[0], tuple(map(str, values[1:])), may_be_id)
            if isinstance(found, int):
                shown = f"image {images.name(found)!r}"[:300] + f", which is in {split}"
                return Problem("other_split", shown, "a weak image: only these can have clicks")
        return super()._unknown(values, may_be_id)
