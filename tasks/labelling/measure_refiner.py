"""Measures refinement on held-out strong images, on which neither teacher nor refiner was trained.

Every object gets two clicks, at a random inner pixel and at its mass centre, as annotators and the paper do. All
objects of an image are clicked at once, as in pseudo-labelling, since masks at clicks exclude each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.masks.rle import decode_many
from data.tables import Split, class_indices
from models.masks.boxes import areas_in
from models.masks.geometry import random_inner_points
from models.refiner.network import MaskRefineNet
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.common.progress import Bar
from tasks.inference.batches import load_batches
from tasks.labelling.gate import Gate, Measured, build_gate, unmeasured
from tasks.labelling.labeller import GatedRefiner
from tasks.labelling.predicted_iou import ROW_FEATURES, Floats, row_features
from tasks.labelling.proposer import Chooser, Proposer, draw
from tasks.labelling.types import Drawn, ImageContext, PointMasks, contains_points

CLICKS = ("random", "centre")


class Objects(NamedTuple):
    """The objects of an image, without crowds and empty masks."""

    ids: list[int]
    labels: Tensor
    masks: Tensor


class Records:
    """What is measured of masks, one image after another."""

    def __init__(self) -> None:
        self._images: list[int] = []
        self._objects: list[int] = []
        self._clicks: list[str] = []
        self._figures: list[Tensor] = []
        self._features: list[Floats] = []

    def add(
        self, context: ImageContext, objects: Objects, image_id: int, click: str, points_xy: Tensor,
        drawn: Drawn, masks: PointMasks,
    ) -> None:  # fmt: skip
        """Appends a row for each object of an image.

        Args:
            click: the kind (of CLICKS) of the clicks `points_xy` [K, 2].
            drawn, masks: at these clicks, refined whatever a gate says.
        """
        rough, final, stats = drawn.rough, masks.final, masks.stats
        areas = areas_in(rough.masks, rough.boxes_xyxy).double() * context.area_scale
        self._images += [image_id] * len(objects.ids)
        self._objects += objects.ids
        self._clicks += [click] * len(objects.ids)
        iou = [paired_iou(masks, objects.masks) for masks in (rough.masks, final)]
        self._figures.append(torch.stack([areas, *iou]).cpu())
        change = paired_iou(rough.masks, final).cpu()
        kept = stats.kept_rough | stats.taken
        scores = stats.class_score.nan_to_num(), stats.maskness.nan_to_num()
        self._features.append(
            np.stack(
                [
                    row_features(*scores, change, rough_stays, ~contains_points(drawn_masks, points_xy).cpu())
                    for drawn_masks, rough_stays in ((rough.masks, torch.ones_like(kept)), (final, kept))
                ],
                axis=1,
            )
        )

    def measured(self) -> Measured:
        """All rows."""
        nothing, no_features = torch.empty(3, 0, dtype=torch.float64), np.empty((0, 2, len(ROW_FEATURES)))
        areas, rough_iou, refined_iou = torch.cat([nothing, *self._figures], 1).numpy()
        return Measured(
            np.array(self._images, np.int64), np.array(self._objects, np.int64), np.array(self._clicks, np.str_),
            areas, rough_iou, refined_iou, np.concatenate([no_features, *self._features]),
        )  # fmt: skip


@torch.no_grad()
def measure(
    params: Params,
    strong: Split,
    held_out: Collection[int],
    proposer: Proposer,
    refiners: Mapping[int, MaskRefineNet],
    device: torch.device,
) -> dict[int, Measured]:
    """IoU of rough and refined masks at all clicks, for each refiner; the same clicks in the same order.

    Args:
        strong: the split of `held_out`, image ids.
        proposer: the teacher; on `device`.
        refiners: on `device`, in eval mode, by the step of their training.

    Raises:
        TaskError: images can't be read; all are listed.
    """
    config = params.refiner
    refine_all = unmeasured(0, enlarge=config.enlarge, rounds=config.rounds)
    gated = {step: GatedRefiner(network, refine_all, config.crops) for step, network in refiners.items()}
    records = {step: Records() for step in refiners}
    for image_id, context, objects in held_out_images(
        params, strong, held_out, proposer, device, "train_refiner"
    ):
        for click in CLICKS:
            points = click_points(objects.masks, click, params.seed, image_id)
            drawn = draw(proposer, context, points, objects.labels, params.prompt)
            for step, refiner in gated.items():
                masks = refiner.refine(context, drawn, points, objects.labels, params.prompt)
                records[step].add(context, objects, image_id, click, points, drawn, masks)
    return {step: found.measured() for step, found in records.items()}


def gate_of(params: Params, by_step: Mapping[int, Measured], held_out_images: int) -> Gate:
    """The gate by the settings of section `refiner`; see `build_gate`."""
    config = params.refiner
    return build_gate(
        by_step, held_out_images, bins=config.gate_bins, min_objects=config.gate_min_objects,
        min_images=config.gate_min_images, errors=config.gate_errors, enlarge=config.enlarge, rounds=config.rounds,
    )  # fmt: skip


def held_out_images(
    params: Params,
    strong: Split,
    held_out: Collection[int],
    proposer: Proposer | Chooser,
    device: torch.device,
    stage: str,
) -> Iterator[tuple[int, ImageContext, Objects]]:
    """Held-out images with objects: id, context and objects; shows progress as `stage`.

    Raises:
        TaskError: images can't be read; all are listed.
    """
    ids = strong.images["image_id"].to_pylist()
    rows = [row for row, image_id in enumerate(ids) if image_id in held_out]
    faults: list[str] = []
    with Bar(f"{stage}: held-out images", len(rows), "image") as bar:
        size, workers = params.refiner.batch_size, params.runtime.workers
        for batch, failed in load_batches(strong, rows, params.input, size, workers):
            faults += [one.fault for one in failed]
            if batch is None or faults:
                continue  # only to list all images that can't be read
            for row, context in zip(batch.rows, proposer.encode(batch), strict=True):
                objects = objects_of(strong, row, device)
                if objects.ids:
                    yield ids[row], context, objects
            bar.advance(len(batch.rows))
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise TaskError(
            f"{len(faults)} held-out strong images can't be read:\n{listed}\nBring them back and run again"
        )


def objects_of(split: Split, row: int, device: torch.device) -> Objects:
    """The objects of an image of a split."""
    image = split.image(row)
    instances = [one for one in split.instances_of(row).to_pylist() if not one["iscrowd"]]
    masks = decode_many([one["rle_counts"] for one in instances], image["height"], image["width"])
    held = np.flatnonzero(masks.reshape(len(masks), -1).any(1)) if len(masks) else np.arange(0)
    class_of = class_indices(split.categories)
    return Objects(
        [instances[k]["instance_id"] for k in held],
        torch.tensor([class_of[instances[k]["category_id"]] for k in held], dtype=torch.long, device=device),
        torch.from_numpy(masks[held]).to(device),
    )


def click_points(masks: Tensor, click: str, seed: int, image_id: int) -> Tensor:
    """Float32 [K, 2] on the masks' device: one click per object of bool masks [K, H, W], none of them empty.

    `random`: the centre of one of its pixels, drawn by seed and image; `centre`: the mean of its pixels' centres, which
    may be outside the object.
    """
    if click == "random":
        digest = hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        return random_inner_points(masks.cpu(), 1, generator)[:, 0].to(masks.device)
    columns, rows = masks.sum(1).double(), masks.sum(2).double()
    across, down = (torch.arange(len(side[0]), device=masks.device) + 0.5 for side in (columns, rows))
    area = rows.sum(1, keepdim=True)
    return (torch.stack([columns @ across.double(), rows @ down.double()], 1) / area).float()


def paired_iou(found: Tensor, true: Tensor) -> Tensor:
    """Float64 [K] of bool masks [K, H, W], pair by pair; 0 for two empty ones."""
    overlap = (found & true).flatten(1).sum(1).double()
    return overlap / (found | true).flatten(1).sum(1).clamp(min=1)
