from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.annotations.coco.file import to_instances
from data.annotations.frames import ImageFolder
from data.annotations.image_index import ImageIndex
from data.annotations.read import read_annotations
from data.annotations.records import ReadOptions

HEIGHT, WIDTH = 16, 24
Found = dict[str, list[tuple[str, float, tuple[float, ...]]]]
"""Class, area and box of each mask, by the stem of its image."""


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., ImageFolder]:
    """Makes images of 24 x 16 pixels in a folder, and returns it."""

    def make(*names: str, below: str = "images") -> ImageFolder:
        for name in names or ("a.jpg", "b.jpg"):
            path = tmp_path / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((HEIGHT, WIDTH, 3), 100, np.uint8)).save(path)
        return ImageFolder(tmp_path / below)

    return make


def read(path: Path, images: ImageFolder, mask_class: str | None = None) -> Found:
    """Masks that are no regions to ignore."""
    options = ReadOptions(images=images, any_place=True, mask_class=mask_class)
    coco = read_annotations(path, options=options)
    names = {one.id: one.name for one in coco.categories}
    index = ImageIndex(images.names() - coco.not_images)
    stems = {row["id"]: Path(*index.find(row["file_name"])).stem for row in coco.images}
    found: Found = {stem: [] for stem in stems.values()}
    for row in to_instances(coco).to_pylist():
        if not row["iscrowd"]:
            box = tuple(row["bbox_xywh"])
            found[stems[row["image_id"]]].append((names[row["category_id"]], row["area"], box))
    return {stem: sorted(rows) for stem, rows in found.items()}
