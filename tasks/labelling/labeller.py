"""From clicks to final masks: a proposer draws them, a refiner refines those that its gate selects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from models.checkpoint import META, WEIGHTS, build_model, load_teacher
from models.config import PromptConfig
from models.inference.coarse_masks import Rough
from models.masks.boxes import areas_in
from models.masks.clicks import FurtherClicks
from models.refiner.network import MaskRefineNet
from models.refiner.refine import refined_masks
from models.solov2.network import SOLOv2
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.labelling.gate import FILE as GATE
from tasks.labelling.gate import Gate, read_gate
from tasks.labelling.judge import FILE as JUDGE
from tasks.labelling.judge import read_judge
from tasks.labelling.proposer import Chooser, Proposer, draw, make_proposer
from tasks.labelling.several import Several
from tasks.labelling.types import Drawn, ImageContext, PointMasks, PointStats

CROP_BATCH = 16
"""Crops at a time where no params say how many; doesn't affect results."""


@dataclass(frozen=True)
class GatedRefiner:
    """A refiner and its gate.

    Attributes:
        network: on the masks' device, in eval mode.
        gate: its `enlarge` and `rounds` are those of all masks.
        crop_batch: crops at a time; doesn't affect results.
        gates: decide in place of `gate` on the masks of several proposers, by their names.
    """

    network: MaskRefineNet
    gate: Gate
    crop_batch: int
    gates: Mapping[str, Gate] | None = None

    def select(
        self, context: ImageContext, rough: Rough, drawn_by: Sequence[str] | None
    ) -> tuple[Tensor, list[str | None]]:
        """Which of K rough masks to refine, bool [K], and why not the others; `drawn_by` as in `Drawn`."""
        areas = (areas_in(rough.masks, rough.boxes_xyxy) * context.area_scale).tolist()
        refusals: list[str | None] = [None] * len(areas)
        for gate, rows in self.by_gate(range(len(areas)), drawn_by):
            for k, refusal in zip(rows, gate.refusals([areas[k] for k in rows]), strict=True):
                refusals[k] = refusal
        selected = [one is None for one in refusals]
        return torch.tensor(selected, dtype=torch.bool, device=rough.masks.device), refusals

    def by_gate(
        self, rows: Iterable[int], drawn_by: Sequence[str] | None
    ) -> Iterable[tuple[Gate, list[int]]]:
        """The gates of masks, each with its `rows`; `drawn_by`, as in `Drawn`, is of all masks."""
        if drawn_by is None or self.gates is None:
            return [(self.gate, list(rows))]
        of_name: dict[str, list[int]] = {}
        for row in rows:
            of_name.setdefault(drawn_by[row], []).append(row)
        return [(self.gates[name], mine) for name, mine in of_name.items()]

    @torch.no_grad()
    def refine(
        self, context: ImageContext, drawn: Drawn, points_xy: Tensor, labels: Tensor, prompt: PromptConfig
    ) -> PointMasks:
        """The final masks at all clicks [K, 2] of an image, of contiguous classes [K]."""
        selected, refusals = self.select(context, drawn.rough, drawn.drawn_by)
        final = refined_masks(
            self.network, context.original, drawn.rough, points_xy, labels, prompt, self.crop_batch,
            enlarge=self.gate.enlarge, rounds=self.gate.rounds, selected=selected,
        )  # fmt: skip
        stats = PointStats.of(drawn, final.kept_rough, final.taken, refusals)
        return PointMasks(stats, drawn.rough.masks, final.masks)


@dataclass(frozen=True)
class Labeller:
    """A proposer and a refiner, loaded once."""

    proposer: Proposer | Chooser
    refiner: GatedRefiner
    prompt: PromptConfig
    device: torch.device

    @property
    def masks_a_click(self) -> int:
        """How many are in memory at the size of the image before one is chosen."""
        return self.proposer.masks_a_click if isinstance(self.proposer, Several) else 1

    @torch.no_grad()
    def label(
        self, context: ImageContext, points_xy: Tensor, labels: Tensor, further: FurtherClicks | None = None
    ) -> PointMasks:
        """The masks at all clicks [K, 2] of an image, of contiguous classes [K], and `further` clicks on these."""
        drawn = draw(self.proposer, context, points_xy, labels, self.prompt, further=further)
        return self.refiner.refine(context, drawn, points_xy, labels, self.prompt)


class Plan(NamedTuple):
    """What draws masks, besides params. Paths are in the workspace."""

    student: Path | None = None
    """the checkpoint of the last round's student; None in the first round"""
    decided: Path | None = None
    """a folder with judge.json; None where the teacher alone draws, with the refiner's own gate"""

    def names(self, params: Params) -> list[str]:
        """Of the proposers."""
        return [*params.proposers.use, *(["student"] if self.student is not None else [])]

    def files(self, params: Params) -> list[Path]:
        """All files in the workspace that masks depend on. model.json has a network's grids and ranges."""
        folders = [Path("refiner"), *([Path("teacher")] if "teacher" in self.names(params) else [])]
        folders += [self.student] if self.student is not None else []
        made = [folder / name for folder in folders for name in (WEIGHTS, META)]
        return [*made, Path("refiner") / GATE if self.decided is None else self.decided / JUDGE]


def load_refiner(folder: Path, device: torch.device) -> MaskRefineNet:
    """
    Raises:
        TaskError: the folder holds another network.
    """
    network = build_model(folder)
    if not isinstance(network, MaskRefineNet):
        raise TaskError(f"{folder}: found a {type(network).__name__}, expected a MaskRefineNet")
    return network.to(device)


def load_proposers(
    params: Params, workspace: Path, device: torch.device, plan: Plan, batch_size: int | None
) -> tuple[tuple[str, Proposer], ...]:
    """The proposers by their names.

    Raises:
        TaskError: what `make_proposer` raises.
    """
    folders = {"teacher": workspace / "teacher", "student": workspace / (plan.student or "")}

    def network(name: str) -> SOLOv2:
        return load_teacher(folders[name], device)

    return tuple(
        (name, make_proposer(name, params, partial(network, name), device, batch_size))
        for name in plan.names(params)
    )


def load_labeller(params: Params, workspace: Path, device: torch.device, plan: Plan) -> Labeller:
    """Reads the networks, the gate, and the judge if the teacher isn't the only proposer.

    Raises:
        TaskError: a folder holds another network, or weights are missing or unusable.
    """
    refiner = load_refiner(workspace / "refiner", device)
    named = load_proposers(params, workspace, device, plan, params.pseudo.batch_size)
    proposer: Proposer | Chooser = named[0][1]
    gates: Mapping[str, Gate] | None = None
    if plan.decided is None:
        gate = read_gate(workspace / "refiner")
    else:
        judge = read_judge(workspace / plan.decided)
        proposer, gates = Several(named, judge), judge.gates
        gate = gates[judge.proposers[0]]
    gated = GatedRefiner(refiner, gate, params.pseudo.crop_batch_size, gates)
    return Labeller(proposer, gated, params.prompt, device)
