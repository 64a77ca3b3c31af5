"""A trained SOLOv2, such as the teacher, as a proposer: one candidate per click."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.config import PromptConfig, TileConfig
from models.inference.coarse_masks import prompt_original
from models.inference.tiles import Outputs, forward_tiled
from models.solov2.network import SOLOv2
from tasks.inference.batches import ImageBatch
from tasks.labelling.types import Candidates, ImageContext, Proposals


@dataclass(frozen=True)
class SOLOv2Proposer:
    """Masks of a SOLOv2 at clicks; see `models.inference.click_masks`.

    Attributes:
        network: on `device`, in eval mode.
        tile: None evaluates images as a whole.
        batch_size: if given, an image's context is bit for bit the same whatever other images are in its batch, which
            has at most so many.
    """

    network: SOLOv2
    prompt: PromptConfig
    tile: TileConfig | None
    device: torch.device
    batch_size: int | None = None

    @property
    def masks_a_click(self) -> int:
        """One."""
        return 1

    def encode(self, batch: ImageBatch) -> list[ImageContext]:
        """The network's outputs for each image.

        Raises:
            CheckpointError: they aren't finite.
        """
        images, sizes = batch.images.to(self.device), batch.content_sizes
        outputs: list[tuple[Outputs, int]]
        if self.batch_size is not None and self.tile is not None:
            # One by one: tiles of several images would share forward passes, whose sizes depend on the images.
            outputs = [
                (forward_tiled(self.network, images[n : n + 1], [size], self.tile), 0)
                for n, size in enumerate(sizes)
            ]
        else:
            # Filled up with blank images: convolutions of another number of images may round differently.
            blank = 0 if self.batch_size is None else self.batch_size - len(images)
            filled = pad(images, (0, 0, 0, 0, 0, 0, 0, blank)) if blank else images
            of_all = forward_tiled(self.network, filled, [*sizes, *[(0, 0)] * blank], self.tile)
            outputs = [(of_all, n) for n in range(len(images))]
        return [
            ImageContext(original.to(self.device), batch.sizes(n), of_image)
            for n, (original, of_image) in enumerate(zip(batch.originals, outputs, strict=True))
        ]

    def propose(self, context: ImageContext, points_xy: Tensor, labels: Tensor) -> Proposals:
        """One candidate per click.

        Raises:
            ValueError: a point isn't finite, or the network doesn't have its class.
        """
        outputs, n = context.encoding
        found = prompt_original(outputs, n, points_xy, labels, context.sizes, self.prompt)._asdict()
        candidates = Candidates(**{name: found[name][:, None] for name in Candidates._fields})
        return Proposals(candidates, [None] * len(labels))
