"""Clicks, images and masks on their way through pseudo-labelling.

Legend: K clicks of an image, M candidate masks per click, h x w a probability map, H x W pixels of the original image.
Points are x, y in pixels of the original image; (0, 0) is the outer corner of the top-left pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.masks.rle import FloatArray, IntArray
from models.inference.coarse_masks import Rough
from models.masks.clicks import NO_POINT, OFF, ON, FurtherClicks
from models.masks.resize import Sizes


@dataclass(frozen=True)
class Clicks:
    """The K clicks of an image, sorted by x, y, class and, where all these are equal, id.

    The order breaks ties between equally probable masks, so masks don't depend on ids.
    """

    image_id: int
    point_ids: list[str]
    category_ids: IntArray
    """int64 [K]"""
    xy: FloatArray
    """float32 [K, 2]: pixels of the original image"""
    further: list[list[dict[str, Any]] | None] | None = None
    """[K]: further clicks on the same objects, with x, y and inside; None: the image has none"""

    def __len__(self) -> int:
        return len(self.point_ids)

    def take(self, rows: Sequence[int]) -> Clicks:
        """A subset."""
        ids = [self.point_ids[row] for row in rows]
        further = None if self.further is None else [self.further[row] for row in rows]
        return Clicks(self.image_id, ids, self.category_ids[rows], self.xy[rows], further)

    def tensors(self, class_of: Mapping[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        """x, y float32 [K, 2] and contiguous classes int64 [K]; `class_of` maps category ids to classes."""
        labels = [class_of[category] for category in self.category_ids.tolist()]
        return torch.from_numpy(self.xy).to(device), torch.tensor(labels, device=device)

    def further_tensors(self, device: torch.device) -> FurtherClicks | None:
        """`further` as tensors."""
        return None if self.further is None else further_clicks(self.further, device)


def further_clicks(
    clicks: Sequence[Sequence[Mapping[str, Any]] | None], device: torch.device
) -> FurtherClicks | None:
    """The further clicks of K objects (x, y, inside) as tensors; None if no object has one."""
    most = max((len(some or ()) for some in clicks), default=0)
    if most == 0:
        return None
    none = (0.0, 0.0, NO_POINT)
    rows = [
        [(one["x"], one["y"], ON if one["inside"] else OFF) for one in some or ()]
        + [none] * (most - len(some or ()))
        for some in clicks
    ]
    values = torch.tensor(rows, dtype=torch.float32, device=device)
    return FurtherClicks(values[..., :2], values[..., 2].long())


def contains_points(masks: Tensor, points_xy: Tensor) -> Tensor:
    """Bool [K]: whether each mask of [K, H, W] has the pixel of its point [K, 2]; of points outside, the nearest."""
    y, x = pixels_of(masks, points_xy)
    return masks[torch.arange(len(masks), device=masks.device), y, x]


def pixels_of(masks: Tensor, points_xy: Tensor) -> tuple[Tensor, Tensor]:
    """y and x [K] of the pixels of masks [*, H, W] that hold points [K, 2]; of points outside, the nearest."""
    limit = points_xy.new_tensor([masks.shape[2] - 1, masks.shape[1] - 1])
    x, y = points_xy.clamp(min=torch.zeros_like(limit), max=limit).long().unbind(1)
    return y, x


class ImageContext(NamedTuple):
    """An image, encoded once by a proposer, for any number of clicks.

    Probability maps cover the proposer's input: the resized image and its padding at the bottom and right.
    """

    original: Tensor
    """uint8 RGB [3, H, W]"""
    sizes: Sizes
    encoding: Any
    """the proposer's own, such as feature maps"""

    @property
    def area_scale(self) -> float:
        """Pixels of the resized image per pixel of the original."""
        (ch, cw), (height, width) = self.sizes.content, self.sizes.original
        return ch * cw / (height * width)


class Candidates(NamedTuple):
    """M candidate masks for each of K clicks; [K] in place of [K, M] once the best are chosen."""

    mask_prob: Tensor
    """float [K, M, h, w]"""
    cut: Tensor
    """float32 [K, M]: the probability above which a pixel belongs to the mask, above 0"""
    level: Tensor
    """int64 [K, M]: which of the proposer's scales drew the mask; 0 if it has one"""
    class_score: Tensor
    """float32 [K, M]: probability of the click's class"""
    maskness: Tensor
    """float32 [K, M]: the mask's own quality, 0..1"""
    score: Tensor
    """float32 [K, M]: the candidate with the highest score is used"""


class Proposals(NamedTuple):
    """The candidates for K clicks, and for clicks that have none the reason.

    A candidate counts only if its score, cut and probabilities are finite: if a click has fewer than M candidates,
    the other scores are NaN.
    """

    candidates: Candidates
    reasons: list[str | None]
    """[K]"""


class Drawn(NamedTuple):
    """The rough masks at K clicks of an image, without overlaps."""

    rough: Rough
    best: Candidates
    """[K]; zeros for a click with a reason"""
    reasons: list[str | None]
    """[K]: why there is no candidate, hence no mask; None where there is one"""
    drawn_by: list[str] | None = None
    """[K]: the chosen proposers' names; None if there is one proposer"""


class PointStats(NamedTuple):
    """What is recorded of K clicks apart from their masks; tensors are on the CPU."""

    level: Tensor
    class_score: Tensor
    maskness: Tensor
    score: Tensor
    drawn: Tensor
    """bool [K]: the proposer's mask isn't empty"""
    kept_rough: Tensor
    """bool [K]: not selected for refinement, or the refined mask is empty"""
    taken: Tensor
    """bool [K]: all pixels of the refined mask are assigned to other masks"""
    reasons: list[str | None]
    """[K], as in Drawn"""
    refusals: list[str | None]
    """[K]: why the gate didn't select the mask for refinement"""
    drawn_by: list[str] | None = None
    """[K], as in Drawn"""

    @classmethod
    def of(
        cls, drawn: Drawn, kept_rough: Tensor, taken: Tensor, refusals: Sequence[str | None]
    ) -> PointStats:
        """The stats of drawn masks after refinement."""
        best = drawn.best
        return cls(
            best.level.cpu(), best.class_score.cpu(), best.maskness.cpu(), best.score.cpu(),
            drawn.rough.drawn.cpu(), kept_rough.cpu(), taken.cpu(), drawn.reasons, list(refusals), drawn.drawn_by,
        )  # fmt: skip


class PointMasks(NamedTuple):
    """The masks at K clicks of an image, on the device that computed them."""

    stats: PointStats
    rough: Tensor
    """bool [K, H, W]; empty if nothing was drawn, or all of it is assigned to other masks"""
    final: Tensor
    """bool [K, H, W]: the refined mask, or the rough one where `kept_rough` or `taken`"""
