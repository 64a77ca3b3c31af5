"""From clicks to final masks: a proposer draws them, a refiner refines those that its gate selects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoint import build_model, load_teacher
from models.config import PromptConfig
from models.inference.coarse_masks import Rough
from models.masks.boxes import areas_in
from models.refiner.network import MaskRefineNet
from models.refiner.refine import refined_masks
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.labelling.gate import Gate, read_gate
from tasks.labelling.proposer import Proposer, draw, make_proposer
from tasks.labelling.types import Drawn, ImageContext, PointMasks, PointStats


@dataclass(frozen=True)
class GatedRefiner:
    """A refiner and its gate.

    Attributes:
        network: on the masks' device, in eval mode.
        crop_batch: crops at a time; doesn't affect results.
    """

    network: MaskRefineNet
    gate: Gate
    crop_batch: int

    def select(self, context: ImageContext, rough: Rough) -> tuple[Tensor, list[str | None]]:
        """Which of K rough masks to refine, bool [K], and why not the others."""
        areas = areas_in(rough.masks, rough.boxes_xyxy) * context.area_scale
        refusals = self.gate.refusals(areas.tolist())
        return torch.tensor([one is None for one in refusals], device=rough.masks.device), refusals

    @torch.no_grad()
    def refine(
        self, context: ImageContext, drawn: Drawn, points_xy: Tensor, labels: Tensor, prompt: PromptConfig
    ) -> PointMasks:
        """The final masks at all clicks [K, 2] of an image, of contiguous classes [K]."""
        selected, refusals = self.select(context, drawn.rough)
        final = refined_masks(
            self.network, context.original, drawn.rough, points_xy, labels, prompt, self.crop_batch,
            enlarge=self.gate.enlarge, rounds=self.gate.rounds, selected=selected,
        )  # fmt: skip
        stats = PointStats.of(drawn, final.kept_rough, final.taken, refusals)
        return PointMasks(stats, drawn.rough.masks, final.masks)


@dataclass(frozen=True)
class Labeller:
    """A proposer and a refiner, loaded once."""

    proposer: Proposer
    refiner: GatedRefiner
    prompt: PromptConfig
    device: torch.device

    @torch.no_grad()
    def label(self, context: ImageContext, points_xy: Tensor, labels: Tensor) -> PointMasks:
        """The masks at all clicks [K, 2] of an image, of contiguous classes [K]."""
        drawn = draw(self.proposer, context, points_xy, labels, self.prompt)
        return self.refiner.refine(context, drawn, points_xy, labels, self.prompt)


def load_labeller(params: Params, workspace: Path, device: torch.device) -> Labeller:
    """Reads workspace/refiner and, if the teacher is in use, workspace/teacher.

    Raises:
        TaskError: one of them holds another network, or what `make_proposer` raises.
    """
    network = build_model(workspace / "refiner")
    if not isinstance(network, MaskRefineNet):
        raise TaskError(f"{workspace}/refiner: found a {type(network).__name__}, expected a MaskRefineNet")
    proposer = make_proposer(
        params, lambda: load_teacher(workspace / "teacher", device), device, params.pseudo.batch_size
    )
    refiner = GatedRefiner(
        network.to(device), read_gate(workspace / "refiner"), params.pseudo.crop_batch_size
    )
    return Labeller(proposer, refiner, params.prompt, device)
