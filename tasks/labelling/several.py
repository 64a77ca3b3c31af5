"""Several proposers at once: each draws masks at all clicks, the judge chooses one of them for each click.

A proposer that returns several masks a click (SAM's three) counts as several: SAM-1, SAM-2, SAM-3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.config import PromptConfig
from models.inference.coarse_masks import Probabilities, Rough, place_masks
from models.masks.boxes import areas_in
from models.masks.clicks import FurtherClicks
from models.masks.exclusive import groups_of, remove_overlaps_
from tasks.inference.batches import ImageBatch
from tasks.labelling.judge import FEATURES, Judge
from tasks.labelling.predicted_iou import Floats
from tasks.labelling.proposer import Proposer, best_candidates
from tasks.labelling.types import Candidates, Drawn, ImageContext, Proposals, contains_points, pixels_of


class Source(NamedTuple):
    """One mask a click of a proposer."""

    name: str
    proposer: int
    """index"""
    candidate: int
    """index of its masks of a click"""


def sources_of(proposers: Sequence[tuple[str, Proposer]]) -> list[Source]:
    """All masks that are judged, in order."""
    return [
        Source(name if proposer.masks_a_click == 1 else f"{name}-{n + 1}", p, n)
        for p, (name, proposer) in enumerate(proposers)
        for n in range(proposer.masks_a_click)
    ]


@dataclass(frozen=True)
class ChosenMaps:
    """Probabilities of masks that several sources drew; see `Maps`."""

    maps: Sequence[Probabilities]
    source: Tensor
    """int64 [K]"""

    def at(self, rows: Tensor, points_xy: Tensor) -> Tensor:
        """Float32 [M]: maps `rows` [M] at points [M, 2] of the image."""
        found = torch.zeros(len(rows), device=points_xy.device)
        for n, maps in enumerate(self.maps):
            mine = (self.source[rows] == n).nonzero()[:, 0]
            if len(mine):
                found[mine] = maps.at(rows[mine], points_xy[mine])
        return found


@dataclass(frozen=True)
class Several:
    """Proposers, and the judge that chooses among their masks.

    Attributes:
        named: names and proposers.
        judge: while its rules are fitted, one without rules.
    """

    named: tuple[tuple[str, Proposer], ...]
    judge: Judge

    @property
    def masks_a_click(self) -> int:
        return sum(proposer.masks_a_click for _, proposer in self.named)

    def encode(self, batch: ImageBatch) -> list[ImageContext]:
        """The contexts of all proposers, in one; its sizes are those of the pipeline's own input."""
        contexts = [proposer.encode(batch) for _, proposer in self.named]
        return [
            ImageContext(
                original.to(contexts[0][n].original.device), batch.sizes(n), [one[n] for one in contexts]
            )
            for n, original in enumerate(batch.originals)
        ]

    def propose(
        self, context: ImageContext, points_xy: Tensor, labels: Tensor, further: FurtherClicks | None = None
    ) -> list[Proposals]:
        """Of each source one candidate at each of all clicks."""
        found = []
        for (_, proposer), own in zip(self.named, context.encoding, strict=True):
            candidates, reasons = proposer.propose(own, points_xy, labels, further)
            for m in range(proposer.masks_a_click):
                found.append(
                    Proposals(Candidates._make(column[:, m : m + 1] for column in candidates), reasons)
                )
        return found

    def place(
        self,
        proposed: Sequence[Proposals],
        context: ImageContext,
        points_xy: Tensor,
        labels: Tensor,
        prompt: PromptConfig,
    ) -> list[Drawn]:
        """The masks of each source at all clicks, with overlaps removed as `prompt.exclusive` says, within a source."""
        found = []
        for source, proposals in zip(sources_of(self.named), proposed, strict=True):
            sizes = context.encoding[source.proposer].sizes
            best, reasons = best_candidates(proposals, len(labels), prompt.mask_threshold)
            rough = place_masks(best.mask_prob, best.cut, points_xy, labels, sizes, prompt)
            found.append(Drawn(rough, best, reasons))
        return found

    def features(
        self,
        drawn: Sequence[Drawn],
        context: ImageContext,
        points_xy: Tensor,
        labels: Tensor,
        image_clicks: tuple[Tensor, Tensor] | None = None,
        further: FurtherClicks | None = None,
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """What the judge sees of masks that may overlap: float64 [K, sources, FEATURES]; bool [K, sources]: whether
        there is a mask.

        Args:
            image_clicks: points and classes of all clicks of the image; None: there are no more.
            further: clicks on the same K objects; `misses_click` is the share of an object's clicks.
        """
        all_xy, all_labels = image_clicks or (points_xy, labels)
        typical = torch.tensor(self.judge.typical_areas, dtype=torch.float64, device=labels.device)[labels]
        masks = [one.rough.masks for one in drawn]
        areas = [areas_in(one.rough.masks, one.rough.boxes_xyxy).double() for one in drawn]
        same = labels[:, None] == all_labels
        columns = []
        for n, one in enumerate(drawn):
            area = areas[n] * context.area_scale
            log_area = torch.where(area > 0, area.clamp(min=1e-6) / typical, torch.ones_like(area)).log()
            agreement = torch.zeros_like(area)
            for other in range(len(drawn)):
                if other != n:
                    overlap = (masks[n] & masks[other]).flatten(1).sum(1).double()
                    agreement += overlap / (areas[n] + areas[other] - overlap).clamp(min=1)
            own = contains_points(masks[n], points_xy).double()
            y, x = pixels_of(masks[n], all_xy)
            others = (masks[n][:, y, x] & same).sum(1) - own
            missed = 1 - own
            if further is not None:
                missed = (missed + further.contradicted(masks[n])) / (1 + further.counts())
            scores = [getattr(one.best, name).double().nan_to_num() for name in FEATURES[:3]]
            columns.append(
                torch.stack(
                    [
                        *scores,
                        log_area,
                        log_area**2,
                        agreement / max(1, len(drawn) - 1),
                        missed,
                        others.log1p(),
                    ],
                    dim=1,
                )
            )
        has_mask = torch.stack(areas, 1) > 0
        return torch.stack(columns, 1).cpu().numpy(), has_mask.cpu().numpy()

    def draw(
        self,
        context: ImageContext,
        points_xy: Tensor,
        labels: Tensor,
        prompt: PromptConfig,
        image_clicks: tuple[Tensor, Tensor] | None = None,
        further: FurtherClicks | None = None,
    ) -> Drawn:
        """The chosen mask at each click, without overlaps; see `proposer.draw`."""
        free = prompt.model_copy(update={"exclusive": "none"})
        proposed = self.propose(context, points_xy, labels, further)
        drawn = self.place(proposed, context, points_xy, labels, free)
        index = self.judge.choose(*self.features(drawn, context, points_xy, labels, image_clicks, further))
        source = torch.from_numpy(index).to(labels.device)
        rows = torch.arange(len(labels), device=labels.device)
        best = Candidates._make(
            torch.stack([getattr(one.best, name) for one in drawn], 1)[rows, source]
            if name != "mask_prob"
            else drawn[0].best.mask_prob.new_zeros(
                len(labels), 1, 1
            )  # of unlike sizes, and not used any more
            for name in Candidates._fields
        )
        masks = drawn[0].rough.masks.clone()
        boxes = drawn[0].rough.boxes_xyxy.clone()
        for n, one in enumerate(drawn[1:], start=1):
            mine = source == n
            masks[mine] = one.rough.masks[mine]
            boxes[mine.cpu()] = one.rough.boxes_xyxy[mine.cpu()]
        maps = ChosenMaps([one.rough.maps for one in drawn], source)
        was_drawn = masks.flatten(1).any(1)
        remove_overlaps_(masks, boxes, maps.at, points_xy, groups_of(labels, prompt.exclusive))
        names = [one.name for one in sources_of(self.named)]
        reasons = [drawn[n].reasons[k] for k, n in enumerate(index.tolist())]
        return Drawn(Rough(masks, was_drawn, maps, boxes), best, reasons, [names[n] for n in index.tolist()])
