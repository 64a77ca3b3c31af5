"""The network alone, as functions of tensors that torch can export, and the program that torch.export makes of it.

Legend: N images, C classes, L levels, S grid side, E kernel channels, H x W pixels of the padded input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from models.config import SIZE_DIVISOR
from models.solov2.heads import Frame
from models.solov2.network import SOLOv2

LEAST_SIDE = 128
"""Of a program's images: in smaller ones a level has a single place, and torch would need another program."""
LARGEST = 256
"""Of a program: its sides in units of SIZE_DIVISOR, and the images of a batch."""


class ExportError(Exception):
    """A network that torch can't export; the text says why."""


class Plain(nn.Module):
    """Normalised images [N, 3, H, W], and the x, y of crops in their images [N, 2], to a flat tuple of outputs."""

    def __init__(self, network: SOLOv2) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, origins: Tensor | None = None) -> tuple[Tensor, ...]:
        own, config = self.network, self.network.config
        pyramid = own.backbone(images)
        size = (images.shape[2], images.shape[3])
        corners = images.new_zeros(images.shape[0], 2) if origins is None else origins
        frame = Frame(size, config.grid_reference, corners)
        features = [own._read(pyramid, *pair) for pair in config.level_sources]
        logits, kernels = own.instance_head(features, config.grid_shapes(size), frame)
        return (*logits, *kernels, own.mask_branch(pyramid, frame))


def has_origins(network: SOLOv2, side: int | None) -> bool:
    """Whether outputs depend on the place of a crop in its image."""
    return side is not None and network.config.coord_conv and network.config.grid_reference is not None


def output_names(levels: int) -> list[str]:
    numbered = [f"{name}_{level}" for name in ("category_logits", "kernels") for level in range(levels)]
    return [*numbered, "mask_features"]


class FromPixels(nn.Module):
    """As Plain, but of RGB 0..255."""

    def __init__(self, network: SOLOv2) -> None:
        super().__init__()
        self.plain = Plain(network)

    def forward(self, images: Tensor, origins: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.plain(self.plain.network.normalise(images, None), origins)


def export_program(network: SOLOv2, side: int | None) -> ExportedProgram:
    """The network as a program of torch, from `images` and, if `has_origins`, `origins`, to `output_names`.

    Images are float32 RGB 0..255 [N, 3, H, W], padded with the mean colour.

    N is free; H and W are multiples of 32 from LEAST_SIDE on, or `side`, for networks that predict in tiles.

    Raises:
        ExportError: torch can't export it.
    """
    # A size whose sides differ, and batch of more than one: nothing may become a constant by chance.
    height, width = (side, side) if side else (7 * SIZE_DIVISOR, 8 * SIZE_DIVISOR)
    batch = Dim("batch", min=1, max=LARGEST)
    free: list[dict[int, Dim]] = [{0: batch}]
    if side is None:
        least = LEAST_SIDE // SIZE_DIVISOR
        rows, columns = (Dim(name, min=least, max=LARGEST) for name in ("rows", "columns"))
        free[0] |= {2: SIZE_DIVISOR * rows, 3: SIZE_DIVISOR * columns}
    given = [torch.zeros(2, 3, height, width)]
    if has_origins(network, side):
        given.append(torch.zeros(2, 2))
        free.append({0: batch})
    try:
        return torch.export.export(FromPixels(network).eval(), tuple(given), dynamic_shapes=tuple(free))
    except Exception as error:  # torch raises anything
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"torch can't export this network: {type(error).__name__}: {reason}") from error
