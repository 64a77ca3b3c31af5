"""What a trained SOLOv2 would say of an image of many objects, for benches: time hangs on the masks it draws.

Masks of random weights are noise, whose run-length codes are hundreds of times too long. Here a mask's logit is a
quadratic form of x and y, plus smooth textures that make its outline uneven: linear in mask features, as any mask is,
so that any number of objects fits into the network's channels. Points are x, y in pixels of the input.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from models.config import SOLOv2Config
from models.solov2.network import RawOutputs

TEXTURES = 24
UNEVEN = 0.15
"""Of the logit inside, how much a texture adds or takes."""
SURE, UNSURE = 3.0, -5.0
"""Logits of the class of a cell that has an object, and of all else."""
STEEPNESS = 1.5
"""Logit a pixel at an outline, about that of trained networks; small objects are as steep as they are small."""


class Answers(NamedTuple):
    """A network's answer for one image, and the clicks on its objects."""

    outputs: RawOutputs
    points_xy: Tensor
    """float32 [K, 2]: near the middle of each object"""
    labels: Tensor
    """int64 [K]"""


class Objects(NamedTuple):
    """Uneven ellipses."""

    centres: Tensor
    """float32 [K, 2]: x, y"""
    radii: Tensor
    """float32 [K, 2]"""
    angles: Tensor
    """float32 [K]"""
    labels: Tensor
    """int64 [K]"""


def scatter(
    count: int, sides: tuple[float, float], size: tuple[int, int], classes: int, rng: torch.Generator
) -> Objects:
    """Objects of a size (height, width), their sides of all magnitudes between two, at random on a grid of places.

    Places differ by chance, so neighbours may overlap.
    """
    height, width = size
    columns = math.ceil(math.sqrt(count * width / height))
    rows = math.ceil(count / columns)
    place = torch.randperm(rows * columns, generator=rng)[:count]
    cell = torch.stack([place % columns, place // columns], 1) + torch.rand(count, 2, generator=rng)
    centres = cell * torch.tensor([width / columns, height / rows])
    low, high = (math.log(side / 2) for side in sides)
    radius = (low + torch.rand(count, 1, generator=rng) * (high - low)).exp()
    stretch = (torch.rand(count, 1, generator=rng) - 0.5).exp()
    angles = torch.rand(count, generator=rng) * math.pi
    labels = torch.randint(classes, (count,), generator=rng)
    return Objects(centres, torch.cat([radius * stretch, radius / stretch], 1), angles, labels)


def answer(objects: Objects, size: tuple[int, int], config: SOLOv2Config, classes: int, seed: int) -> Answers:
    """What the network of `config` would say of the objects on a padded input of a size (height, width).

    A cell answers with the object nearest to it, as far as its mask reaches, else with nothing; its class is sure
    where it lies in the object's middle and the object is of its level's size.
    """
    rng = torch.Generator().manual_seed(seed)
    channels = config.kernel_channels
    # Counted from the middle, numbers are smaller, and so is what rounding does to their sums.
    middle = torch.tensor([size[1] / 2, size[0] / 2])
    forms = _forms(objects._replace(centres=objects.centres - middle))  # [K, 6]
    sharp = STEEPNESS * objects.radii.amin(1) / 2
    kernel_of = torch.zeros(len(forms) + 1, channels)
    kernel_of[:-1, :6] = -sharp[:, None] * forms
    kernel_of[:-1, 0] += sharp
    uneven = torch.randn(len(forms), TEXTURES, generator=rng) * (UNEVEN / math.sqrt(TEXTURES / 2))
    kernel_of[:-1, 6 : 6 + TEXTURES] = sharp[:, None] * uneven
    kernel_of[-1, 0] = -2 * SURE
    h, w = (length // config.mask_stride for length in size)
    features = torch.zeros(channels, h, w)
    places = _centres_of((h, w), size) - middle
    features[:6] = _powers(places).T.view(6, h, w)
    features[6 : 6 + TEXTURES] = _textures(places, rng).view(TEXTURES, h, w)

    logits, kernels = [], []
    extent = 2 * objects.radii.prod(1).sqrt()
    for grid, (lower, upper) in zip(config.grid_shapes(size), config.ranges, strict=True):
        distance = _powers(_centres_of(grid, size) - middle) @ forms.T  # [T, K]
        nearest, who = distance.min(1)
        kernels.append(
            kernel_of[who.where(nearest < 1.5, len(forms))].T.reshape(1, channels, *grid).contiguous()
        )
        here = (extent >= lower) & (extent < upper)
        central = (distance < 0.1) | (distance == distance.amin(0))
        cell, whose = (central & here & (who[:, None] == torch.arange(len(forms)))).nonzero(as_tuple=True)
        category = torch.full((classes, distance.shape[0]), UNSURE)
        category[objects.labels[whose], cell] = SURE - 2 * torch.rand(len(cell), generator=rng)
        logits.append(category.view(1, classes, *grid))
    near = objects.centres + objects.radii.amin(1)[:, None] * 0.6 * (
        torch.rand(len(forms), 2, generator=rng) - 0.5
    )
    end = torch.tensor([size[1] - 1.0, size[0] - 1.0])
    outputs = RawOutputs(logits, kernels, features[None], config.strides)
    return Answers(outputs, near.clamp(min=torch.ones(2), max=end), objects.labels)


def _centres_of(grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """x, y in pixels of the centres of a grid's places: [rows x columns, 2]."""
    y, x = ((torch.arange(count) + 0.5) * (length / count) for count, length in zip(grid, size, strict=True))
    return torch.cartesian_prod(y, x).flip(1)


def _powers(places: Tensor) -> Tensor:
    """1, x, y, x^2, xy, y^2 of places [T, 2]: [T, 6]."""
    x, y = places.unbind(1)
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], 1)


def _forms(objects: Objects) -> Tensor:
    """Coefficients [K, 6] of each ellipse's quadratic form, 0 at its centre and 1 on its outline."""
    cos, sin = objects.angles.cos(), objects.angles.sin()
    a, b = (1 / objects.radii.square()).unbind(1)
    xx, xy, yy = a * cos**2 + b * sin**2, 2 * (a - b) * cos * sin, a * sin**2 + b * cos**2
    x, y = objects.centres.unbind(1)
    return torch.stack(
        [xx * x * x + xy * x * y + yy * y * y, -2 * xx * x - xy * y, -2 * yy * y - xy * x, xx, xy, yy], 1
    )


def _textures(places: Tensor, rng: torch.Generator) -> Tensor:
    """[TEXTURES, T]: waves of lengths from 25 to 200 pixels in all directions."""
    angle = torch.rand(TEXTURES, generator=rng) * math.pi
    length = 25 * (torch.rand(TEXTURES, generator=rng) * math.log(8)).exp()
    wave = torch.stack([angle.cos(), angle.sin()], 1) * (math.tau / length)[:, None]
    return (wave @ places.T + torch.rand(TEXTURES, 1, generator=rng) * math.tau).sin()
