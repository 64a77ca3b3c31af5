"""The size that an image is resized to, and what training draws to vary it (torchvision v2).

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
    """What training may do to a sample. Strengths of 0 and scales of 1 switch a part off."""

    flip: float  # probability of a horizontal flip
    vertical_flip: float  # of a vertical one
    rotate90: float  # of a quarter turn; with both flips at 0.5 all eight orientations come alike
    scale_min: float  # size relative to the plain resize, uniform between the two
    scale_max: float
    crop: bool  # cut what is larger than the plain resize down to it, at random
    crop_side: int | None  # cut to at most this height and width, at random; None: not
    brightness: float  # factors of v2.ColorJitter
    contrast: float
    saturation: float
    hue: float
    grayscale: float  # probability of losing the colours
    invert: float  # probability of becoming the negative: dark on bright for bright on dark
    tint: float  # each channel's factor, uniform from 1 - tint to 1 + tint
    blur: float  # probability of a Gaussian blur
    blur_sigma: float  # its sigma in pixels, uniform from 0 to this
    erase: float  # probability of a box painted over in the image's mean colour; its masks stay
    erase_side: float  # the box's height and width as shares of the image's, each uniform from 0 to this


def resize_shape(size: tuple[int, int], short_side: int, max_side: int, enlarge: bool) -> tuple[int, int]:
    """(h, w) of an image (H, W) whose shorter side becomes ``short_side``.

    Where the longer side would exceed ``max_side`` it becomes that instead. A smaller image
    stays as it is unless ``enlarge``. The ratio is kept to within rounding.
    """
    height, width = size
    scale = min(short_side / min(height, width), max_side / max(height, width))
    if not enlarge:
        scale = min(scale, 1.0)
    return max(1, math.floor(height * scale + 0.5)), max(1, math.floor(width * scale + 0.5))


def draw_placement(size: tuple[int, int], shape: tuple[int, int], config: AugmentConfig) -> Placement:
    """How to resize an image (H, W) to about (h, w) and vary it; draws from torch's global generator."""
    scale = config.scale_min + (config.scale_max - config.scale_min) * float(torch.rand(()))
    height, width = resized = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    flip, vertical_flip = _happens(config.flip), _happens(config.vertical_flip)
    turn = _happens(config.rotate90)
    if turn:
        shape, (height, width) = (shape[1], shape[0]), (width, height)
    # After flips and turns, so that a crop's origin is a place in the image that these made.
    limits = [shape if config.crop else (height, width)]
    limits += [] if config.crop_side is None else [(config.crop_side, config.crop_side)]
    window = (min(height, *(h for h, _ in limits)), min(width, *(w for _, w in limits)))
    top = left = 0
    if window != (height, width):
        top = int(torch.randint(height - window[0] + 1, ()))
        left = int(torch.randint(width - window[1] + 1, ()))
    return Placement(size, resized, flip, vertical_flip, turn, (left, top), window)


def _happens(probability: float) -> bool:
    """A draw, none where the answer is known."""
    return probability > 0 and float(torch.rand(())) < probability


def recolour(image: Tensor, config: AugmentConfig) -> Tensor:
    """Vary what changes the image uint8 [3, h, w] alone; draws from torch's global generator."""
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
        # Three sigmas a side hold the Gaussian; the padding by reflection needs less than the image.
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
