"""The size that images are resized to for a network, resizing, padding: the same in training and inference.

H, W: original size; h, w: size after resizing.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import v2

PAD_MULTIPLE = 32
"""The stride of the coarsest feature map, so that its size needs no rounding."""


def resize_shape(size: tuple[int, int], short_side: int, max_side: int, enlarge: bool) -> tuple[int, int]:
    """(h, w) of an image (H, W) whose shorter side becomes ``short_side``.

    If the longer side then exceeds ``max_side``, it becomes that instead. A smaller image keeps its size unless
    ``enlarge``. The aspect ratio is kept up to rounding.
    """
    height, width = size
    scale = min(short_side / min(height, width), max_side / max(height, width))
    if not enlarge:
        scale = min(scale, 1.0)
    return max(1, math.floor(height * scale + 0.5)), max(1, math.floor(width * scale + 0.5))


def resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """uint8 [3, h, w] of an image uint8 [3, H, W]: bilinear with antialiasing."""
    if image.shape[1:] == shape:
        return image
    return v2.functional.resize(image, list(shape), v2.InterpolationMode.BILINEAR, antialias=True)


def padded_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """(h, w) rounded up to multiples of ``PAD_MULTIPLE``."""
    height, width = (-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in shape)
    return height, width


def pad_to(planes: Tensor, shape: tuple[int, int]) -> Tensor:
    """[..., h, w] padded with zeros at the bottom and right to a larger ``shape``."""
    return pad(planes, (0, shape[1] - planes.shape[-1], 0, shape[0] - planes.shape[-2]))
