"""Teacher and refiner at work: images and their points in, masks out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from data.masks import BoolArray, FloatArray, IntArray
from data.tables import Split, class_indices
from models.checkpoint import build_model
from models.refined import refined_masks
from models.refinenet import MaskRefineNet
from models.rough import rough_masks
from models.solov2 import SOLOv2
from models.tiles import Seen, look
from tasks.config import Params
from tasks.errors import TaskError
from tasks.gate import read_gate
from tasks.images import ImageBatch
from tasks.pseudo_parts import Clicks
from tasks.train_refiner import load_teacher


class Answer(NamedTuple):
    """What came of an image's K points, a row a point, in CPU memory."""

    clicks: Clicks
    level: IntArray
    """int64 [K], as `models.prompting.Prompted` has it; so the next three, float32 [K]"""
    class_score: FloatArray
    maskness: FloatArray
    score: FloatArray
    rough: BoolArray
    """[K, H, W] of the original image; empty where nothing was drawn, or all of it is likelier another's"""
    drawn: BoolArray
    """[K]: the teacher drew something"""
    final: BoolArray
    """[K, H, W]: the refined mask, or the rough one where either of the next two is true"""
    kept_rough: BoolArray
    taken: BoolArray
    refusals: list[str | None]
    """[K]: why the mask was not to be refined"""


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

    @torch.no_grad()
    def label(self, batch: ImageBatch, clicks: Sequence[Clicks]) -> list[Answer]:
        """The masks at the points of each image of a batch.

        They depend on the image and its own points, bit for bit, and on nothing else in the batch.
        """
        images = batch.images.to(self.device)
        size = (images.shape[2], images.shape[3])
        if self.params.input.tile is not None:
            # Tiles of several images would share forward passes, in numbers that depend on the others.
            seen: list[tuple[Seen, int]] = [
                (look(self.teacher, images[n : n + 1], [content], self.params.input.tile), 0)
                for n, content in enumerate(batch.content_sizes)
            ]
        else:
            # Convolutions of another number of images may round otherwise: there are always as many.
            missing = self.params.pseudo.batch_size - len(images)
            filled = pad(images, (0, 0, 0, 0, 0, 0, 0, missing))
            outputs = look(self.teacher, filled, [*batch.content_sizes, *[(0, 0)] * missing], None)
            seen = [(outputs, n) for n in range(len(images))]
        return [
            self._label_image(*seen[n], batch.originals[n], size, batch.content_sizes[n], clicks[n])
            for n in range(len(images))
        ]

    def _label_image(
        self,
        outputs: Seen,
        n: int,
        original: Tensor,
        input_size: tuple[int, int],
        content: tuple[int, int],
        clicks: Clicks,
    ) -> Answer:
        prompt, config = self.params.prompt, self.params.pseudo
        xy = torch.from_numpy(clicks.xy).to(self.device)
        labels = torch.tensor([self.class_of[i] for i in clicks.category_ids.tolist()], device=self.device)
        size = (original.shape[1], original.shape[2])
        rough = rough_masks(outputs, n, xy, labels, input_size, content, size, prompt)
        areas = rough.masks.flatten(1).sum(1) * (content[0] * content[1] / (size[0] * size[1]))
        refusals = self.gate.refusals(areas.tolist())
        final = refined_masks(
            self.refiner, original.to(self.device), rough, xy, labels, prompt, config.crop_batch_size,
            enlarge=self.gate.enlarge, rounds=self.gate.rounds,
            wanted=torch.tensor([refusal is None for refusal in refusals], device=self.device),
        )  # fmt: skip
        facts = rough.prompted
        level, class_score, maskness, score, masks, drawn, refined, kept_rough, taken = (
            value.cpu().numpy()
            for value in (
                facts.level, facts.class_score, facts.maskness, facts.score, rough.masks, rough.drawn, final.masks,
                final.kept_rough, final.taken,
            )
        )  # fmt: skip
        return Answer(
            clicks,
            level,
            class_score,
            maskness,
            score,
            masks,
            drawn,
            refined,
            kept_rough,
            taken,
            list(refusals),
        )
