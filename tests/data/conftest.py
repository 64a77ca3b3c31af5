"""A tiny data set on disk: real image files, odd category ids, a crowd, a hole, an empty image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from bench.coco_split import split_of_coco
from data.images.content import sha256
from data.masks import rle
from data.tables import IMAGES, INSTANCES, Category, Split, write_split

CATEGORIES = [Category(7, "ring"), Category(3, "disc"), Category(20, "bar")]
HEIGHT, WIDTH = 24, 40


def tiny_masks() -> dict[str, np.ndarray]:
    """Named bool masks [24, 40]."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(rows - 11, columns - 12)
    return {
        "disc": distance < 5,
        "ring": (distance >= 5) & (distance < 9),
        "bar": (rows == 20) & (columns > 3) & (columns < 37),
        "crowd": (columns > 30) & (rows < 15),
        "empty": np.zeros((HEIGHT, WIDTH), dtype=bool),
    }


def instances_table(rows: list[dict[str, Any]]) -> pa.Table:
    """INSTANCES from rows with instance_id, image_id, category_id, mask, and unusual values."""
    full = []
    for row in rows:
        mask = row.pop("mask")
        counts = rle.encode(mask)
        usual = {
            "bbox_xywh": rle.bbox_xywh(counts, *mask.shape),
            "area": float(mask.sum()),
            "iscrowd": False,
            "rle_counts": counts,
            "source": "annotator",
            "score": None,
        }
        full.append(usual | row)
    return pa.Table.from_pylist(full, schema=INSTANCES)


def images_table(folder: Path, ids: list[int]) -> pa.Table:
    """IMAGES rows for images that are drawn into ``folder``: noise, seeded by the id."""
    rows = []
    for image_id in ids:
        name = f"image {image_id}.png"
        noise = np.random.default_rng(image_id).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), noise)
        rows.append(
            {
                "image_id": image_id,
                "file_name": name,
                "uri": name,
                "width": WIDTH,
                "height": HEIGHT,
                "sha256": sha256(folder / name),
                "split": "strong",
                "label": "mask",
                "status": "ok",
            }
        )
    return pa.Table.from_pylist(rows, schema=IMAGES)


@pytest.fixture
def make_split(tmp_path: Path) -> Callable[..., Split]:
    """Writes a split of images 30, 10, 20 (in this order): 10 with three objects and a crowd, 20 with
    none, 30 with an empty mask and a ring."""

    def make(name: str = "strong") -> Split:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        m = tiny_masks()
        rows = [
            {"instance_id": 5, "image_id": 30, "category_id": 7, "mask": m["ring"]},
            {"instance_id": 4, "image_id": 30, "category_id": 3, "mask": m["empty"]},
            {"instance_id": 9, "image_id": 10, "category_id": 20, "mask": m["bar"]},
            {"instance_id": 1, "image_id": 10, "category_id": 7, "mask": m["ring"]},
            {"instance_id": 3, "image_id": 10, "category_id": 3, "mask": m["crowd"], "iscrowd": True},
            {"instance_id": 2, "image_id": 10, "category_id": 3, "mask": m["disc"]},
        ]
        root = tmp_path / name
        write_split(root, images_table(folder, [30, 10, 20]), instances_table(rows), CATEGORIES, str(folder))
        return Split.open(root)

    return make


@pytest.fixture(scope="session")
def real_split(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Split]:
    """The val split of a data set in the shared folder, by its name; skips where it is absent."""

    def make(name: str) -> Split:
        path = shared_dir / "data" / name / "val.json"
        if not path.is_file():
            pytest.skip(f"{path} is absent")
        return split_of_coco(path, path.parent / "images", tmp_path_factory.mktemp("real") / name)

    return make
