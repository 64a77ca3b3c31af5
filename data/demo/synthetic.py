"""The demo data set: synthetic scenes with strong, weak and validation images, masks and clicks.

Files under the set's root:
    dataset/images/*.png
    dataset/annotations/strong.json, val.json    COCO instances
    dataset/annotations/weak.json                images only
    dataset/annotations/kept_aside.json          the weak images with their masks, for evaluation
    points/clicks.json                           COCO style: one click per object of a weak image
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data import storage
from data.annotations.coco.file import write_json
from data.demo.clicks import click_record, random_inner_point
from data.demo.fruit import FRUIT
from data.demo.scenes import Scene, SceneConfig, draw_scene
from data.errors import DataError, Fault
from data.masks import rle

# First word of the seed of each random stream; a new stream changes no other.
_SCENE = {"train": 1, "val": 2}
_CLICKS = 3


def draw_dataset(
    root: str | os.PathLike[str],
    *,
    train_images: int,
    val_images: int,
    strong_share: float,
    seed: int,
    **scene: Any,
) -> dict[str, int]:
    """Draw the data set into ``root/dataset`` and ``root/points``, each atomically.

    Image i of a split depends only on seed, split, i and the scene's settings: a larger set begins with the images of a
    smaller one, and the share of strong images changes no image.

    Args:
        root: folder to fill.
        train_images: number of strong and weak images.
        val_images: number of validation images.
        strong_share: share of the train images that are strong, in (0, 1); at least one is.
        seed: of all random numbers.
        scene: the fields of ``SceneConfig``.

    Returns:
        Counts of images, objects and clicks.

    Raises:
        DataError: values out of range.
    """
    config = SceneConfig(**scene | {"classes": tuple(scene["classes"])})
    size = config.image_size
    _check(config, train_images, val_images, strong_share)
    strong_images = max(1, round(train_images * strong_share))
    documents = {name: _document(config.classes) for name in ("strong", "weak", "kept_aside", "val")}
    clicks = _document(config.classes)
    with storage.atomic_dir(Path(root) / "dataset") as folder:
        (folder / "images").mkdir()
        for image_id in range(1, train_images + val_images + 1):
            split, i = (
                ("train", image_id - 1) if image_id <= train_images else ("val", image_id - 1 - train_images)
            )
            drawn = draw_scene(np.random.default_rng([seed, _SCENE[split], i]), config)
            file_name = f"{split}_{i:06d}.png"
            (folder / "images" / file_name).write_bytes(_png(drawn))
            image = {"id": image_id, "file_name": file_name, "width": size, "height": size}
            annotations = _annotations(image_id, drawn)
            name = "val" if split == "val" else "strong" if i < strong_images else "kept_aside"
            documents[name]["images"].append(image)
            documents[name]["annotations"] += annotations
            if name == "kept_aside":
                documents["weak"]["images"].append(image)
                clicks["images"].append(image)
                clicks["annotations"] += _clicks(
                    annotations, drawn, np.random.default_rng([seed, _CLICKS, i])
                )
        for name, document in documents.items():
            write_json(document, folder / "annotations" / f"{name}.json")
    with storage.atomic_dir(Path(root) / "points") as folder:
        write_json(clicks, folder / "clicks.json")
    return {
        "strong_images": len(documents["strong"]["images"]),
        "weak_images": len(documents["weak"]["images"]),
        "val_images": len(documents["val"]["images"]),
        "strong_objects": len(documents["strong"]["annotations"]),
        "weak_objects": len(documents["kept_aside"]["annotations"]),
        "val_objects": len(documents["val"]["annotations"]),
        "clicks": len(clicks["annotations"]),
    }


def _document(classes: tuple[str, ...]) -> dict[str, Any]:
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, start=1)]
    return {"images": [], "annotations": [], "categories": categories}


def _png(scene: Scene) -> bytes:
    _, png = cv2.imencode(".png", scene.image[:, :, ::-1])
    return png.tobytes()


def _annotations(image_id: int, scene: Scene) -> list[dict[str, Any]]:
    annotations = []
    for k, (mask, chosen) in enumerate(zip(scene.masks, scene.classes, strict=True)):
        height, width = mask.shape
        counts = rle.encode(mask)
        annotations.append(
            {
                "id": image_id * 1000 + k,
                "image_id": image_id,
                "category_id": chosen + 1,
                "segmentation": {"size": [height, width], "counts": counts.decode("ascii")},
                "area": rle.area(counts, height, width),
                "bbox": list(rle.bbox_xywh(counts, height, width)),
                "iscrowd": 0,
            }
        )
    return annotations


def _clicks(
    annotations: list[dict[str, Any]], scene: Scene, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """One click per object, anywhere on its visible part, with the id of the object."""
    clicks = []
    for annotation, mask in zip(annotations, scene.masks, strict=True):
        x, y = random_inner_point(mask, rng)
        clicks.append(click_record(annotation, x, y))
    return clicks


def _check(config: SceneConfig, train_images: int, val_images: int, strong_share: float) -> None:
    """Raise a DataError of every value out of range."""
    tests = [
        ("classes", config.classes, bool(config.classes) and set(config.classes) <= FRUIT.keys()
            and len(set(config.classes)) == len(config.classes), f"different names of {', '.join(FRUIT)}"),
        ("train_images", train_images, train_images >= 2, "2 or more: one strong, one weak"),
        ("val_images", val_images, val_images >= 1, "1 or more"),
        ("strong_share", strong_share, 0 < strong_share < 1
            and round(train_images * strong_share) < train_images, "between 0 and 1, leaving a weak image"),
        ("image_size", config.image_size, config.image_size >= 16, "16 or more"),
        ("objects_min, objects_max", (config.objects_min, config.objects_max),
            0 <= config.objects_min <= config.objects_max <= 999, "0 <= objects_min <= objects_max <= 999"),
        ("size_min, size_max", (config.size_min, config.size_max),
            4 <= config.size_min <= config.size_max <= config.image_size,
            "4 <= size_min <= size_max <= image_size"),
        ("distractors", config.distractors, config.distractors >= 0, "0 or more"),
        *((name, value, 0 <= value <= 1, "between 0 and 1") for name, value in (
            ("overlap", config.overlap), ("noise", config.noise))),
    ]  # fmt: skip
    faults = [
        Fault("demo", name, str(found), expected, "correct this value")
        for name, found, good, expected in tests
        if not good
    ]
    if faults:
        raise DataError(faults)
