"""Proposers: networks that draw masks at clicks, such as the teacher.

A proposer encodes an image once, then proposes candidate masks for its clicks. Everything else (choosing a candidate,
placing masks on the original image, removing overlaps, refinement) is common to all. A new one is a new file with this
protocol, and `make_proposer` constructs it by the section `proposers` of params.yaml.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from models.config import PromptConfig
from models.inference.coarse_masks import place_masks
from models.masks.clicks import FurtherClicks
from models.solov2.network import SOLOv2
from tasks.common.config import Params
from tasks.inference.batches import ImageBatch
from tasks.labelling.sam_proposer import load_sam_proposer, sam_files
from tasks.labelling.solov2_proposer import SOLOv2Proposer
from tasks.labelling.types import Candidates, Drawn, ImageContext, Proposals

NO_CANDIDATE = "the proposer returns no mask for this point"
NOT_FINITE = "the proposer's mask for this point isn't finite"


class Proposer(Protocol):
    """Draws masks at clicks."""

    @property
    def masks_a_click(self) -> int:
        """M, where it can segment the click."""
        ...

    def encode(self, batch: ImageBatch) -> list[ImageContext]:
        """The context of each image of a batch."""
        ...

    def propose(
        self, context: ImageContext, points_xy: Tensor, labels: Tensor, further: FurtherClicks | None = None
    ) -> Proposals:
        """Candidate masks at K clicks of an image.

        A proposer splits many clicks into batches as its memory requires. A click that it can't segment gets no
        candidate (NaN scores) and a reason, not an exception.

        Args:
            points_xy: float32 [K, 2], pixels of the original image.
            labels: int64 [K], contiguous classes.
            further: clicks on the same K objects; None if none has one.
        """
        ...


@runtime_checkable
class Chooser(Protocol):
    """Chooses among the masks of several proposers; see several.py."""

    def encode(self, batch: ImageBatch) -> list[ImageContext]:
        """As a proposer's."""
        ...

    def draw(
        self,
        context: ImageContext,
        points_xy: Tensor,
        labels: Tensor,
        prompt: PromptConfig,
        image_clicks: tuple[Tensor, Tensor] | None = None,
        further: FurtherClicks | None = None,
    ) -> Drawn:
        """As the function `draw`."""
        ...


def make_proposer(
    name: str,
    params: Params,
    network: Callable[[], SOLOv2],
    device: torch.device,
    batch_size: int | None = None,
) -> Proposer:
    """A proposer of pseudo_label and of the gate's measurement.

    Args:
        name: of `proposers.use`.
        network: returns the teacher or student, on `device` and in eval mode; called if it is that one.
        batch_size: of `pseudo`, where an image's masks may not depend on its batch.

    Raises:
        TaskError: weights are missing or unusable.
    """
    if name == "sam" and params.proposers.sam is not None:
        return load_sam_proposer(params.proposers.sam, device)
    return SOLOv2Proposer(network(), params.prompt, params.input.tile, device, batch_size)


def proposer_files(params: Params) -> list[Path]:
    """The files outside of the workspace on which masks depend; raises as `make_proposer` does."""
    sam = params.proposers.used_sam
    return [] if sam is None else sam_files(sam)


def draw(
    proposer: Proposer | Chooser,
    context: ImageContext,
    points_xy: Tensor,
    labels: Tensor,
    prompt: PromptConfig,
    image_clicks: tuple[Tensor, Tensor] | None = None,
    further: FurtherClicks | None = None,
) -> Drawn:
    """The best candidate at each of all clicks of an image, at the original size, without overlaps.

    Args:
        points_xy: float32 [K, 2], pixels of the original image.
        labels: int64 [K], contiguous classes.
        image_clicks: both of all clicks of the image, if these are some of them; a judge counts those inside a mask.
        further: clicks on the same K objects.
    """
    if isinstance(proposer, Chooser):
        return proposer.draw(context, points_xy, labels, prompt, image_clicks, further)
    best, reasons = best_candidates(
        proposer.propose(context, points_xy, labels, further), len(labels), prompt.mask_threshold
    )
    rough = place_masks(best.mask_prob, best.cut, points_xy, labels, context.sizes, prompt)
    return Drawn(rough, best, reasons)


def best_candidates(proposals: Proposals, clicks: int, cut: float) -> tuple[Candidates, list[str | None]]:
    """Each click's candidate with the highest score, of equals the first; and why a click has none.

    A click without a finite candidate gets an empty mask and `cut`.

    Raises:
        ValueError: the proposer returned tensors of wrong shapes.
    """
    candidates, reasons = proposals
    shape = candidates.score.shape
    if (
        len(shape) != 2
        or candidates.mask_prob.ndim != 4
        or any(one.shape[:2] != shape for one in candidates)
        or not shape[0] == len(reasons) == clicks
    ):
        found = {name: list(one.shape) for name, one in candidates._asdict().items()}
        raise ValueError(
            f"proposals: found {found}, {len(reasons)} reasons; expected [K, M, ...] and K = {clicks}"
        )
    if shape[1] == 0:
        candidates = Candidates._make(one.new_zeros(clicks, 1, *one.shape[2:]) for one in candidates)
        candidates = candidates._replace(score=candidates.score + torch.nan)
    # In float32: the sum of a large mask is beyond half precision.
    finite = candidates.mask_prob.flatten(2).sum(2, dtype=torch.float32).isfinite()
    usable = finite & candidates.score.isfinite() & candidates.cut.isfinite()
    if shape[1] > 1:
        rows = torch.arange(clicks, device=usable.device)
        index = candidates.score.where(usable, -torch.inf).argmax(1)
        best = Candidates._make(one[rows, index] for one in candidates)
    else:
        best = Candidates._make(one[:, 0] for one in candidates)  # a view: maps are large
    has_one = usable.any(1)
    if bool(has_one.all()):
        return best, [None] * clicks
    best = Candidates._make(
        one.masked_fill(~has_one.view(-1, *[1] * (one.ndim - 1)), cut if name == "cut" else 0)
        for name, one in best._asdict().items()
    )
    defaults = [NO_CANDIDATE if one else NOT_FINITE for one in finite.all(1).tolist()]
    rows_of_reasons = zip(has_one.tolist(), reasons, defaults, strict=True)
    return best, [None if one else reason or default for one, reason, default in rows_of_reasons]
