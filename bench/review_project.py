"""Made projects to review: drawn images with clicks and pseudo masks, of any number, as the pipeline writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from data.masks.rle import area, bbox_xywh, encode_many, iou_matrix
from data.schemas import CLICKS
from data.tables import IMAGES, INSTANCES, POINTS, PSEUDO, Category, write_parquet, write_split

CLASSES = ("apple", "banana", "cherry")


class _Drawn(NamedTuple):
    """An image, and its objects."""

    code: bytes
    xy: np.ndarray
    classes: np.ndarray
    rough: list[bytes]
    refined: list[bytes]
    iou: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray


def write_project(
    folder: Path, images: int, objects: int, *, side: int = 128, drawn: int = 50, part_images: int = 1000,
    classes: Sequence[str] = CLASSES, proposers: Sequence[str] = (), seed: int = 0,
) -> None:  # fmt: skip
    """Writes workspace/dataset/weak, points and pseudo.

    Args:
        folder: the project's.
        images: their number; those beyond `drawn` show what earlier ones show.
        objects: on each image. The last one of each tenth image has no mask, every fifth object a rough one.
        side: of the images, in pixels.
        drawn: images that differ.
        part_images: images of a file of pseudo masks.
        classes: their names.
        proposers: names to record, in turn.
        seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    root = folder / "images"
    root.mkdir(parents=True)
    scenes = [_draw(rng, objects, side, len(classes)) for _ in range(min(images, drawn))]
    for n, scene in enumerate(scenes):
        (root / f"scene_{n:03d}.jpg").write_bytes(scene.code)
    rows = []
    for n in range(images):
        scene, uri = scenes[n % len(scenes)], f"scene_{n % len(scenes):03d}.jpg"
        digest = hashlib.sha256(scene.code).hexdigest()
        rows.append((n + 1, f"day/{n + 1:06d}.jpg", uri, side, side, digest, "weak", "point", "ok"))
    table = pa.table(dict(zip(IMAGES.names, map(list, zip(*rows, strict=True)), strict=True)), schema=IMAGES)
    categories = [Category(n + 1, name) for n, name in enumerate(classes)]
    workspace = folder / "workspace"
    write_split(workspace / "dataset" / "weak", table, INSTANCES.empty_table(), categories, str(root))
    parts = [
        _pseudo(rng, scenes, range(first, min(first + part_images, images)), objects, proposers)
        for first in range(0, images, part_images)
    ]
    for n, (pseudo, _) in enumerate(parts):
        write_parquet(pseudo, workspace / "pseudo" / f"part-{n:05d}.parquet")
    points = pa.concat_tables([points for _, points in parts])
    write_parquet(
        points.sort_by([("image_id", "ascending"), ("point_id", "ascending")]),
        workspace / "points" / "points.parquet",
    )
    (folder / "decisions").mkdir()


