"""Random data sets and results, for the tests of COCO's evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

from data.masks import rle

CLASSES = (3, 5, 11)


def random_set(
    seed: int, *, images: int, objects: int, found: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ellipses on 60 x 80 images: `objects` true ones and `found` results an image at most, some good, some wrong.

    With crowds, false classes, equal scores, doubles, sizes on the bounds 8 and 20, images without objects or results,
    and a class without objects. Ids begin at 0, as some tools write them.
    """
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id in range(images):
        boxes = [_box(rng) for _ in range(rng.integers(objects + 1))]
        for box in boxes:
            mask = _ellipse(*box)
            annotations.append(
                {
                    "id": len(annotations), "image_id": image_id, "category_id": int(rng.choice(CLASSES[:2])),
                    "segmentation": _rle(mask), "area": float(rng.choice([mask.sum(), 64, 400])),
                    "bbox": [0.0, 0.0, 1.0, 1.0], "iscrowd": int(rng.random() < 0.1),
                }
            )  # fmt: skip
        own = annotations[len(annotations) - len(boxes) :]
        for _ in range(rng.integers(found + 1)):
            n = int(rng.integers(len(boxes))) if boxes and rng.random() < 0.8 else None
            box = _box(rng) if n is None else boxes[n]
            box = tuple(value + float(rng.normal(0, 0.6)) for value in box)
            category_id = (
                int(rng.choice(CLASSES)) if n is None or rng.random() < 0.1 else own[n]["category_id"]
            )
            mask = _ellipse(*box)
            if mask.any():
                results.append(
                    {
                        "image_id": image_id, "category_id": category_id, "score": float(rng.integers(1, 30) / 30),
                        "segmentation": _rle(mask),
                    }
                )  # fmt: skip
    return {
        "images": [{"id": n, "height": 60, "width": 80} for n in range(images)],
        "categories": [{"id": n, "name": f"class {n}"} for n in CLASSES],
        "annotations": annotations,
    }, results


def _box(rng: np.random.Generator) -> tuple[float, ...]:
    return (*rng.uniform(0, (80, 60)).tolist(), *rng.uniform(2, 18, 2).tolist())


def _ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    rows, columns = np.mgrid[:60, :80]
    return ((columns + 0.5 - x) / max(a, 1)) ** 2 + ((rows + 0.5 - y) / max(b, 1)) ** 2 < 1


def _rle(mask: np.ndarray) -> dict[str, Any]:
    return {"size": [60, 80], "counts": rle.encode(mask).decode()}
