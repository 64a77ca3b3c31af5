"""What a plan is derived from: sizes of images and objects, classes, clicks, colours, and the machine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.errors import DataError
from data.images.read import read_ingested
from data.tables import Split

SAMPLED = 200
"""Images of a split whose colours are measured, spread evenly over it."""
SIDE = 64
"""Pixels of the copies on which colours are measured."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Facts:
    """Of a data set. N images are those of strong and weak, K objects those of strong that aren't crowds."""

    strong: int
    weak: int
    val: int
    kept_aside: int
    """Masks of weak images, to measure pseudo masks with"""
    classes: tuple[str, ...]
    masks: Mapping[str, int]
    """By class"""
    clicks: Mapping[str, int]
    short_sides: Floats
    """[N] pixels"""
    long_sides: Floats
    """[N]"""
    object_sizes: Floats
    """[K] square root of the area, in pixels of the image"""
    object_shares: Floats
    """[K] the same as a share of the image's short side"""
    object_lengths: Floats
    """[K] the longer side of the box"""
    per_image: Floats
    """Objects on each strong image with one or more"""
    clicks_per_image: Floats
    """Clicks on each weak image with one or more"""
    unlike_share: float
    """Of the sampled weak images: mean colour unlike that of each strong image"""
    unlike_images: tuple[str, ...]
    """Names of these, the most unlike first"""


@dataclass(frozen=True)
class Machine:
    """What trainings run on."""

    cores: int
    memory: int | None
    """Free bytes, if known"""
    gpu: str | None
    gpu_memory: int
    """Bytes; 0 without a GPU"""
    bf16: bool
    """Whether the GPU computes bfloat16; on a CPU the probe decides"""


def machine_facts(memory: int | None) -> Machine:
    """This machine's."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not torch.cuda.is_available():
        return Machine(cores, memory, None, 0, False)
    properties = torch.cuda.get_device_properties(0)
    return Machine(cores, memory, properties.name, properties.total_memory, torch.cuda.is_bf16_supported())


def data_facts(splits: Mapping[str, Split], points: pa.Table | None, *, colours: bool = True) -> Facts:
    """Of the splits that ingest wrote, and the usable points; without `colours` no image is read."""
    strong, weak = splits["strong"], splits["weak"]
    names = {one.id: one.name for one in strong.categories}
    usable = [split.images.filter(pc.equal(split.images["status"], "ok")) for split in (strong, weak)]
    images = pa.concat_tables(usable)
    sides = np.stack([images["width"].to_numpy(), images["height"].to_numpy()], 1).astype(np.float64)
    table = strong.instances
    objects = table.filter(pc.invert(table["iscrowd"])) if len(table) else table
    boxes = objects["bbox_xywh"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    sizes = np.sqrt(objects["area"].to_numpy().astype(np.float64))
    at = np.searchsorted(strong.images["image_id"].to_numpy(), objects["image_id"].to_numpy())
    short = np.minimum(strong.images["width"].to_numpy(), strong.images["height"].to_numpy())[at]
    labels = Counter(objects["category_id"].to_pylist())
    clicks: Counter[int] = Counter() if points is None else Counter(points["category_id"].to_pylist())
    clicked = [] if points is None else list(Counter(points["image_id"].to_pylist()).values())
    (_, own), (rows, others) = (
        _colours(one) if colours else ([], np.zeros((0, 3))) for one in (strong, weak)
    )
    distances = _distances(own, others)
    unlike = [weak.image(rows[n])["file_name"] for n in np.argsort(-distances) if distances[n] > FAR]
    return Facts(
        strong=len(usable[0]),
        weak=len(usable[1]),
        val=len(splits["val"]),
        kept_aside=len(splits["kept_aside"].instances) if "kept_aside" in splits else 0,
        classes=tuple(names.values()),
        masks={name: labels[id] for id, name in names.items()},
        clicks={name: clicks[id] for id, name in names.items()},
        short_sides=sides.min(1),
        long_sides=sides.max(1),
        object_sizes=sizes,
        object_shares=sizes / np.maximum(short, 1),
        object_lengths=boxes[:, 2:].max(1).astype(np.float64) if len(boxes) else np.zeros(0),
        per_image=np.array(list(Counter(objects["image_id"].to_pylist()).values()), np.float64),
        clicks_per_image=np.array(clicked, np.float64),
        unlike_share=len(unlike) / max(1, len(rows)),
        unlike_images=tuple(unlike),
    )


def _colours(split: Split) -> tuple[list[int], Floats]:
    """Rows of images that are spread evenly over the split, and [n, 3] their mean CIELAB, each 0 to 255."""
    spread = np.unique(np.linspace(0, len(split) - 1, min(SAMPLED, len(split))).round().astype(int))
    rows, found = [], []
    for row in spread.tolist() if len(split) else []:
        try:
            pixels = read_ingested(split, row)
        except DataError:  # the doctor reports it
            continue
        small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        rows.append(row)
        found.append(cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3).mean(0))
    return rows, np.array(found, np.float64).reshape(-1, 3)


FAR = 20.0
"""Distance of two mean colours in CIELAB (each axis 0 to 255) that a mild augmentation doesn't bridge. Facades of one
city are at most 17 apart; a fifth of the nuclei, stained ones, is 100 and more from all others."""


def _distances(strong: Floats, weak: Floats) -> Floats:
    """Of each weak image to the nearest strong one; 0 without strong ones."""
    if not len(strong):
        return np.zeros(len(weak))
    nearest: Floats = np.linalg.norm(weak[:, None] - strong[None], axis=2).min(1)
    return nearest
