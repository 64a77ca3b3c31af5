"""Parts of a project's data that are nested in each other, and a short schedule for the trainings on them.

A part takes the first images in an order by hash, so that a quarter is within the half at the same seed. Another seed
takes other images: the spread between seeds then has the chance of the choice in it, as new images have.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from data.storage import atomic_dir
from data.tables import DECISIONS, POINTS, Split, read_parquet, write_parquet, write_split
from tasks.common.errors import TaskError
from tasks.intake.decisions import FILE as DECISIONS_FILE
from tasks.intake.decisions import read_reviewed

MASK_SHARES = (0.25, 0.5, 1.0)
CLICK_SHARES = (0.5, 1.0)
LEAST_MASK_IMAGES = 4
"""Of a project: a quarter of them is one image."""
TRAININGS = ("teacher", "refiner", "student")


class Part(NamedTuple):
    """Shares of the images with masks and of those with clicks, and the seed of choice and trainings."""

    masks: float
    clicks: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"masks{100 * self.masks:.0f}-clicks{100 * self.clicks:.0f}-seed{self.seed}"


WHOLE = Part(1.0, 1.0, 0)


class Counts(NamedTuple):
    """The labels of a part: images, and the objects on them."""

    mask_images: int
    masks: int
    click_images: int
    clicks: int


class Data(NamedTuple):
    """What ingest and import_points wrote."""

    strong: Split
    weak: Split
    val: Split
    points: pa.Table
    decisions: pa.Table

    @classmethod
    def open(cls, workspace: Path) -> Data:
        """
        Raises:
            DataError: a table is missing.
        """
        strong, weak, val = (Split.open(workspace / "dataset" / name) for name in ("strong", "weak", "val"))
        points = read_parquet(workspace / "points" / "points.parquet", POINTS)
        return cls(strong, weak, val, points, read_reviewed(workspace / "points"))

    def mask_images(self) -> dict[int, str]:
        """Names of usable strong images, by id."""
        return _usable(self.strong)

    def click_images(self) -> dict[int, str]:
        """Names of usable weak images with a click or a reviewer's decision, by id; all others teach nothing."""
        labelled = {*self.points["image_id"].to_pylist(), *self.decisions["image_id"].to_pylist()}
        return {id: name for id, name in _usable(self.weak).items() if id in labelled}

    def parts(self, seeds: Sequence[int]) -> list[Part]:
        """All parts, the smallest first; without clicks those of the masks alone.

        Raises:
            TaskError: there are too few images with masks to take parts of them.
        """
        if (found := len(self.mask_images())) < LEAST_MASK_IMAGES:
            raise TaskError(
                f"{self.strong.root}: {found} images with masks, expected {LEAST_MASK_IMAGES} or more: the smallest "
                "part is a quarter of them. Draw masks on more images first"
            )
        clicks = CLICK_SHARES if len(self.click_images()) > 1 else (1.0,)
        return [Part(*one) for one in itertools.product(MASK_SHARES, clicks, seeds)]

    def counts(self, part: Part) -> Counts:
        """The labels of a part; crowds are no objects."""
        strong, weak = self.ids(part)
        own = pc.and_(_among(self.strong.instances, strong), pc.invert(self.strong.instances["iscrowd"]))
        clicks = _among(self.points, weak)
        return Counts(len(strong), pc.sum(own).as_py() or 0, len(weak), pc.sum(clicks).as_py() or 0)

    def ids(self, part: Part) -> tuple[list[int], list[int]]:
        """Ids of the part's images with masks, and of those with clicks."""
        return (
            first_share(self.mask_images(), part.masks, part.seed),
            first_share(self.click_images(), part.clicks, part.seed),
        )

    def write(self, part: Part, workspace: Path) -> None:
        """Writes workspace/dataset and workspace/points as ingest and import_points would of the part alone.

        No masks are kept aside: what is measured is the student on the whole val split.
        """
        strong, weak = self.ids(part)
        nothing: list[int] = []
        for name, split, ids in (
            ("strong", self.strong, strong),
            ("weak", self.weak, weak),
            ("val", self.val, None),
            ("kept_aside", self.weak, nothing),
        ):
            images, instances = split.images, split.instances
            if ids is not None:
                images, instances = (
                    images.filter(_among(images, ids)),
                    instances.filter(_among(instances, ids)),
                )
            root = Path(split.image_root).resolve()
            if not Path(split.image_root).is_absolute():  # a project that is moved keeps its parts
                root = Path(os.path.relpath(root, workspace.resolve().parent))
            write_split(workspace / "dataset" / name, images, instances, split.categories, root.as_posix())
        with atomic_dir(workspace / "points") as folder:
            write_parquet(self.points.filter(_among(self.points, weak)), folder / "points.parquet")
            decisions = self.decisions.filter(_among(self.decisions, weak))
            if len(decisions):
                write_parquet(decisions.cast(DECISIONS), folder / DECISIONS_FILE)


