"""Teacher and refiner at work: images and their points in, masks out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from data.tables import Split, class_indices
from models.checkpoint import build_model, load_teacher
from models.config import PromptConfig
from models.inference.coarse_masks import Rough, rough_masks
from models.inference.tiles import Outputs, forward_tiled
from models.masks.boxes import areas_in
from models.refiner.network import MaskRefineNet
from models.refiner.refine import refined_masks
from models.solov2.network import SOLOv2
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.inference.batches import ImageBatch
from tasks.labelling.crowded import label_crowd
from tasks.labelling.gate import read_gate
from tasks.labelling.parts import Clicks
from tasks.labelling.types import Answer, Facts, Scene

MASK_PIXELS = 1 << 28
"""Pixels of the masks of an image's points that are in memory at once; of more points, some are after the others."""


class Labeller:
    """Teacher, refiner and gate, loaded once."""

    def __init__(self, params: Params, weak: Split, workspace: Path, device: torch.device) -> None:
        """Reads workspace/teacher and workspace/refiner.

        Raises:
            TaskError: one of them holds another network.
        """
        self.params, self.device = params, device
        self.teacher: SOLOv2 = load_teacher(workspace / "teacher", device)
        refiner = build_model(workspace / "refiner")
        if not isinstance(refiner, MaskRefineNet):
            raise TaskError(
                f"{workspace}/refiner: found a {type(refiner).__name__}, expected a MaskRefineNet"
            )
        self.refiner = refiner.to(device)
        self.gate = read_gate(workspace / "refiner")
        self.class_of = class_indices(weak.categories)

    def look(self, batch: ImageBatch) -> list[Scene]:
        """What the teacher says of each image of a batch; bit for bit the same whatever the others are."""
        images = batch.images.to(self.device)
        if self.params.input.tile is not None:
            # Tiles of several images would share forward passes, in numbers that depend on the others.
            seen: list[tuple[Outputs, int]] = [
                (forward_tiled(self.teacher, images[n : n + 1], [content], self.params.input.tile), 0)
                for n, content in enumerate(batch.content_sizes)
            ]
        else:
            # Convolutions of another number of images may round otherwise: there are always as many.
            missing = self.params.pseudo.batch_size - len(images)
            filled = pad(images, (0, 0, 0, 0, 0, 0, 0, missing))
            outputs = forward_tiled(self.teacher, filled, [*batch.content_sizes, *[(0, 0)] * missing], None)
            seen = [(outputs, n) for n in range(len(images))]
        size = (images.shape[2], images.shape[3])
        return [
            Scene(*one, original.to(self.device), size, content)
            for one, original, content in zip(seen, batch.originals, batch.content_sizes, strict=True)
        ]

    @torch.no_grad()
    def label(self, batch: ImageBatch, clicks: Sequence[Clicks]) -> Iterator[tuple[int, Answer]]:
        """The masks at the points of each image of a batch, with the image's row in the split.

        They depend on the image and its own points, bit for bit, and on nothing else in the batch. An image of very
        many points comes in several pieces, its points in another order.
        """
        for row, scene, mine in zip(batch.rows, self.look(batch), clicks, strict=True):
            at_once = max(1, MASK_PIXELS // (scene.size[0] * scene.size[1]))
            pieces = (
                label_crowd(self, scene, mine, at_once) if len(mine) > at_once else [self.answer(scene, mine)]
            )
            for piece in pieces:
                yield row, piece

    def answer(self, scene: Scene, clicks: Clicks) -> Answer:
        """All points of an image at once."""
        prompt = self.params.prompt
        xy, labels = self.tensors(clicks)
        rough = self.draw(scene, clicks, prompt)
        wanted, refusals = self.wanted(scene, rough)
        final = refined_masks(
            self.refiner, scene.original, rough, xy, labels, prompt, self.params.pseudo.crop_batch_size,
            enlarge=self.gate.enlarge, rounds=self.gate.rounds, selected=wanted,
        )  # fmt: skip
        facts = Facts.of(rough.prompted, rough.drawn, final.kept_rough, final.taken, refusals)
        return Answer(clicks, facts, rough.masks, final.masks)

    def draw(self, scene: Scene, clicks: Clicks, prompt: PromptConfig) -> Rough:
        """The rough masks of some points."""
        xy, labels = self.tensors(clicks)
        return rough_masks(
            scene.outputs, scene.n, xy, labels, scene.input_size, scene.content_size, scene.size, prompt
        )

    def wanted(self, scene: Scene, rough: Rough) -> tuple[Tensor, list[str | None]]:
        """Which of K rough masks the gate wants refined, bool [K], and why it doesn't the others."""
        (ch, cw), (height, width) = scene.content_size, scene.size
        areas = areas_in(rough.masks, rough.boxes_xyxy) * (ch * cw / (height * width))
        refusals = list(self.gate.refusals(areas.tolist()))
        return torch.tensor([refusal is None for refusal in refusals], device=self.device), refusals

    def tensors(self, clicks: Clicks) -> tuple[Tensor, Tensor]:
        """x, y float32 [K, 2] and contiguous classes int64 [K] of points."""
        labels = [self.class_of[category] for category in clicks.category_ids.tolist()]
        return torch.from_numpy(clicks.xy).to(self.device), torch.tensor(labels, device=self.device)
