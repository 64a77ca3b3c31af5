"""Crowded scenes, and a network that is right about all of them: what is lost is lost by the rules around it.

Points are x, y in pixels; (0, 0) is the outer corner of the top-left pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from models.config import SOLOv2Config
from models.masks.geometry import measure, random_inner_points
from models.solov2.network import RawOutputs
from models.solov2.targets import assign_targets

SIZE = (480, 640)
CLASSES = 2
SURE = 6.0
"""Logit of a cell's class, and of a kernel that draws nothing."""


class Scene(NamedTuple):
    """Objects that don't overlap."""

    masks: Tensor
    """bool [K, H, W]"""
    labels: Tensor
    """int64 [K]"""

    def clicks(self, where: str, generator: torch.Generator) -> Tensor:
        """Float32 [K, 2]: the mass `centre` of each object, or a `random` pixel of it."""
        if where == "centre":
            return measure(self.masks).centre
        return random_inner_points(self.masks, 1, generator)[:, 0]


def discs(count: int, radius: float, generator: torch.Generator, *, over_border: bool = False) -> Scene:
    """Discs of one class at random places, a pixel apart at least; with `over_border` centred on the border."""
    height, width = SIZE
    centres: list[tuple[float, float]] = []
    while len(centres) < count:
        x, y, along = torch.rand(3, generator=generator).tolist()
        x, y = radius + x * (width - 2 * radius), radius + y * (height - 2 * radius)
        if over_border:
            # Just inside, so that at least a pixel's centre is in the picture.
            side = int(along * 4)
            x = (0.5, width - 0.5, x, x)[side]
            y = (y, y, 0.5, height - 0.5)[side]
        if all((x - a) ** 2 + (y - b) ** 2 >= (2 * radius + 1) ** 2 for a, b in centres):
            centres.append((x, y))
    return draw_discs(torch.tensor(centres), radius)


def draw_discs(centres: Tensor, radius: float) -> Scene:
    """Discs of one class around centres [K, 2]."""
    across = torch.arange(SIZE[1]) + 0.5 - centres[:, :1]
    down = torch.arange(SIZE[0]) + 0.5 - centres[:, 1:]
    masks = across.square()[:, None, :] + down.square()[:, :, None] <= radius**2
    return Scene(masks, torch.zeros(len(centres), dtype=torch.long))


def disc_pairs(pairs: int, radius: float, generator: torch.Generator) -> Scene:
    """Pairs of discs with one pixel between them, side by side at any angle."""
    reach = 2 * radius + 1
    around = discs(pairs, reach + 0.5, generator)
    middle = measure(around.masks).centre
    angle = torch.rand(pairs, generator=generator) * math.tau
    offset = torch.stack([angle.cos(), angle.sin()], 1) * reach / 2
    return draw_discs(torch.stack([middle - offset, middle + offset], 1).flatten(0, 1), radius)


def close_pairs(
    pairs: int, width: int, height: int, generator: torch.Generator, *, classes: int = 1
) -> Scene:
    """Pairs of upright bars with one pixel between them; with two classes a pair has both."""
    masks = torch.zeros(2 * pairs, *SIZE, dtype=torch.bool)
    taken = torch.zeros(SIZE, dtype=torch.bool)
    placed = 0
    while placed < pairs:
        x = int(torch.randint(SIZE[1] - 2 * width - 1, (), generator=generator))
        y = int(torch.randint(SIZE[0] - height, (), generator=generator))
        around = (slice(max(0, y - 2), y + height + 2), slice(max(0, x - 2), x + 2 * width + 3))
        if taken[around].any():
            continue
        taken[around] = True
        masks[2 * placed, y : y + height, x : x + width] = True
        masks[2 * placed + 1, y : y + height, x + width + 1 : x + 2 * width + 1] = True
        placed += 1
    return Scene(masks, torch.arange(2 * pairs) % classes)


def specks(count: int, generator: torch.Generator) -> Scene:
    """Objects of three pixels, in an L, at least 8 pixels apart."""
    corners = discs(count, 4.0, generator).masks.flatten(1).float().argmax(1)
    masks = torch.zeros(count, *SIZE, dtype=torch.bool)
    y, x, row = corners // SIZE[1], corners % SIZE[1], torch.arange(count)
    for down, right in ((0, 0), (1, 0), (1, 1)):
        masks[row, y + down, (x + right).clamp(max=SIZE[1] - 1)] = True
    return Scene(masks, torch.zeros(count, dtype=torch.long))


