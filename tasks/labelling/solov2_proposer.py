"""A trained SOLOv2, such as the teacher, as a proposer: one candidate per click."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.config import PromptConfig, TileConfig
from models.inference.click_masks import Prompted
from models.inference.coarse_masks import prompt_original
from models.inference.tiles import Outputs, forward_tiled
from models.masks.clicks import FurtherClicks
from models.masks.resize import Sizes
from models.solov2.network import SOLOv2
from tasks.inference.batches import ImageBatch
from tasks.labelling.types import Candidates, ImageContext, Proposals

Axes = tuple[int, ...]
MIRRORS: dict[str, list[Axes]] = {
    "none": [()],
    "horizontal": [(), (-1,)],
    "both": [(), (-1,), (-2,), (-2, -1)],
}
"""The axes along which images are mirrored, by `prompt.mirror`; the image itself is the first."""


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
        """The network's outputs for each image, and for its mirror images that `prompt.mirror` names.

        Raises:
            CheckpointError: they aren't finite.
        """
        images, sizes = batch.images.to(self.device), batch.content_sizes
        views = [
            self._outputs(mirrored_images(images, sizes, axes), sizes) for axes in MIRRORS[self.prompt.mirror]
        ]
        return [
            ImageContext(original.to(self.device), batch.sizes(n), [view[n] for view in views])
            for n, original in enumerate(batch.originals)
        ]

    def _outputs(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[tuple[Outputs, int]]:
        """Of each image the outputs of its batch, and its number there."""
        if self.batch_size is not None and self.tile is not None:
            # One by one: tiles of several images would share forward passes, whose sizes depend on the images.
            return [
                (forward_tiled(self.network, images[n : n + 1], [size], self.tile), 0)
                for n, size in enumerate(sizes)
            ]
        # Filled up with blank images: convolutions of another number of images may round differently.
        blank = 0 if self.batch_size is None else self.batch_size - len(images)
        filled = pad(images, (0, 0, 0, 0, 0, 0, 0, blank)) if blank else images
        of_all = forward_tiled(self.network, filled, [*sizes, *[(0, 0)] * blank], self.tile)
        return [(of_all, n) for n in range(len(images))]

    def propose(
        self, context: ImageContext, points_xy: Tensor, labels: Tensor, further: FurtherClicks | None = None
    ) -> Proposals:
        """One candidate per click.

        Raises:
            ValueError: a point isn't finite, or the network doesn't have its class.
        """
        found: list[Prompted] = []
        for (outputs, n), axes in zip(context.encoding, MIRRORS[self.prompt.mirror], strict=True):
            points = mirrored_points(points_xy, context.sizes.original, axes)
            more = further
            if more is not None:
                more = more._replace(points_xy=mirrored_points(more.points_xy, context.sizes.original, axes))
            one = prompt_original(outputs, n, points, labels, context.sizes, self.prompt, more)
            found.append(one._replace(mask_prob=mirrored_maps(one.mask_prob, context.sizes, axes)))
        candidates = {
            name: getattr(found[0], name)
            if len(found) == 1 or name == "level"
            else torch.stack([getattr(one, name) for one in found]).mean(0)
            for name in Candidates._fields
        }
        return Proposals(
            Candidates(**{name: value[:, None] for name, value in candidates.items()}), [None] * len(labels)
        )


def mirrored_images(images: Tensor, sizes: list[tuple[int, int]], axes: Axes) -> Tensor:
    """Images [N, 3, H, W] with their content, of these sizes (h, w), mirrored in place."""
    if not axes:
        return images
    mirrored = images.clone()
    for image, (h, w) in zip(mirrored, sizes, strict=True):
        image[:, :h, :w] = image[:, :h, :w].flip(axes)
    return mirrored


def mirrored_points(points_xy: Tensor, size: tuple[int, int], axes: Axes) -> Tensor:
    """Points [..., 2] in the mirror image of an image of `size` (H, W)."""
    ends = points_xy.new_tensor([size[1] if -1 in axes else 0, size[0] if -2 in axes else 0])
    return torch.where(ends > 0, ends - points_xy, points_xy)


def mirrored_maps(maps: Tensor, sizes: Sizes, axes: Axes) -> Tensor:
    """Mask maps [K, h, w] of a mirror image as those of the image; where the content ends inside a place of the map, by
    linear interpolation."""
    for axis in axes:
        places = maps.shape[axis]
        end = sizes.content[axis] * places / sizes.input[axis]
        at = (end - 1 - torch.arange(places, device=maps.device)).clamp(min=0)
        low = at.floor().long()
        high = (low + 1).clamp(max=places - 1)
        share = (at - low).to(maps).reshape(-1, *[1] * (-1 - axis))
        maps = maps.index_select(axis, low).lerp(maps.index_select(axis, high), share)
    return maps
