"""The clicks of an image's objects as the next run has them: points.parquet, with the decisions made since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data.decisions.record import Click
from data.decisions.words import Word
from data.tables import POINTS, Category, Split, read_parquet

if TYPE_CHECKING:
    from tasks.labelling.types import Clicks


class Clicked(NamedTuple):
    """An object and its clicks, in pixels of the image."""

    object: str
    category_id: int
    point: tuple[float, float]
    further: tuple[Click, ...] = ()


class ClickTable:
    """points.parquet, in memory.

    Attributes:
        weak: the split of its images.
    """

    def __init__(self, workspace: Path) -> None:
        """
        Raises:
            DataError: a table is missing or of another format.
        """
        self.weak = Split.open(workspace / "dataset" / "weak")
        self._points = read_parquet(workspace / "points" / "points.parquet", POINTS)
        ids = self._points["image_id"].to_numpy()
        self._images = self.weak.images["image_id"].to_numpy()
        self._begin = np.searchsorted(ids, self._images, side="left")
        self._end = np.searchsorted(ids, self._images, side="right")

    def row_of(self, image_id: int) -> int | None:
        """The row in the split of an image; None if there is none."""
        row = int(np.searchsorted(self._images, image_id))
        return row if row < len(self._images) and self._images[row] == image_id else None

    def image_size(self, image: int) -> tuple[int, int]:
        """Height and width of an image, by its row."""
        row = self.weak.images.slice(image, 1)
        return row["height"][0].as_py(), row["width"][0].as_py()

    def of_image(self, image: int) -> list[Clicked]:
        """The objects of an image, by its row in the split."""
        low, high = int(self._begin[image]), int(self._end[image])
        return [
            Clicked(
                row["point_id"], row["category_id"], (row["x"], row["y"]),
                tuple(Click(**one) for one in row["further"] or ()),
            )
            for row in self._points.slice(low, high - low).to_pylist()
        ]  # fmt: skip


def decided(
    objects: Sequence[Clicked], words: Mapping[str, Word], categories: Sequence[Category]
) -> list[Clicked]:
    """Objects of an image with the reviewers' words on them, by object; added objects that have a click too."""
    number = {one.name: one.id for one in categories}
    found = {one.object: one for one in objects}
    for name, word in words.items():
        one = found.get(name)
        if one is None and word.added is not None and word.clicks is not None:
            one = Clicked(name, number.get(word.added.category or "", -1), (0, 0))
        if one is None:
            continue
        if word.category is not None and word.category.category in number:
            one = one._replace(category_id=number[word.category.category])
        if word.clicks is not None and word.clicks.point is not None:
            one = one._replace(point=word.clicks.point, further=word.clicks.further or ())
        if one.category_id >= 0:
            found[name] = one
    return list(found.values())


def clicks_of(objects: Sequence[Clicked], image_id: int) -> Clicks:
    """As pseudo_label has them: coordinates as float32, in an order that breaks ties."""
    from tasks.labelling.types import Clicks  # torch takes seconds; the page shows the first object without

    rows = sorted((_row(one) for one in objects), key=lambda row: row[:4])
    further = [row[4] for row in rows]
    xy: Any = np.array([row[:2] for row in rows], np.float32).reshape(-1, 2)
    return Clicks(
        image_id, [row[3] for row in rows], np.array([row[2] for row in rows], np.int64),
        xy, further if any(further) else None,
    )  # fmt: skip


def _row(one: Clicked) -> tuple[float, float, int, str, list[dict[str, Any]] | None]:
    x, y = _rounded(one.point)
    further = sorted(one.further, key=lambda click: (not click.inside, click.x, click.y))
    rounded = [
        dict(zip("xy", _rounded(click[:2]), strict=True)) | {"inside": click.inside} for click in further
    ]
    return x, y, one.category_id, one.object, rounded or None


def _rounded(xy: tuple[float, float]) -> tuple[float, float]:
    x, y = np.array(xy, np.float32).tolist()
    return x, y