def _draw(rng: np.random.Generator, objects: int, side: int, classes: int) -> _Drawn:
    """Ellipses on a grid of places, so that they overlap little; their refined masks, and rough ones beside."""
    image = cv2.resize(
        rng.integers(40, 110, (8, 8, 3), np.uint8), (side, side), interpolation=cv2.INTER_CUBIC
    )
    across = int(np.ceil(np.sqrt(objects)))
    cell = side / across
    places = rng.permutation(across * across)[:objects]
    xy = np.stack([places % across, places // across], axis=1) * cell + cell / 2
    xy = xy + rng.uniform(-0.15, 0.15, xy.shape) * cell
    kinds = rng.integers(0, classes, objects)
    refined, rough = np.zeros((2, objects, side, side), np.uint8)
    for k, (x, y) in enumerate(xy.tolist()):
        axes = (max(2, int(cell * rng.uniform(0.2, 0.42))), max(2, int(cell * rng.uniform(0.2, 0.42))))
        colour = [60, 60, 60]
        colour[int(kinds[k]) % 3] = int(rng.integers(150, 256))
        angle = float(rng.uniform(0, 180))
        centre = (int(x), int(y))
        cv2.ellipse(image, centre, axes, angle, 0, 360, colour, -1)
        cv2.ellipse(refined[k], centre, axes, angle, 0, 360, 1, -1)
        moved = (int(x + cell * rng.normal(0, 0.06)), int(y + cell * rng.normal(0, 0.06)))
        cv2.ellipse(rough[k], moved, axes, angle, 0, 360, 1, -1)
    image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    codes = [encode_many(masks.view(np.bool_)) for masks in (rough, refined)]
    iou = np.array([iou_matrix([a], [b], side, side)[0, 0] for a, b in zip(*codes, strict=True)])
    return _Drawn(
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes(), xy, kinds, codes[0], codes[1], iou,
        np.array([bbox_xywh(code, side, side) for code in codes[1]], np.float32),
        np.array([area(code, side, side) for code in codes[1]], np.float32),
    )  # fmt: skip


def _pseudo(
    rng: np.random.Generator, scenes: Sequence[_Drawn], images: range, objects: int, proposers: Sequence[str]
) -> tuple[pa.Table, pa.Table]:
    """Rows of PSEUDO and POINTS of some images."""
    chosen = [scenes[n % len(scenes)] for n in images]
    count = len(images) * objects
    number = np.arange(count)
    first = images.start * objects
    ids = [hashlib.sha256(str(first + n).encode()).hexdigest()[:16] for n in range(count)]
    image_ids = np.repeat(np.arange(images.start, images.stop) + 1, objects)
    category = np.concatenate([scene.classes for scene in chosen]) + 1
    empty = (number % objects == objects - 1) & ((image_ids - 1) % 10 == 9)
    is_rough = (number % 5 == 4) & ~empty

    def column(values: list, kind: pa.DataType, null: np.ndarray) -> pa.Array:
        return pa.array([None if gone else value for value, gone in zip(values, null, strict=True)], kind)

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(scene, name) for scene in chosen])

    scores = np.clip(joined("iou") + rng.normal(0, 0.08, count), 0, 1).astype(np.float32)
    reasons = [
        "the teacher draws no mask at this point" if gone else "refinement came out empty" if rough else None
        for gone, rough in zip(empty, is_rough, strict=True)
    ]
    if proposers:
        names = [f"drawn by {proposers[n % len(proposers)]}" for n in range(count)]
        reasons = [
            why if gone else f"{why}; {name}" if why else name
            for why, name, gone in zip(reasons, names, empty, strict=True)
        ]
    boxes = joined("boxes")
    columns = {
        "point_id": ids,
        "image_id": image_ids,
        "category_id": category,
        "status": np.where(empty, "empty", np.where(is_rough, "rough", "ok")).tolist(),
        "reason": reasons,
        "level": column([0] * count, pa.int32(), empty),
        "class_score": column(scores.tolist(), pa.float32(), empty),
        "maskness": column(scores.tolist(), pa.float32(), empty),
        "score": column(scores.tolist(), pa.float32(), empty),
        "rough_rle": column([code for scene in chosen for code in scene.rough], pa.binary(), empty),
        "refined_rle": column(
            [code for scene in chosen for code in scene.refined], pa.binary(), empty | is_rough
        ),
        "iou_rough_refined": column(joined("iou").tolist(), pa.float32(), empty | is_rough),
        "bbox_xywh": column(boxes.tolist(), pa.list_(pa.float32(), 4), empty),
        "area": column(joined("areas").tolist(), pa.float32(), empty),
        "contains_point": column([True] * count, pa.bool_(), empty),
    }
    xy = joined("xy").astype(np.float32)
    points = {
        "point_id": ids, "image_id": image_ids, "category_id": category, "x": xy[:, 0], "y": xy[:, 1],
        "annotator": pa.nulls(count, pa.string()), "labelled_at": pa.nulls(count, pa.string()),
        "source_file": ["points.csv"] * count, "source_record": [str(first + n) for n in range(count)],
        "further": pa.nulls(count, CLICKS),
    }  # fmt: skip
    return pa.table(columns, schema=PSEUDO), pa.table(points, schema=POINTS)
