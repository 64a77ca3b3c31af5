"""Augmentation: what training draws to vary an image.

H, W: original size; h, w: size after resizing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from data.samples.placement import Placement


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """The augmentations of a training. Strengths of 0 and scales of 1 disable one."""

    flip: float  # probability of a horizontal flip
    vertical_flip: float  # of a vertical one
    rotate90: float  # of a quarter turn; with both flips at 0.5 all eight orientations are equally likely
    scale_min: float  # size relative to the plain resize, uniform between the two
    scale_max: float
    crop: bool  # crop at random to the size of the plain resize, if the image is larger
    crop_side: int | None  # crop at random to at most this height and width; None: no crop
    brightness: float  # factors of v2.ColorJitter
    contrast: float
    saturation: float
    hue: float
    grayscale: float  # probability of conversion to grey
    invert: float  # probability of conversion to the negative
    tint: float  # each channel's factor, uniform from 1 - tint to 1 + tint
    blur: float  # probability of a Gaussian blur
    blur_sigma: float  # its sigma in pixels, uniform from 0 to this
    erase: float  # probability of filling a box with the image's mean colour; masks stay
    erase_side: float  # the box's height and width as fractions of the image's, each uniform from 0 to this


def draw_placement(size: tuple[int, int], shape: tuple[int, int], config: AugmentConfig) -> Placement:
    """Draws how to resize an image (H, W) to about (h, w), flip, turn and crop it, from torch's global generator."""
    scale = config.scale_min + (config.scale_max - config.scale_min) * float(torch.rand(()))
    height, width = resized = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    flip, vertical_flip = _happens(config.flip), _happens(config.vertical_flip)
    turn = _happens(config.rotate90)
    if turn:
        shape, (height, width) = (shape[1], shape[0]), (width, height)
    # Crops follow flips and turns: their origin is a pixel of the flipped and turned image.
    limits = [shape if config.crop else (height, width)]
    limits += [] if config.crop_side is None else [(config.crop_side, config.crop_side)]
    window = (min(height, *(h for h, _ in limits)), min(width, *(w for _, w in limits)))
    top = left = 0
    if window != (height, width):
        top = int(torch.randint(height - window[0] + 1, ()))
        left = int(torch.randint(width - window[1] + 1, ()))
    return Placement(size, resized, flip, vertical_flip, turn, (left, top), window)


def _happens(probability: float) -> bool:
    """A draw; a probability of 0 draws nothing."""
    return probability > 0 and float(torch.rand(())) < probability


def recolour(image: Tensor, config: AugmentConfig) -> Tensor:
    """Augments the pixels of an image uint8 [3, h, w]; draws from torch's global generator."""
    if config.brightness or config.contrast or config.saturation or config.hue:
        jitter = v2.ColorJitter(config.brightness, config.contrast, config.saturation, config.hue)
        image = jitter(tv_tensors.Image(image)).as_subclass(Tensor)
    if _happens(config.grayscale):
        image = v2.functional.rgb_to_grayscale(image, num_output_channels=3)
    if _happens(config.invert):
        image = v2.functional.invert(image)
    if config.tint:
        factors = 1 + config.tint * (2 * torch.rand(3, 1, 1) - 1)
        image = (image * factors).round().clamp(0, 255).to(image.dtype)
    height, width = image.shape[-2:]
    if _happens(config.blur):
        sigma = config.blur_sigma * float(torch.rand(()))
        # Three sigmas a side cover the Gaussian. Reflection pads by less than the image's side.
        reach = min(math.ceil(3 * sigma), height - 1, width - 1)
        if reach > 0:
            image = v2.functional.gaussian_blur(image, [2 * reach + 1] * 2, [sigma] * 2)
    if _happens(config.erase):
        h, w = (
            math.ceil(side * config.erase_side * share)
            for side, share in zip((height, width), torch.rand(2).tolist(), strict=True)
        )
        top, left = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
        image = image.clone()
        image[:, top : top + h, left : left + w] = image.float().mean((1, 2), keepdim=True).to(image.dtype)
    return image
