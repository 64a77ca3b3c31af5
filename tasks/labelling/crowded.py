"""Images of more points than memory holds masks of: the same masks as all at once, some after the others.

Where pixels have one owner, points of a group (a class, or all) are gone through three times: they are drawn to learn
who owns which pixel; drawn again, refined, and kept as run-length codes, while the refined masks claim their pixels;
and unpacked to leave each what is its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from data.masks.rle import decode_many, encode_many
from models.inference.coarse_masks import Rough
from models.masks.boxes import mask_boxes
from models.masks.exclusive import PixelAssignment, groups_of
from models.refiner.crops import refine
from models.refiner.refine import confidence
from tasks.labelling.parts import Clicks
from tasks.labelling.types import Answer, Facts, Scene

if TYPE_CHECKING:
    from tasks.labelling.labeller import Labeller


class _Packed(NamedTuple):
    """A chunk's masks before the refined ones know their owners; `answer` has none yet."""

    rows: Tensor
    answer: Answer
    rough: list[bytes]
    refined: list[bytes]


def label_crowd(labeller: Labeller, scene: Scene, clicks: Clicks, at_once: int) -> Iterator[Answer]:
    """Answers for at most `at_once` points each, which together are all points, group after group."""
    exclusive = labeller.params.prompt.exclusive
    _, labels = labeller.tensors(clicks)
    groups = groups_of(labels, exclusive).cpu()
    if exclusive == "none":
        groups = torch.zeros_like(groups)
    for group in groups.unique():
        chunks = list((groups == group).nonzero()[:, 0].split(at_once))
        yield from _Group(labeller, scene, clicks).answers(chunks)


class _Group:
    """The points of a group; chunks are int64 [K], which of the image's points."""

    def __init__(self, labeller: Labeller, scene: Scene, clicks: Clicks) -> None:
        self.labeller, self.scene, self.clicks = labeller, scene, clicks
        self.shared = labeller.params.prompt.exclusive == "none"
        """Pixels may have several owners."""
        self.alone = labeller.params.prompt.model_copy(update={"exclusive": "none"})
        self.drawn, self.refined = (PixelAssignment(scene.size, labeller.device) for _ in range(2))

    def answers(self, chunks: list[Tensor]) -> Iterator[Answer]:
        if not self.shared:
            for rows in chunks:
                mine, rough = self._draw(rows)
                xy, _ = self.labeller.tensors(mine)
                self.drawn.add(rough.masks, rows.to(xy.device), rough.maps.at, xy)
        for packed in [self._pack(rows) for rows in chunks]:
            yield self._unpack(packed)

    def _draw(self, rows: Tensor) -> tuple[Clicks, Rough]:
        mine = self.clicks.take(rows.tolist())
        return mine, self.labeller.draw(self.scene, mine, self.alone)

    def _pack(self, rows: Tensor) -> _Packed:
        labeller, params = self.labeller, self.labeller.params
        mine, rough = self._draw(rows)
        xy, labels = labeller.tensors(mine)
        rows = rows.to(xy.device)
        if not self.shared:
            owned = self.drawn.exclusive(rough.masks, rows)
            rough = rough._replace(masks=owned, boxes_xyxy=mask_boxes(owned))
        wanted, refusals = labeller.wanted(self.scene, rough)
        refined = refine(
            labeller.refiner, self.scene.original, rough.masks, xy, labeller.refiner.config,
            params.pseudo.crop_batch_size, enlarge=labeller.gate.enlarge, rounds=labeller.gate.rounds,
            mask_threshold=params.prompt.mask_threshold, labels=labels, selected=wanted,
        )  # fmt: skip
        if not self.shared:
            self.refined.add(refined.masks, rows, confidence(rough, refined), xy)
        taken = torch.zeros_like(refined.kept_rough)  # not known yet
        facts = Facts.of(rough.prompted, rough.drawn, refined.kept_rough, taken, refusals)
        nothing = torch.zeros(0, *self.scene.size, dtype=torch.bool)
        return _Packed(
            rows, Answer(mine, facts, nothing, nothing), encode_many(rough.masks), encode_many(refined.masks)
        )

    def _unpack(self, packed: _Packed) -> Answer:
        device, size = self.labeller.device, self.scene.size
        rough, refined = (
            torch.from_numpy(decode_many(codes, *size)).to(device) for codes in (packed.rough, packed.refined)
        )
        facts = packed.answer.facts
        if not self.shared:
            refined = self.refined.exclusive(refined, packed.rows)
        taken = ~facts.kept_rough & ~refined.flatten(1).any(1).cpu()
        stays = (facts.kept_rough | taken).to(device)[:, None, None]
        return packed.answer._replace(
            facts=facts._replace(taken=taken), rough=rough, final=torch.where(stays, rough, refined)
        )
