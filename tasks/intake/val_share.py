"""A share of the images with masks as the val split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.annotations.coco.checks import WrongAreas
from data.annotations.coco.file import CocoFile, to_instances

_ANY = -(2**63) - 1
"""Stands for any class; ids are whole numbers of 64 bits."""


def choose(classes_of: Mapping[str, Set[int]], share: float) -> set[str]:
    """The images of val, by file_name.

    Each image has a number from 0 to 1, a hash of its file_name with a fixed seed, and is one of val if that is below
    `share`. So val has about that share of the images, an image stays where it is when others are added, and another
    `seed` of the training is measured on the same images. Then, from the rarest class on, a class that two or more
    images have and that is missing on one side gets the image there whose number is nearest to `share`, of those that
    are no other class's only image on their side. If a side still has no image with an object, it gets one likewise.

    Args:
        classes_of: the classes of each image's objects; empty for an image without.
        share: above 0, below 1.
    """
    distance = {name: _number(name) - share for name in classes_of}
    nearest = sorted(classes_of, key=lambda name: (abs(distance[name]), name))
    val = {name for name in nearest if distance[name] < 0}
    images: dict[int, list[str]] = {}
    for name in nearest:
        for one in classes_of[name] | {_ANY} if classes_of[name] else ():
            images.setdefault(one, []).append(name)
    counts = {one: Counter(name in val for name in own) for one, own in images.items()}
    for one in sorted(images, key=lambda one: (one == _ANY, len(images[one]), one)):
        for in_val in (True, False):
            if len(images[one]) < 2 or counts[one][in_val]:
                continue
            moved = next(
                (name for name in images[one] if _can_leave(classes_of[name], not in_val, counts)), None
            )
            if moved is None and one == _ANY:
                moved = images[one][0]
            if moved is not None:
                val ^= {moved}
                for other in classes_of[moved] | {_ANY}:
                    counts[other][in_val] += 1
                    counts[other][not in_val] -= 1
    return val


def _can_leave(classes: Set[int], side: bool, counts: Mapping[int, Counter[bool]]) -> bool:
    """Whether no class that several images have loses its only image on this side."""
    return all(counts[one].total() < 2 or counts[one][side] > 1 for one in classes)


def _number(name: str) -> float:
    digest = hashlib.sha256(f"points2model val {name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split_val(strong: CocoFile, share: float, crowds_are_objects: bool) -> tuple[CocoFile, CocoFile]:
    """The file of strong images without those of val, and that of val; rejected annotations stay with strong."""
    table = to_instances(strong)
    is_object = np.ones(len(table), bool) if crowds_are_objects else ~_column(table, "iscrowd").astype(bool)
    classes_of: dict[int, set[int]] = {row["id"]: set() for row in strong.images}
    pairs = np.stack([_column(table, "image_id"), _column(table, "category_id")], axis=1)[is_object]
    for image_id, category_id in np.unique(pairs, axis=0).tolist():
        classes_of[image_id].add(category_id)
    chosen = choose({row["file_name"]: classes_of[row["id"]] for row in strong.images}, share)
    ids = [row["id"] for row in strong.images if row["file_name"] in chosen]
    is_val = np.isin(_column(table, "image_id"), ids)
    parts = []
    for wanted in (False, True):
        rows = [row for row in strong.images if (row["file_name"] in chosen) == wanted]
        parts.append(replace(strong, images=rows, instances=table.filter(pa.array(is_val == wanted))))
    return parts[0], replace(parts[1], rejected=(), wrong_areas=WrongAreas())


def _column(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(table[name].to_numpy(zero_copy_only=False))
