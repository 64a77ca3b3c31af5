"""Fits the judge, and measures the gate of the masks that it chooses, on held-out strong images.

The clicks are those of the gate (measure_refiner.py): each object at a random inner pixel and at its mass centre.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch

from data.tables import Split, class_indices
from models.refiner.network import MaskRefineNet
from tasks.common.config import Params
from tasks.inference.batches import resized_shape
from tasks.labelling.gate import Gate, unmeasured
from tasks.labelling.judge import FEATURES, Judge, Judged, fit_judge, in_words
from tasks.labelling.labeller import GatedRefiner
from tasks.labelling.measure_refiner import (
    CLICKS,
    click_points,
    held_out_images,
    measured_gate,
    paired_iou,
)
from tasks.labelling.proposer import Proposer
from tasks.labelling.several import Several, sources_of

log = logging.getLogger(__name__)

NOTHING = Judged(
    np.empty(0, np.int64), np.empty((0, 1, len(FEATURES))), np.empty((0, 1)), np.empty((0, 1), np.bool_)
)


def decide(
    params: Params,
    strong: Split,
    held_out: Collection[int],
    named: tuple[tuple[str, Proposer], ...],
    refiner: MaskRefineNet,
    step: int,
    device: torch.device,
) -> tuple[Judge, Gate]:
    """The judge, and the gate of the refiner for the masks that it chooses.

    Args:
        strong: the split of `held_out`, ids of images that no proposer was trained on.
        named: the proposers, on `device`. Unmeasured, a student draws all masks, since it learnt from more images than
            the teacher; without one the first proposer.
        refiner: on `device`, in eval mode.
        step: of its training.

    Raises:
        TaskError: images can't be read; all are listed.
    """
    names = [source.name for source in sources_of(named)]
    own = "student" if "student" in names else named[0][0]
    blank = fit_judge(names, NOTHING, own, typical_areas(params, strong))
    several = Several(named, blank)
    measured = measure_sources(params, strong, held_out, several, refiner, device)
    judge = fit_judge(names, measured, own, blank.typical_areas)
    log.info("pseudo_label: %s", in_words(judge))
    judged = replace(several, judge=judge)
    return judge, measured_gate(params, strong, held_out, judged, {step: refiner}, device, "pseudo_label")


def measure_sources(
    params: Params,
    strong: Split,
    held_out: Collection[int],
    several: Several,
    refiner: MaskRefineNet,
    device: torch.device,
) -> Judged:
    """Features and refined IoU of each source's masks at all clicks."""
    config = params.refiner
    refine_all = GatedRefiner(
        refiner, unmeasured(0, enlarge=config.enlarge, rounds=config.rounds), config.crops
    )
    free = params.prompt.model_copy(update={"exclusive": "none"})
    count = len(sources_of(several.named))
    images: list[int] = []
    features, iou = [np.empty((0, count, len(FEATURES)))], [np.empty((0, count))]
    has_mask = [np.empty((0, count), np.bool_)]
    for image_id, context, objects in held_out_images(
        params, strong, held_out, several, device, "pseudo_label"
    ):
        for click in CLICKS:
            points = click_points(objects.masks, click, params.seed, image_id)
            proposed = several.propose(context, points, objects.labels)
            seen, drawn_at_all = several.features(
                several.place(proposed, context, points, objects.labels, free),
                context,
                points,
                objects.labels,
            )
            columns = [
                paired_iou(
                    refine_all.refine(context, drawn, points, objects.labels, params.prompt).final,
                    objects.masks,
                )
                for drawn in several.place(proposed, context, points, objects.labels, params.prompt)
            ]
            images += [image_id] * len(objects.ids)
            features.append(seen)
            has_mask.append(drawn_at_all)
            iou.append(torch.stack(columns, 1).cpu().numpy())
    return Judged(
        np.array(images, np.int64),
        np.concatenate(features),
        np.concatenate(iou),
        np.concatenate(has_mask),
    )


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
