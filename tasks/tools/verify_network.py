"""Whether an exported network returns what the network returns, for images of a split.

Legend: H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from data.images.read import read_ingested
from data.tables import Split
from models.inference.tiles import Tiled, forward_tiled
from models.solov2.network import SOLOv2
from tasks.common.config import InputConfig
from tasks.common.errors import TaskError
from tasks.common.progress import Bar
from tasks.inference.batches import ImageBatch, prepare, stack

MOST_IMAGES = 50
TOLERANCE = 1e-3
"""Of the greatest value of an output."""
Arrays = dict[str, np.ndarray]


def chosen_rows(split: Split, most: int = MOST_IMAGES) -> list[int]:
    """Up to `most` usable images, evenly spread.

    Raises:
        TaskError: there are none.
    """
    usable = [row for row, status in enumerate(split.images["status"].to_pylist()) if status == "ok"]
    if not usable:
        raise TaskError(
            f"{split.root}: found no usable image to verify the file on; leave it out with --no-verify"
        )
    places = np.linspace(0, len(usable) - 1, min(most, len(usable)))
    return [usable[round(place)] for place in places]


@torch.inference_mode()
def verify_network(
    run: Callable[[Arrays], Sequence[np.ndarray]],
    names: Sequence[str],
    network: SOLOv2,
    split: Split,
    size: InputConfig,
) -> dict[str, Any]:
    """Compares the network's outputs on up to 50 of a split's images, or their tiles.

    Args:
        run: from the arrays of `raw_input` to the outputs, whose `names` are for messages.

    Returns:
        The number of images, and the greatest difference as a fraction of an output's greatest value.

    Raises:
        TaskError: outputs differ on an image.
    """
    rows, worst = chosen_rows(split), 0.0
    with Bar("verifying", len(rows), "image") as bar:
        for row in rows:
            batch = stack([row], [prepare(read_ingested(split, row), size)])
            outputs = forward_tiled(network, batch.images, batch.content_sizes, size.tile)
            raw = outputs.outputs if isinstance(outputs, Tiled) else outputs
            found = run(raw_input(network, batch, outputs if isinstance(outputs, Tiled) else None))
            for name, own, other in zip(names, raw.tensors, found, strict=True):
                difference = float(np.abs(own.numpy() - other).max() / max(1.0, float(own.abs().max())))
                worst = max(worst, difference)
                if not difference <= TOLERANCE:
                    raise TaskError(
                        f"{split.image(row)['file_name']}: output {name} differs by {difference:.2g} of its greatest "
                        f"value, expected at most {TOLERANCE:g}. Nothing was written"
                    )
            bar.advance()
    return {
        "torch": torch.__version__, "images": len(rows), "greatest_difference": float(f"{worst:.2g}"),
    }  # fmt: skip


def raw_input(network: SOLOv2, batch: ImageBatch, tiled: Tiled | None) -> Arrays:
    """Of an image or its tiles: RGB 0..255, padding filled with the mean colour; and the tiles' origins."""
    mean = network.pixel_mean.flip(0) if network.config.bgr else network.pixel_mean
    (h, w) = batch.content_sizes[0]
    image = batch.images[0].float()
    image[:, h:], image[:, :, w:] = mean[:, :, 0:1], mean[:, :, 0:1]
    if tiled is None:
        return {"images": image[None].numpy()}
    side = tiled.side
    pieces = mean.expand(3, side, side).repeat(len(tiled.tiles[0]), 1, 1, 1)
    for piece, tile in zip(pieces, tiled.tiles[0], strict=True):
        part = image[:, tile.y : tile.y + side, tile.x : tile.x + side]
        piece[:, : part.shape[1], : part.shape[2]] = part
    origins = np.array([(tile.x, tile.y) for tile in tiled.tiles[0]], np.float32)
    return {"images": pieces.numpy(), "origins": origins}