def val_hash(val: Split) -> str:
    """Of images and masks."""
    digest = hashlib.sha256()
    for name in ("images.arrow", "instances.arrow"):
        digest.update((val.root / name).read_bytes())
    return digest.hexdigest()[:16]


def first_share(names: Mapping[int, str], share: float, seed: int) -> list[int]:
    """Ids of the first images in the order of a hash: at least one, all at a share of 1. Ascending."""
    order = sorted(names, key=lambda id: (hashlib.sha256(f"{seed} {names[id]}".encode()).digest(), id))
    return sorted(order[: math.ceil(share * len(order) - 1e-9)])


def _usable(split: Split) -> dict[int, str]:
    columns = (split.images[name].to_pylist() for name in ("image_id", "file_name", "status"))
    return {id: name for id, name, status in zip(*columns, strict=True) if status == "ok"}


def _among(table: pa.Table, ids: Sequence[int]) -> pa.ChunkedArray:
    return pc.is_in(table["image_id"], pa.array(ids, pa.int64()))


def short_params(values: Mapping[str, Any], steps: int, seed: int, root: Path) -> dict[str, Any]:
    """Params for the trainings on parts: as in the project, but short, and from the same start for all parts.

    The student trains for `steps`; teacher and refiner for the same share of their steps. Step numbers of the schedules
    move with them. A student that would start from the promoted model starts from scratch: that model saw all data. No
    tracker shows these trainings.

    Args:
        values: the content of params.yaml.
        root: the project's folder, to which paths are relative.
    """
    found: dict[str, Any] = {
        name: dict(one) if isinstance(one, Mapping) else one for name, one in values.items()
    }
    factor = steps / found["student"]["steps"]
    for name in TRAININGS:
        found[name] = _scaled(found[name], factor)
    if found["student"]["start"] == "promoted":
        found["student"]["start"] = "scratch"
    found["seed"] = seed
    found["runtime"] = found["runtime"] | {"trackers": []}
    for section in ("teacher", "student"):
        found[section]["checkpoint"] = _absolute(found[section].get("checkpoint"), root)
    net = dict(found["refiner"]["net"])
    for network in (found["model"], net):
        backbone = dict(network["backbone"])
        network["backbone"] = backbone | {"weights": _absolute(backbone["weights"], root)}
    found["refiner"]["net"] = net
    if network := found["student"].get("network"):
        found["student"]["network"] = network | {"weights": _absolute(network.get("weights"), root)}
    proposers = dict(found["proposers"])
    if proposers.get("sam"):
        proposers["sam"] = proposers["sam"] | {"weights": _absolute(proposers["sam"]["weights"], root)}
    found["proposers"] = proposers
    return found


def _scaled(training: Mapping[str, Any], factor: float) -> dict[str, Any]:
    steps = max(2, round(factor * training["steps"]))
    scaled = dict(training) | {"steps": steps}
    for key in ("warmup_steps", "decay_at", "milestones"):
        value = training.get(key)
        if isinstance(value, list):  # shares stay
            moved = [
                min(max(1, round(factor * one)), steps - 1) if isinstance(one, int) else one for one in value
            ]
            scaled[key] = list(dict.fromkeys(moved))
        elif isinstance(value, int):
            scaled[key] = round(factor * value)
    return scaled


def _absolute(path: str | None, root: Path) -> str | None:
    """A path of the project; names that aren't one stay."""
    return str((root / path).resolve()) if path is not None and (root / path).exists() else path
