"""What all networks do with a batch of images before their own layers."""

from __future__ import annotations

from torch import Tensor

from models.config import SIZE_DIVISOR


def normalised(
    images: Tensor, mean: Tensor, std: Tensor, bgr: bool, content_sizes: list[tuple[int, int]] | None
) -> Tensor:
    """RGB 0..255 [N, 3, H, W] to the network's channel order, zero mean and unit deviation.

    With `content_sizes`, the (h, w) of each image in the batch, padding is set to 0, the mean colour.

    Args:
        mean, std: [3, 1, 1], in the network's channel order.
        bgr: whether that is BGR.
    """
    x = images.float()
    if bgr:
        x = x.flip(1)
    x = (x - mean) / std
    if content_sizes is not None:
        for i, (h, w) in enumerate(content_sizes):
            x[i, :, h:] = 0
            x[i, :, :, w:] = 0
    return x


def check_images(images: Tensor) -> None:
    """Raises ValueError for another shape than [N, 3, H, W], or H or W not a multiple of 32."""
    shape = images.shape
    if images.ndim != 4 or shape[1] != 3 or shape[2] % SIZE_DIVISOR or shape[3] % SIZE_DIVISOR:
        raise ValueError(
            f"images: found shape {list(shape)}, expected [N, 3, H, W] with H and W multiples of {SIZE_DIVISOR}; pad "
            "at the bottom and right"
        )
