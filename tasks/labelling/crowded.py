"""Images with more clicks than memory holds masks: processed in chunks, with the same masks as all clicks at once.

Where masks are exclusive, the clicks of a group (a class, or all) take three passes:

1. Masks are drawn, and each pixel is assigned to one of them.
2. They are drawn again, refined and kept as run-length codes; each pixel is assigned to one of the refined masks.
3. The codes are decoded, and each mask keeps its own pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from data.masks.rle import decode_many, encode_many
from models.masks.boxes import mask_boxes
from models.masks.clicks import FurtherClicks
from models.masks.exclusive import PixelAssignment, groups_of
from models.refiner.crops import refine
from models.refiner.refine import confidence
from tasks.labelling.labeller import Labeller
from tasks.labelling.proposer import draw
from tasks.labelling.types import Drawn, ImageContext, PointMasks, PointStats


class _Encoded(NamedTuple):
    """A chunk's masks before the pixels of refined masks are assigned; `stats.taken` isn't known yet."""

    rows: Tensor
    stats: PointStats
    rough: list[bytes]
    refined: list[bytes]


@torch.no_grad()
def label_crowd(
    labeller: Labeller,
    context: ImageContext,
    points_xy: Tensor,
    labels: Tensor,
    chunk_size: int,
    further: FurtherClicks | None = None,
) -> Iterator[tuple[list[int], PointMasks]]:
    """The masks at all clicks [K, 2] of an image, of contiguous classes [K].

    Yields:
        Which clicks, at most `chunk_size`, and their masks.
    """
    exclusive = labeller.prompt.exclusive
    groups = groups_of(labels, exclusive).cpu()
    if exclusive == "none":
        groups = torch.zeros_like(groups)
    for group in groups.unique():
        chunks = (groups == group).nonzero()[:, 0].to(points_xy.device).split(chunk_size)
        crowd = _Group(labeller, context, points_xy, labels, further)
        if exclusive != "none":
            for rows in chunks:
                crowd.assign_rough(rows)
        for encoded in [crowd.encode(rows) for rows in chunks]:
            yield encoded.rows.tolist(), crowd.decode(encoded)


class _Group:
    """The clicks of a group, processed in chunks; `rows` are int64 [k], which of the image's clicks."""

    def __init__(
        self,
        labeller: Labeller,
        context: ImageContext,
        points_xy: Tensor,
        labels: Tensor,
        further: FurtherClicks | None,
    ) -> None:
        self.further = further
        self.labeller, self.context, self.points_xy, self.labels = labeller, context, points_xy, labels
        self.exclusive = labeller.prompt.exclusive != "none"
        self.prompt = labeller.prompt.model_copy(update={"exclusive": "none"})
        self.rough, self.refined = (
            PixelAssignment(context.sizes.original, labeller.device) for _ in range(2)
        )

    def _draw(self, rows: Tensor) -> Drawn:
        proposer, image_clicks = self.labeller.proposer, (self.points_xy, self.labels)
        further = None if self.further is None else self.further.take(rows)
        return draw(
            proposer,
            self.context,
            self.points_xy[rows],
            self.labels[rows],
            self.prompt,
            image_clicks,
            further,
        )

    def assign_rough(self, rows: Tensor) -> None:
        """The first pass."""
        rough = self._draw(rows).rough
        self.rough.add(rough.masks, rows, rough.maps.at, self.points_xy[rows])

    def encode(self, rows: Tensor) -> _Encoded:
        """The second pass."""
        refiner, points_xy = self.labeller.refiner, self.points_xy[rows]
        drawn = self._draw(rows)
        rough = drawn.rough
        if self.exclusive:
            masks = self.rough.exclusive(rough.masks, rows)
            rough = rough._replace(masks=masks, boxes_xyxy=mask_boxes(masks))
        selected, refusals = refiner.select(self.context, rough, drawn.drawn_by)
        refined = refine(
            refiner.network, self.context.original, rough.masks, points_xy, refiner.network.config,
            refiner.crop_batch, enlarge=refiner.gate.enlarge, rounds=refiner.gate.rounds,
            mask_threshold=self.prompt.mask_threshold, labels=self.labels[rows], selected=selected,
        )  # fmt: skip
        if self.exclusive:
            self.refined.add(refined.masks, rows, confidence(rough, refined), points_xy)
        taken = torch.zeros_like(refined.kept_rough)
        stats = PointStats.of(drawn, refined.kept_rough, taken, refusals)
        return _Encoded(rows, stats, encode_many(rough.masks), encode_many(refined.masks))

    def decode(self, encoded: _Encoded) -> PointMasks:
        """The third pass."""
        device, size = self.labeller.device, self.context.sizes.original
        rough, refined = (
            torch.from_numpy(decode_many(codes, *size)).to(device)
            for codes in (encoded.rough, encoded.refined)
        )
        if self.exclusive:
            refined = self.refined.exclusive(refined, encoded.rows)
        stats = encoded.stats
        taken = ~stats.kept_rough & ~refined.flatten(1).any(1).cpu()
        stays = (stats.kept_rough | taken).to(device)[:, None, None]
        return PointMasks(stats._replace(taken=taken), rough, torch.where(stays, rough, refined))
