"""Held-out strong images: the teacher and the refiner don't train on them.

A network's masks are better on its training images than on others, so these can't show whether refinement helps on
weak images. Held-out strong images can: on them the refiner's weights are chosen, and refined masks are compared with
rough ones. (val images measure the end result only.) The student trains on all strong images.

The cost is the teacher's: with 20 strong images and 0.1 it trains on 18. With 0 it trains on all, nothing is measured,
the refiner's last weights are taken and refined masks are always used.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from data.tables import Split
from tasks.common.errors import TaskError
from tasks.common.stage_main import read_json, write_json

FILE = "held_out.json"


def draw_held_out(classes: Mapping[int, AbstractSet[int]], share: float, seed: int) -> frozenset[int]:
    """The ids of about `share` of the images, at least one where `share` isn't 0.

    The last remaining image with some class is skipped, since that class could not be learnt; so there may be fewer, or
    none, and never all. Images are ordered by a hash of seed and id: a few additional images change few of the held-out
    ones.

    Args:
        classes: the classes of each image with masks, by image id.
        share: 0 <= share < 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share: found {share}, expected 0 <= share < 1")
    count = max(1, round(share * len(classes))) if share else 0
    left = Counter(category for held in classes.values() for category in held)
    taken: set[int] = set()
    for image_id in sorted(classes, key=lambda image_id: (_rank(seed, image_id), image_id)):
        if len(taken) == count:
            break
        if all(left[category] > 1 for category in classes[image_id]):
            left.subtract(classes[image_id])
            taken.add(image_id)
    return frozenset(taken)


def _rank(seed: int, image_id: int) -> bytes:
    return hashlib.sha256(f"{seed}:{image_id}".encode()).digest()


def classes_by_image(split: Split) -> dict[int, set[int]]:
    """The category ids on each usable image with masks, by image id; crowds don't count."""
    usable = {row["image_id"] for row in split.images.to_pylist() if row["status"] == "ok"}
    found: dict[int, set[int]] = {}
    columns = split.instances.select(["image_id", "category_id", "iscrowd"])
    for image_id, category_id, crowd in zip(*(column.to_pylist() for column in columns.columns), strict=True):
        if image_id in usable and not crowd:
            found.setdefault(image_id, set()).add(category_id)
    return found


def write_held_out(folder: Path, image_ids: AbstractSet[int]) -> None:
    """Writes held_out.json: the images of the strong split that a network isn't trained on."""
    write_json(folder / FILE, {"image_ids": sorted(image_ids)})


def read_held_out(folder: Path, strong: Split) -> frozenset[int]:
    """The image ids in `folder`/held_out.json.

    Raises:
        TaskError: the file is missing, or has images that the strong split doesn't have.
    """
    image_ids = frozenset(read_json(folder / FILE, "train_teacher")["image_ids"])
    unknown = sorted(image_ids - set(strong.images["image_id"].to_pylist()))
    if unknown:
        raise TaskError(
            f"{folder / FILE}: held-out images {unknown[:10]} ({len(unknown)} in all) aren't in {strong.root}: the "
            "teacher was trained on other data; run `dvc repro train_teacher`"
        )
    return image_ids
