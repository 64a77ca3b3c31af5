"""What the report's galleries have in common: rows of panels, and masks as shapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from data.images.read import read_ingested
from data.masks import rle
from data.tables import DataError, Split
from tasks.reporting.gallery import LONGEST_SIDE, Panel, Shape, image_definition, panel

Records = list[dict[str, Any]]


class Row(NamedTuple):
    """An image of a gallery: rank, name, facts, and its panels (caption, picture)."""

    rank: str
    name: str
    facts: list[str]
    definition: Markup
    panels: list[tuple[str, Markup]]
    fault: str | None


class Gallery(NamedTuple):
    """Rows, and the rule by which they were chosen."""

    rows: list[Row]
    rule: str


class Canvas:
    """An image of a split that masks are drawn on, at most `longest` pixels a side.

    Attributes:
        i: its row in the split.
        facts: its row, as a dict.
        names: of the classes, by id.
    """

    def __init__(self, split: Split, image_id: int, longest: int = LONGEST_SIDE) -> None:
        self.split, self.longest = split, longest
        self.i = position(split, image_id)
        self.facts = split.image(self.i)
        self.names = {category.id: category.name for category in split.categories}
        height, width = self.size
        self._unit = max(1.0, max(height, width) / longest)
        self._rows, self._columns = (
            np.minimum(((np.arange(round(side / self._unit)) + 0.5) * self._unit).astype(np.int64), side - 1)
            for side in (height, width)
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.facts["height"], self.facts["width"]

    def shape(
        self, counts: bytes, category_id: int, colour: str, note: str = "", kind: str = "mask"
    ) -> Shape:
        """A mask with its class as label; its title is the class and `note`."""
        masks, kept = rle.decode_window([counts], *self.size, self._rows, self._columns)
        mask = masks[0] if len(kept) else np.zeros((len(self._rows), len(self._columns)), np.bool_)
        name = self.names[category_id]
        label = name if len(self.names) > 1 else ""
        return Shape(mask, colour, f"{name}{note}", label, kind, self._unit)

    def row(self, rank: str, facts: list[str], panels: Sequence[Panel], place: str) -> Row:
        """The image with its panels; `place` sets its id apart from those of other galleries of the page."""
        key = f"image-{place}-{self.facts['image_id']}"
        try:
            definition, fault = image_definition(read_ingested(self.split, self.i), key, self.longest), None
        except DataError as error:  # the page shows the fault in place of the image
            definition, fault = Markup(""), str(error)
        drawn = [(one.caption, panel(key, self.size, one)) for one in panels]
        return Row(rank, self.facts["file_name"], facts, definition, drawn, fault)


def instances(split: Split, image_id: int) -> Records:
    """The true objects of an image, without crowds."""
    rows: Records = split.instances_of(position(split, image_id)).to_pylist()
    return [row for row in rows if not row["iscrowd"]]


def position(split: Split, image_id: int) -> int:
    """The row of an image in its split."""
    return int(np.searchsorted(split.images["image_id"].to_numpy(), image_id))


def by_image(table: pa.Table, ids: Iterable[int]) -> dict[int, Records]:
    """A table's rows of these images."""
    found: dict[int, Records] = defaultdict(list)
    for row in table.filter(pc.is_in(table["image_id"], pa.array(list(ids), pa.int64()))).to_pylist():
        found[row["image_id"]].append(row)
    return found


def evenly(count: int, shown: int) -> str:
    """How many of `count` images a gallery shows, in words."""
    return f"all {count:,}" if count <= shown else f"{shown:,} of {count:,} at even distances"