SCENES: dict[str, Callable[[torch.Generator], Scene]] = {
    "100 discs, radius 2.5": lambda rng: discs(100, 2.5, rng),
    "100 discs, radius 4": lambda rng: discs(100, 4.0, rng),
    "100 discs, radius 6": lambda rng: discs(100, 6.0, rng),
    "200 discs, radius 6": lambda rng: discs(200, 6.0, rng),
    "300 discs, radius 6": lambda rng: discs(300, 6.0, rng),
    "48 close pairs of discs, radius 3": lambda rng: disc_pairs(48, 3.0, rng),
    "48 close pairs of discs, radius 6": lambda rng: disc_pairs(48, 6.0, rng),
    "48 close pairs of bars, 4 x 40": lambda rng: close_pairs(48, 4, 40, rng),
    "48 close pairs of two classes": lambda rng: close_pairs(48, 4, 40, rng, classes=2),
    "100 objects of 3 pixels": lambda rng: specks(100, rng),
    "60 discs cut by the border, radius 6": lambda rng: discs(60, 6.0, rng, over_border=True),
}


def teacher_config(mask_stride: int, kernel_channels: int) -> SOLOv2Config:
    """The paper's teacher: its grids and size ranges decide which cell learns which object."""
    backbone = {
        "name": "resnet50", "width": 1.0, "norm": "frozen_bn", "norm_groups": 32, "frozen_stages": 2,
        "stride_in_1x1": True, "weights": None,
    }  # fmt: skip
    return SOLOv2Config.model_validate(
        {
            "backbone": backbone, "fpn_channels": 256, "head_channels": 512, "head_convs": 4,
            "kernel_channels": kernel_channels, "mask_channels": 128, "mask_stride": mask_stride,
            "norm_groups": 32, "grid_reference": None, "grids": [80, 64, 32, 24, 12],
            "level_sources": [[2, 3], [3, 3], [4, 4], [5, 5], [6, 5]],
            "ranges": [[1, 72], [72, 144], [144, 288], [288, 584], [584, 2048]],
            "coord_conv": True, "pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0, 1.0, 1.0],
            "bgr": True, "centre_shrink": 0.2, "prior_prob": 0.01, "dice_weight": 3.0, "focal_weight": 1.0,
            "focal_alpha": 0.25, "focal_gamma": 2.0,
        }
    )  # fmt: skip


class Perfect(NamedTuple):
    """What a network says that learnt its targets by heart, and what it could not learn."""

    outputs: RawOutputs
    taught: int
    """objects that have a cell; where two of them share all their cells, the targets give these to one"""


def perfect_outputs(scene: Scene, mask_stride: int, *, touched: bool = False) -> Perfect:
    """What a SOLOv2 says that learnt its targets by heart.

    A cell answers with the object that `assign_targets` gives it, the last where several claim it, and with
    nothing where there is none. The mask features hold a channel an object, the logit of the share of each
    place that it covers, so that a kernel with a single one draws exactly the mask that was to be learnt. With
    `touched` it draws every place that the object touches: masks too large, which pass the reference's size filter.
    """
    count = len(scene.masks)
    config = teacher_config(mask_stride, count + 1)
    targets = assign_targets([scene.masks], [scene.labels], [torch.ones(count)], SIZE, config)
    shares = (targets.masks > 0).float() if touched else targets.masks
    features = shares.clamp(0.001, 0.999).logit()
    features = torch.cat([features, torch.ones_like(features[:1])])[None]
    logits, kernels, owners = [], [], []
    for level, (grid, category) in enumerate(zip(config.grids, targets.categories, strict=True)):
        here = targets.level == level
        owner = torch.full((grid * grid,), -1).scatter_reduce_(
            0, targets.cell[here], targets.instance[here], "amax"
        )
        held = owner >= 0
        owners.append(owner[held])
        kernel = torch.zeros(count + 1, grid * grid)
        kernel[owner[held], held.nonzero()[:, 0]] = 1.0
        kernel[-1, ~held] = -SURE
        kernels.append(kernel.view(1, -1, grid, grid))
        of_class = torch.arange(CLASSES).view(-1, 1, 1) == category[0]
        logits.append(torch.where(of_class, SURE, -SURE)[None])
    outputs = RawOutputs(logits, kernels, features, config.strides)
    return Perfect(outputs, len(torch.cat(owners).unique()))
