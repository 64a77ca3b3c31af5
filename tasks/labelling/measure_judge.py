"""Fits the judge, and the gate of each proposer, on held-out strong images.

The clicks are those of the gate (measure_refiner.py): each object at a random inner pixel and at its mass centre.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from data.tables import Split, class_indices
from models.refiner.network import MaskRefineNet
from tasks.common.config import Params
from tasks.inference.batches import resized_shape
from tasks.labelling.gate import Measured, unmeasured
from tasks.labelling.judge import FEATURES, Judge, Judged, fit_judge, in_words, without_rules
from tasks.labelling.labeller import GatedRefiner
from tasks.labelling.measure_refiner import (
    CLICKS,
    Records,
    click_points,
    gate_of,
    held_out_images,
)
from tasks.labelling.predicted_iou import Floats
from tasks.labelling.proposer import Proposer
from tasks.labelling.several import Several, sources_of

log = logging.getLogger(__name__)


def decide(
    params: Params,
    strong: Split,
    held_out: Collection[int],
    named: tuple[tuple[str, Proposer], ...],
    refiner: MaskRefineNet,
    step: int,
    device: torch.device,
    stage: str,
) -> Judge:
    """The judge, with the gate of each proposer's masks.

    Args:
        strong: the split of `held_out`, ids of images that no proposer was trained on.
        named: the proposers, on `device`. Unless another is shown to be better a student draws all masks, since it
            learnt from more images than the teacher; without one the first proposer.
        refiner: on `device`, in eval mode.
        step: of its training.
        stage: the one that calls.

    Raises:
        TaskError: images can't be read; all are listed.
    """
    names = [source.name for source in sources_of(named)]
    own = "student" if "student" in names else named[0][0]
    areas = typical_areas(params, strong)
    features, has_mask, measured = measure_sources(
        params, strong, held_out, named, refiner, areas, device, stage
    )
    gates = {
        name: gate_of(params, {step: one}, len(held_out)) for name, one in zip(names, measured, strict=True)
    }
    iou = [gates[name].final_iou(one) for name, one in zip(names, measured, strict=True)]
    judged = Judged(measured[0].images, features, np.stack(iou, 1), has_mask)
    judge = fit_judge(names, judged, own, gates, areas)
    log.info("%s: %s", stage, in_words(judge))
    return judge


def measure_sources(
    params: Params,
    strong: Split,
    held_out: Collection[int],
    named: tuple[tuple[str, Proposer], ...],
    refiner: MaskRefineNet,
    areas: tuple[float, ...],
    device: torch.device,
    stage: str,
) -> tuple[Floats, NDArray[np.bool_], list[Measured]]:
    """Of the same clicks in the same order: what the judge sees (as `Judged` has it), and each source's masks."""
    config = params.refiner
    gate = unmeasured(0, enlarge=config.enlarge, rounds=config.rounds)
    refine_all = GatedRefiner(refiner, gate, config.crops)
    free = params.prompt.model_copy(update={"exclusive": "none"})
    names = [source.name for source in sources_of(named)]
    several = Several(named, without_rules(names, names[0], dict.fromkeys(names, gate), areas))
    count = len(names)
    records = [Records() for _ in range(count)]
    features, has_mask = [np.empty((0, count, len(FEATURES)))], [np.empty((0, count), np.bool_)]
    for image_id, context, objects in held_out_images(params, strong, held_out, several, device, stage):
        for click in CLICKS:
            points = click_points(objects.masks, click, params.seed, image_id)
            proposed = several.propose(context, points, objects.labels)
            overlapping = several.place(proposed, context, points, objects.labels, free)
            seen, drawn_at_all = several.features(overlapping, context, points, objects.labels)
            features.append(seen)
            has_mask.append(drawn_at_all)
            placed = several.place(proposed, context, points, objects.labels, params.prompt)
            for found, drawn in zip(records, placed, strict=True):
                masks = refine_all.refine(context, drawn, points, objects.labels, params.prompt)
                found.add(context, objects, image_id, click, points, drawn, masks)
    return np.concatenate(features), np.concatenate(has_mask), [one.measured() for one in records]


def typical_areas(params: Params, strong: Split) -> tuple[float, ...]:
    """The median area of each contiguous class's true masks, in pixels of the resized image; of a class without masks,
    that of all; 1 where there is none."""
    scale = {
        row["image_id"]: np.prod(resized_shape((row["height"], row["width"]), params.input))
        / max(1, row["height"] * row["width"])
        for row in strong.images.to_pylist()
        if row["status"] == "ok"
    }
    class_of = class_indices(strong.categories)
    areas: list[list[float]] = [[] for _ in strong.categories]
    columns = strong.instances.select(["image_id", "category_id", "area", "iscrowd"])
    for image_id, category, area, crowd in zip(
        *(column.to_pylist() for column in columns.columns), strict=True
    ):
        if not crowd and area > 0 and image_id in scale:
            areas[class_of[category]].append(area * scale[image_id])
    everything = [area for of_class in areas for area in of_class]
    typical = float(np.median(everything)) if everything else 1.0
    return tuple(round(float(np.median(one)), 3) if one else typical for one in areas)
