"""A COCO instances file of COCO's size and kind, drawn from a seed: what ingest is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson

IMAGES, ANNOTATIONS, CLASSES = 118_000, 860_000, 80
SHAPES = 2_000  # outlines to draw from; each object scales and moves one of them
CROWDS = 0.012
BATCH = 20_000


def outlines(rng: np.random.Generator) -> list[np.ndarray]:
    """Closed outlines [V, 2] around 0 of radius about 1, of as many vertices as COCO's: 5 to 150, mostly 15 to 30."""
    made = []
    for _ in range(SHAPES):
        vertices = int(np.clip(rng.lognormal(3.17, 0.6), 5, 150))
        angles = np.sort(rng.random(vertices)) * 2 * np.pi
        waves = sum(rng.normal(0, 0.25 / k) * np.cos(k * angles + rng.random() * 6) for k in range(1, 6))
        radius = np.clip(1 + waves, 0.2, 2)
        made.append(np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1))
    return made


def write_coco_scale(
    path: Path, *, images: int = IMAGES, annotations: int = ANNOTATIONS, seed: int = 0
) -> None:
    """Write such a file: keys in COCO's order, the categories last; the same seed gives the same bytes.

    Objects are of a lognormal size, a tenth in two parts; crowds are uncompressed RLEs of some hundred runs.
    """
    rng = np.random.default_rng(seed)
    shapes = outlines(rng)
    sizes = np.array([[640, 480], [640, 427], [480, 640], [500, 375], [612, 612]])[
        rng.integers(5, size=images)
    ]
    image_ids = rng.permutation(images * 5)[:images] + 1
    ids = rng.permutation(annotations * 2)[:annotations] + 1
    with path.open("wb") as file:
        file.write(b'{"info": {"description": "generated"}, "licenses": [], "images": [')
        for at in range(0, images, BATCH):
            rows = [_image(int(image_ids[n]), *sizes[n].tolist()) for n in range(at, min(at + BATCH, images))]
            file.write(b", " * (at > 0) + orjson.dumps(rows)[1:-1])
        file.write(b'], "annotations": [')
        for at in range(0, annotations, BATCH):
            rows = []
            for n in range(at, min(at + BATCH, annotations)):
                owner = int(rng.integers(images))
                rows.append(_annotation(int(ids[n]), int(image_ids[owner]), sizes[owner], shapes, rng))
            file.write(b", " * (at > 0) + orjson.dumps(rows)[1:-1])
        names = [{"supercategory": "thing", "id": k + 1, "name": f"class {k + 1}"} for k in range(CLASSES)]
        file.write(b'], "categories": ' + orjson.dumps(names) + b"}")


def _image(image_id: int, width: int, height: int) -> dict[str, Any]:
    name = f"{image_id:012}.jpg"
    return {
        "license": 1, "file_name": name, "coco_url": f"http://images.example/train/{name}", "height": height,
        "width": width, "date_captured": "2013-11-14 11:18:45", "id": image_id,
    }  # fmt: skip


def _annotation(
    annotation_id: int, image_id: int, size: np.ndarray, shapes: list[np.ndarray], rng: np.random.Generator
) -> dict[str, Any]:
    width, height = size.tolist()
    crowd = bool(rng.random() < CROWDS)
    radius = float(np.clip(rng.lognormal(3.4, 1.0), 2, 250))
    centre = rng.random(2) * size
    segmentation: Any
    if crowd:
        cuts = np.sort(rng.choice(width * height, 400, replace=False))
        segmentation = {
            "counts": np.diff(cuts, prepend=0, append=width * height).tolist(),
            "size": [height, width],
        }
        box, area = [0.0, 0.0, float(width), float(height)], float(width * height) / 2
    else:
        parts = []
        for shift in (0.0, 1.2)[: 1 + bool(rng.random() < 0.1)]:
            outline = shapes[int(rng.integers(SHAPES))] * radius + centre + shift * radius
            parts.append(np.clip(outline, 0, size).round(2))
        segmentation = [part.ravel().tolist() for part in parts]
        low, high = parts[0].min(axis=0), parts[0].max(axis=0)
        box = [*low.tolist(), *(high - low).round(2).tolist()]
        area = 3.0 * radius * radius
    return {
        "segmentation": segmentation, "area": area, "iscrowd": int(crowd), "image_id": image_id, "bbox": box,
        "category_id": int(rng.integers(CLASSES)) + 1, "id": annotation_id,
    }  # fmt: skip
