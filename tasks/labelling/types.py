"""What pseudo-labelling knows of an image on its way: seen by the teacher, and answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from models.inference.click_masks import Prompted
from models.inference.tiles import Outputs
from tasks.labelling.parts import Clicks


class Facts(NamedTuple):
    """What is known of K points beside their masks; tensors on the CPU."""

    level: Tensor
    """int64 [K], as `models.inference.click_masks.Prompted` has it; so the next three, float32 [K]"""
    class_score: Tensor
    maskness: Tensor
    score: Tensor
    drawn: Tensor
    """bool [K]: the teacher drew something"""
    kept_rough: Tensor
    """bool [K]: refinement wasn't wanted, or came out empty"""
    taken: Tensor
    """bool [K]: all pixels of the refined mask are likelier another's"""
    refusals: list[str | None]
    """[K]: why the mask was not to be refined"""

    @classmethod
    def of(
        cls,
        prompted: Prompted,
        drawn: Tensor,
        kept_rough: Tensor,
        taken: Tensor,
        refusals: Sequence[str | None],
    ) -> Facts:
        on_cpu = [
            value.cpu()
            for value in (
                prompted.level, prompted.class_score, prompted.maskness, prompted.score, drawn, kept_rough, taken
            )
        ]  # fmt: skip
        return cls(
            on_cpu[0], on_cpu[1], on_cpu[2], on_cpu[3], on_cpu[4], on_cpu[5], on_cpu[6], list(refusals)
        )


class Answer(NamedTuple):
    """What came of some points of an image, a row a point; masks lie where they were made."""

    clicks: Clicks
    facts: Facts
    rough: Tensor
    """bool [K, H, W] of the original image; empty where nothing was drawn, or all of it is likelier another's"""
    final: Tensor
    """bool [K, H, W]: the refined mask, or the rough one where `kept_rough` or `taken`"""


class Scene(NamedTuple):
    """An image that the teacher has looked at."""

    outputs: Outputs
    n: int
    """Its place in the outputs."""
    original: Tensor
    """uint8 RGB [3, H, W]"""
    input_size: tuple[int, int]
    content_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the original."""
        return (self.original.shape[1], self.original.shape[2])
