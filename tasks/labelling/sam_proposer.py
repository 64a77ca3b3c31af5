"""A Segment Anything model as a proposer: three candidates per click, of a part, an object and a whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.hub import files_of
from models.inference.detect import maskness
from models.masks.clicks import FurtherClicks
from models.sam.folder import USE, SamError
from models.sam.network import Encoded, NarrowImage, Sam, load_sam
from models.sam.prompts import prompts_at
from tasks.common.config import SamConfig
from tasks.common.errors import TaskError
from tasks.inference.batches import ImageBatch
from tasks.labelling.types import Candidates, ImageContext, Proposals

MASKS = 3
CUT = 0.5
"""SAM's own threshold: a logit of 0."""


@dataclass(frozen=True)
class SamProposer:
    """Masks of a Segment Anything model at clicks.

    It has no classes: each candidate has the class of its click, with a `class_score` of 1, since a click is proof of
    its class. `score` is the predicted IoU, `maskness` the mean probability inside the mask, `level` 0 to 2 the model's
    order of its masks.

    Attributes:
        negatives: how many of the nearest other clicks of a call are negative points of each click.
    """

    sam: Sam
    negatives: int

    @property
    def masks_a_click(self) -> int:
        """Three: of a part, an object and a whole."""
        return MASKS

    def encode(self, batch: ImageBatch) -> list[ImageContext]:
        """The features of each image, encoded alone at the model's own input size."""
        return [self._encode(batch, n) for n in range(len(batch.originals))]

    def _encode(self, batch: ImageBatch, n: int) -> ImageContext:
        original = batch.originals[n].to(self.sam.device)
        try:
            encoded = self.sam.encode(original)
        except NarrowImage as error:
            return ImageContext(original, batch.sizes(n), str(error))
        return ImageContext(original, encoded.sizes, encoded)

    def propose(
        self, context: ImageContext, points_xy: Tensor, labels: Tensor, further: FurtherClicks | None = None
    ) -> Proposals:
        """Three candidates per click; none, and a reason, on an image that the model can't encode."""
        encoded = context.encoding
        clicks = len(labels)
        if not isinstance(encoded, Encoded):
            none = torch.zeros(clicks, 0, device=self.sam.device)
            return Proposals(
                Candidates(none[..., None, None], none, none.long(), none, none, none), [encoded] * clicks
            )
        logits, iou = self.sam.draw(encoded, prompts_at(points_xy, self.negatives, further))
        mask_prob = logits.sigmoid_()
        inside, _ = maskness(mask_prob.flatten(2), CUT)
        levels = torch.arange(iou.shape[1], device=iou.device).expand_as(iou)
        one = torch.ones_like(iou)
        candidates = Candidates(mask_prob, CUT * one, levels, one, inside, bounded(iou))
        return Proposals(candidates, [None] * clicks)


def bounded(iou: Tensor) -> Tensor:
    """Predicted IoU [K, M] within 0 and 1, in the same order per click.

    SAM's prediction isn't bounded. Cut at 1, several candidates would be equal; so all of a click are divided by the
    greatest finite one if that is above 1. One that isn't finite stays so.
    """
    greatest = iou.where(iou.isfinite(), 0).amax(1, keepdim=True)
    return (iou / greatest.clamp(min=1)).clamp(min=0)


def load_sam_proposer(settings: SamConfig, device: torch.device) -> SamProposer:
    """The proposer of these settings; a hub model that isn't in the cache is downloaded.

    Raises:
        TaskError: there are no usable weights.
    """
    try:
        folder = USE.fetch(settings.weights, settings.revision)
        sam = load_sam(folder, device, settings.precision, settings.click_batch)
    except SamError as error:
        raise TaskError(f"proposers.sam.weights: {error}") from None
    return SamProposer(sam, settings.negatives)


def sam_files(settings: SamConfig) -> list[Path]:
    """The files of the weights on which masks depend.

    Raises:
        TaskError: there are none.
    """
    try:
        return files_of(USE.fetch(settings.weights, settings.revision))
    except SamError as error:
        raise TaskError(f"proposers.sam.weights: {error}") from None
