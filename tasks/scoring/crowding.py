"""How crowded a split's images are, and the objects beyond the evaluation's limit of detections per class and image."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pyarrow.compute as pc

from data.tables import Split


class Crowding(NamedTuple):
    """Counts of objects, without crowds."""

    by_class: Counter[tuple[int, int]]
    """by image id and category id"""
    by_image: Counter[int]

    @property
    def most_of_a_class(self) -> tuple[int, int, int]:
        """The largest count of one class on one image: (count, image id, category id); zeros without objects."""
        if not self.by_class:
            return 0, 0, 0
        (image, category), most = max(self.by_class.items(), key=lambda item: (item[1], item[0]))
        return most, image, category

    @property
    def most(self) -> tuple[int, int]:
        """The largest count on one image: (count, image id); zeros without objects."""
        if not self.by_image:
            return 0, 0
        image, most = max(self.by_image.items(), key=lambda item: (item[1], item[0]))
        return most, image

    def beyond(self, limit: int) -> int:
        """How many objects even a perfect model can't find with `limit` detections per class and image."""
        return sum(max(0, count - limit) for count in self.by_class.values())

    def limit_note(self, limit: int) -> str:
        """A sentence on the objects that the limit excludes; empty if there are none."""
        beyond = self.beyond(limit)
        if not beyond:
            return ""
        return (
            f"One image has {self.most_of_a_class[0]:,} objects of a class. Beyond the limit: {beyond:,} "
            f"object{'s' * (beyond != 1)}, which no model can find; raise evaluate.max_detections."
        )


def crowding(split: Split) -> Crowding:
    """Counts the objects of a split."""
    table = split.instances.filter(pc.invert(split.instances["iscrowd"]))
    images, categories = table["image_id"].to_pylist(), table["category_id"].to_pylist()
    return Crowding(Counter(zip(images, categories, strict=True)), Counter(images))
