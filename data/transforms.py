"""Resizing and training augmentation of an image with its masks and points (torchvision v2).

H, W: original size; h, w: size after resizing. Points are x, y pixels, (0, 0) the outer corner of
the top-left pixel; they scale and flip exactly with the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What training may do to a sample. Strengths of 0 and scales of 1 switch a part off."""

    flip: float  # probability of a horizontal flip
    scale_min: float  # size relative to the plain resize, uniform between the two
    scale_max: float
    crop: bool  # cut what is larger than the plain resize down to it, at random
    brightness: float  # factors of v2.ColorJitter
    contrast: float
    saturation: float
    hue: float


class Geometry(NamedTuple):
    """An image uint8 [3, h, w] with K masks bool [K, h, w] and points float32 [K, 2] or None."""

    image: Tensor
    masks: Tensor
    points_xy: Tensor | None


def resize_shape(size: tuple[int, int], short_side: int, max_side: int) -> tuple[int, int]:
    """(h, w) of an image (H, W) whose shorter side becomes ``short_side``.

    Where the longer side would exceed ``max_side`` it becomes that instead. The ratio is kept to
    within rounding.
    """
    height, width = size
    scale = min(short_side / min(height, width), max_side / max(height, width))
    return max(1, math.floor(height * scale + 0.5)), max(1, math.floor(width * scale + 0.5))


def resize(sample: Geometry, shape: tuple[int, int]) -> Geometry:
    """Resize to (h, w): image bilinear with antialiasing, masks nearest, points scaled."""
    height, width = sample.image.shape[-2:]
    if (height, width) == tuple(shape):
        return sample
    size = list(shape)
    image = v2.functional.resize(sample.image, size, v2.InterpolationMode.BILINEAR, antialias=True)
    masks = sample.masks
    if masks.shape[0]:
        scaled = v2.functional.resize(
            masks.view(torch.uint8), size, v2.InterpolationMode.NEAREST_EXACT, antialias=False
        )
        masks = scaled.view(torch.bool)
    else:
        masks = masks.new_zeros((0, *shape))
    points = sample.points_xy
    if points is not None:
        points = points * points.new_tensor([shape[1] / width, shape[0] / height])
    return Geometry(image, masks, points)


def augment(sample: Geometry, shape: tuple[int, int], config: AugmentConfig) -> Geometry:
    """Resize to about (h, w) and vary as ``config`` says; draws from torch's global generator.

    Points that a crop cuts off keep their coordinates, now outside the image.
    """
    scale = config.scale_min + (config.scale_max - config.scale_min) * float(torch.rand(()))
    target = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    sample = resize(sample, target)
    if config.crop and (target[0] > shape[0] or target[1] > shape[1]):
        sample = _random_crop(sample, (min(target[0], shape[0]), min(target[1], shape[1])))
    if float(torch.rand(())) < config.flip:
        sample = _flip(sample)
    if config.brightness or config.contrast or config.saturation or config.hue:
        jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
        sample = sample._replace(image=jitter(tv_tensors.Image(sample.image)).as_subclass(Tensor))
    return sample


def _random_crop(sample: Geometry, shape: tuple[int, int]) -> Geometry:
    height, width = sample.image.shape[-2:]
    top = int(torch.randint(height - shape[0] + 1, ()))
    left = int(torch.randint(width - shape[1] + 1, ()))
    points = sample.points_xy
    return Geometry(
        v2.functional.crop(sample.image, top, left, *shape),
        v2.functional.crop(sample.masks, top, left, *shape),
        None if points is None else points - points.new_tensor([left, top]),
    )


def _flip(sample: Geometry) -> Geometry:
    points = sample.points_xy
    if points is not None:
        width = sample.image.shape[-1]
        points = torch.stack([width - points[:, 0], points[:, 1]], dim=1)
    return Geometry(
        v2.functional.horizontal_flip(sample.image), v2.functional.horizontal_flip(sample.masks), points
    )
