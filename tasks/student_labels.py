"""What the student learns from the weak images: masks, and regions about which nothing is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.masks import BoolArray, area, bbox_xywh, decode, encode
from data.tables import INSTANCES, Split, write_split
from tasks.config import StudentConfig
from tasks.errors import TaskError


def with_pseudo_masks(
    weak: Split, strong: Split, points: pa.Table, pseudo: pa.Table, config: StudentConfig, folder: Path
) -> Split:
    """The weak images that have a usable pseudo mask, with these as their instances; a split of its own in `folder`.

    A refined mask stands for the rough one where `masks` is `refined` and refinement gave one. Weak images without
    any usable mask are left out: to learn from them would teach that they show nothing.

    A point without a usable mask, on an image that has others, still tells that an object is there. With `unusable:
    ignore` its surroundings become a crowd, which teaches neither object nor background: its rough mask where there
    is one, and a disc around the point, as large as the class's median mask on the strong images.

    Raises:
        TaskError: pseudo labels of points that `points` doesn't have.
    """
    sizes = {row["image_id"]: row for row in weak.images.select(["image_id", "height", "width"]).to_pylist()}
    rows = pseudo.to_pylist()
    usable = [row for row in rows if _mask_of(row, config) is not None]
    held = {row["image_id"] for row in usable}
    columns: dict[str, list[object]] = {name: [] for name in INSTANCES.names}

    def add(row: Mapping[str, Any], rle: bytes, score: float | None, *, crowd: bool) -> None:
        height, width = sizes[row["image_id"]]["height"], sizes[row["image_id"]]["width"]
        columns["instance_id"].append(len(columns["instance_id"]))
        columns["image_id"].append(row["image_id"])
        columns["category_id"].append(row["category_id"])
        columns["bbox_xywh"].append(bbox_xywh(rle, height, width))
        columns["area"].append(area(rle, height, width))
        columns["iscrowd"].append(crowd)
        columns["rle_counts"].append(rle)
        columns["source"].append("pseudo")
        columns["score"].append(score)

    for row in usable:
        rle = _mask_of(row, config)
        assert rle is not None
        add(row, rle, row["score"] if config.weight_by_score else 1.0, crowd=False)
    if config.unusable == "ignore":
        lost = [row for row in rows if row["image_id"] in held and _mask_of(row, config) is None]
        places = _places(points, lost)
        radii = _radii(strong)
        typical = float(np.median(list(radii.values()))) if radii else 0.0
        for row in lost:
            height, width = sizes[row["image_id"]]["height"], sizes[row["image_id"]]["width"]
            region = disc(places[row["point_id"]], radii.get(row["category_id"], typical), height, width)
            if row["rough_rle"] is not None:
                region |= decode(row["rough_rle"], height, width)
            add(row, encode(region), None, crowd=True)
    images = weak.images.filter(pa.compute.is_in(weak.images["image_id"], pa.array(held, pa.int64())))
    instances = pa.table(columns, schema=INSTANCES)
    write_split(folder, images, instances, weak.categories, weak.image_root)
    return Split.open(folder)


def disc(centre: tuple[float, float], radius: float, height: int, width: int) -> BoolArray:
    """Bool [height, width]: pixels whose centre is at most `radius` pixels from `centre` (x, y), and the one that
    holds it; points beyond the image count as on its edge."""
    x, y = min(max(centre[0], 0.0), width), min(max(centre[1], 0.0), height)
    rows, columns = np.ogrid[:height, :width]
    held: BoolArray = (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2
    held[min(int(y), height - 1), min(int(x), width - 1)] = True
    return held


def _mask_of(row: Mapping[str, Any], config: StudentConfig) -> bytes | None:
    """The mask to learn from, None where there is none or its score is too low."""
    if row["status"] not in ("ok", "rough") or row["score"] < config.min_score:
        return None
    refined: bytes | None = row["refined_rle"] if config.masks == "refined" else None
    return refined or row["rough_rle"]


def _places(points: pa.Table, rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """x, y of the points of pseudo labels, by point id."""
    named = points.select(["point_id", "x", "y"]).to_pylist()
    places = {point["point_id"]: (point["x"], point["y"]) for point in named}
    unknown = sorted({str(row["point_id"]) for row in rows} - places.keys())
    if unknown:
        raise TaskError(
            f"pseudo labels of {len(unknown)} points that points.parquet doesn't have ({', '.join(unknown[:5])}"
            f"{', ...' * (len(unknown) > 5)}); run `dvc repro pseudo_label`"
        )
    return places


def _radii(strong: Split) -> dict[int, float]:
    """Of each class the radius, in pixels, of a disc as large as the median of its masks; crowds don't count."""
    columns = (strong.instances[name].to_pylist() for name in ("category_id", "area", "iscrowd"))
    areas: dict[int, list[float]] = {}
    for category_id, pixels, crowd in zip(*columns, strict=True):
        if not crowd and pixels > 0:
            areas.setdefault(category_id, []).append(pixels)
    return {category_id: math.sqrt(float(np.median(own)) / math.pi) for category_id, own in areas.items()}
