"""Masks at clicks.

In the paper (PointWSSIS, arXiv 2303.15062, section 3.2) the cell that contains the point gives a kernel on every level,
and so a mask; the mask with the best score is used. Here, the kernels of the cells around the point on all levels are
averaged, weighted by how well each cell's mask fits the click. Mask logits are linear in the kernel, so this averages
the cells' mask logits. It also works for clicks far from an object's mass centre.

Each point gets exactly one mask, which doesn't depend on the other points.

An object may have further clicks. The cells around each one inside it are candidates too, and a cell fits as well as
its mask fits all of these. A click outside it that the mask takes in changes the kernel so that the mask's logit is
`OUTSIDE` there, at the clicks inside what it was, and elsewhere as close to what it was as possible. So places that
look like it are left out too.

Legend: K points, L levels, S grid side, T cells of all levels, E kernel channels, M candidate cells per point,
h x w the mask map. Points are x, y in pixels of the padded input, (0, 0) its outer top-left corner.
"""

from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import PromptConfig
from models.inference.detect import maskness, rows_at_once
from models.inference.thresholds import mask_thresholds
from models.masks.clicks import NO_POINT, OFF, ON, FurtherClicks
from models.solov2.network import RawOutputs
from models.solov2.targets import cells_of

CHUNK_ELEMENTS = 1 << 26
"""Mask values in memory at a time."""
OUTSIDE = -1.0
"""Greatest logit at a click outside the object, a probability of 0.27."""
RIDGE = 0.01
"""Of the change of a kernel, as a share: between clicks of nearly the same features it is averaged."""
PRODUCTS_RIDGE = 0.1
"""A share too: of the change in features that occur nowhere on the map, which would be free."""


class Prompted(NamedTuple):
    """One row per point, in the order given."""

    level: Tensor
    """int64 [K]: level of the cell with the greatest weight; 0 is the finest"""
    class_score: Tensor
    """float32 [K]: mean probability of the point's class in the cells, by their weights"""
    maskness: Tensor
    """float32 [K]: mean probability above mask_threshold; if none is above it: the greatest for a small mask, else 0"""
    score: Tensor
    """float32 [K]: class_score x maskness"""
    click_prob: Tensor
    """float32 [K]: the mask's probability at the point"""
    cut: Tensor
    """float32 [K]: the mask's threshold: pixels with a greater probability belong to it"""
    mask_prob: Tensor
    """float32 [K, h, w]"""


@torch.no_grad()
def prompt_points(
    outputs: RawOutputs,
    n: int,
    points_xy: Tensor,
    labels: Tensor,
    input_size: tuple[int, int],
    config: PromptConfig,
    further: FurtherClicks | None = None,
) -> Prompted:
    """Masks of image `n` at points [K, 2] of contiguous classes [K], and `further` clicks on the same K objects.

    A cell's fit is (its class probability) ^ class_power x (its mask's probability at the click) ^ click_power. To
    compute it, only the mask features at the click are needed. `blend` averages the kernels, weighted by fit, and
    computes one mask per point. `best` computes the masks of all cells and uses the one with the greatest
    fit x maskness; of equal ones, that of the nearest cell, then of the finest level. The masks of as many points as
    CHUNK_ELEMENTS allows are one matrix product.

    Raises ValueError for a point that isn't finite or a class that the network doesn't have.
    """
    device = outputs.mask_features.device
    points, labels = points_xy.to(device, torch.float32), labels.to(device)
    classes = outputs.category_logits[0].shape[1]
    if points.shape != (len(labels), 2) or not bool(points.isfinite().all()):
        raise ValueError(f"points_xy: found shape {list(points.shape)}, expected finite [{len(labels)}, 2]")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise ValueError(f"labels: found {labels.tolist()}, expected classes 0..{classes - 1}")

    # Without autocast, which is on in trainings: rough masks made there must equal those of pseudo_label.
    with torch.autocast(device.type, enabled=False):
        prompter = _Prompter(outputs, n, input_size, config)
        h, w = prompter.map_size
        per_point = (
            1 if config.kernel == "blend" else len(prompter.grids) * (2 * config.neighbourhood + 1) ** 2
        )
        step = max(1, CHUNK_ELEMENTS // (per_point * h * w))
        mask_prob = torch.empty(len(points), h, w, device=device)
        parts = []
        for at in range(0, len(points), step) or [0]:
            rows = slice(at, at + step)
            parts.append(prompter.prompt(points[rows], labels[rows], mask_prob[rows]))
        level, class_score, certainty, click_prob, cut = (
            torch.cat(part) for part in zip(*parts, strict=True)
        )
        if further is not None:
            columns = (level, class_score, certainty, click_prob, cut)
            for rows in further.counts().nonzero()[:, 0].split(step):
                if not len(rows):
                    continue
                masks = torch.empty(len(rows), h, w, device=device)
                some = prompter.prompt(points[rows], labels[rows], masks, further.take(rows))
                for column, values in zip((*columns, mask_prob), (*some, masks), strict=True):
                    column[rows] = values
    return Prompted(level, class_score, certainty, certainty * class_score, click_prob, cut, mask_prob)


class _Prompter:
    """One image's outputs: class logits and kernels by cell, mask features by place of the mask map."""

    def __init__(
        self, outputs: RawOutputs, n: int, input_size: tuple[int, int], config: PromptConfig
    ) -> None:
        self.input_size, self.config = input_size, config
        self.grids = [(logits.shape[-2], logits.shape[-1]) for logits in outputs.category_logits]
        self.logits = torch.cat([logits[n].flatten(1) for logits in outputs.category_logits], 1)  # [C, T]
        # Contiguous per cell, since most cells are read many times.
        self.kernels = torch.cat([kernels[n].flatten(1).T for kernels in outputs.kernels]).float()  # [T, E]
        features = outputs.mask_features[n].float()
        self.map_size = (features.shape[1], features.shape[2])
        self.features = features.flatten(1)

    def prompt(
        self, points: Tensor, labels: Tensor, masks: Tensor, further: FurtherClicks | None = None
    ) -> tuple[Tensor, ...]:
        """Level, class_score, maskness, click_prob and cut [k] of points [k, 2]; writes `masks` [k, h, w]."""
        cells, on_grid = self._cells_around(points)
        taps = self._taps(points)
        others = (
            []
            if further is None
            else list(zip(further.points_xy.unbind(1), further.labels.unbind(1), strict=True))
        )
        for place, label in others:
            more, there = self._cells_around(place)
            cells = torch.cat([cells, more], 1)
            on_grid = torch.cat([on_grid, there & (label == ON)[:, None]], 1)
        logits = self.logits[labels[:, None], cells].float()
        kernels = self.kernels[cells]  # [k, M, E]
        fit = self.config.class_power * F.logsigmoid(logits)
        fit = fit + self.config.click_power * self._at_click(kernels, taps).log()
        for place, label in others:
            at_click = self.config.click_power * self._at_click(kernels, self._taps(place)).log()
            fit = fit + at_click.where((label == ON)[:, None], 0)
        fit = fit.masked_fill(~on_grid, -torch.inf)
        rows = torch.arange(len(points), device=points.device)
        flat = masks.flatten(1)
        if self.config.kernel == "blend":
            share = fit.softmax(1)
            best = fit.argmax(1)
            kernel = (share[:, None] @ kernels)[:, 0]
            if further is not None:
                kernel = self._corrected(kernel, points, further)
            torch.mm(kernel, self.features, out=flat)
            certainty, area, peak = self._draw(flat)
            class_score = (share * logits.sigmoid()).sum(1)
        else:
            drawn = (kernels.flatten(0, 1) @ self.features).unflatten(0, cells.shape)
            measured, *known = (one.view(cells.shape) for one in self._draw(drawn.flatten(0, 1)))
            best = (measured * fit.exp()).masked_fill(~on_grid, -1).argmax(1)
            kernel, certainty = kernels[rows, best], measured[rows, best]
            area, peak = (one[rows, best] for one in known)
            flat.copy_(drawn[rows, best])
            if further is not None:
                kernel = self._corrected(kernel, points, further)
                certainty, area, peak = self._draw(torch.mm(kernel, self.features, out=flat))
            class_score = logits[rows, best].sigmoid()
        config = self.config
        cut = mask_thresholds(masks, config.mask_threshold, config.small_area, config.faint, (area, peak))
        click_prob = self._at_click(kernel[:, None], taps)[:, 0]
        return best % len(self.grids), class_score, certainty, click_prob, cut

    def _corrected(self, kernel: Tensor, points: Tensor, further: FurtherClicks) -> Tensor:
        """Kernels [k, E] that make logits at clicks outside at most `OUTSIDE`, with the least mean square change of the
        logits over the map."""
        labels = torch.cat([torch.full_like(further.labels[:, :1], ON), further.labels], 1)
        places = torch.cat([points[:, None], further.points_xy], 1).unbind(1)
        features = torch.stack(
            [(at * weights[:, None]).sum(-1) for at, weights in map(self._taps, places)], 1
        )
        features = features * (labels != NO_POINT)[..., None]  # [k, 1 + F, E]
        logits = (features @ kernel[..., None])[..., 0]
        change = (OUTSIDE - logits).clamp(max=0).where(labels == OFF, 0)
        spread = torch.linalg.solve(self._products, features.mT)  # [k, E, 1 + F]
        gram = features @ spread
        ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).amax(1).clamp(min=1e-6)
        gram = gram + ridge[:, None, None] * torch.eye(gram.shape[1], device=gram.device)
        return kernel + (spread @ torch.linalg.solve(gram, change[..., None]))[..., 0]

    @cached_property
    def _products(self) -> Tensor:
        """[E, E]: mean products of mask features over the map; w'Pw is a kernel's mean square logit. With a ridge."""
        products = self.features @ self.features.T / self.features.shape[1]
        ridge = PRODUCTS_RIDGE * products.diagonal().mean().clamp(min=1e-6)
        return products + ridge * torch.eye(len(products), device=products.device)

    def _cells_around(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Cells int64 [k, M], the nearest first, then the finest; bool [k, M]: whether they are on the grid."""
        reach = self.config.neighbourhood
        span = torch.arange(-reach, reach + 1, device=points.device)
        offsets = torch.cartesian_prod(span, span).view(-1, 2)
        offsets = offsets[offsets.square().sum(1).argsort(stable=True)]
        cells, on_grid = [], []
        start = 0
        for rows, columns in self.grids:
            column, row = (cells_of(points, (rows, columns), self.input_size)[:, None] + offsets).unbind(-1)
            on_grid.append((column >= 0) & (column < columns) & (row >= 0) & (row < rows))
            cells.append(start + row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1))
            start += rows * columns
        return torch.stack(cells, 2).flatten(1), torch.stack(on_grid, 2).flatten(1)

    def _at_click(self, kernels: Tensor, taps: tuple[Tensor, Tensor]) -> Tensor:
        """[k, M]: each point's probability in the masks of its kernels [k, M, E], by bilinear interpolation."""
        features, weights = taps
        return ((kernels @ features).sigmoid_() * weights[:, None]).sum(-1).clamp(min=1e-30)

    def _taps(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Mask features [k, E, 4] at the four places around each point, and their bilinear weights [k, 4]."""
        (h, w), (height, width) = self.map_size, self.input_size
        limit = points.new_tensor([w - 1, h - 1])
        spot = points * points.new_tensor([w / width, h / height]) - 0.5
        spot = spot.clamp(min=torch.zeros_like(limit), max=limit)
        low = spot.floor()
        (right, down), (x0, y0) = (spot - low).unbind(1), low.long().unbind(1)
        x1, y1 = (x0 + 1).clamp(max=w - 1), (y0 + 1).clamp(max=h - 1)
        corners = torch.stack([y0 * w + x0, y0 * w + x1, y1 * w + x0, y1 * w + x1], 1)
        weights = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
        return self.features[:, corners].transpose(0, 1), torch.stack(weights, 1)

    def _draw(self, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turns logits [k, h * w] into probabilities, in place; returns maskness, area and greatest probability [k].

        The area is the number of places above the threshold. If it is 0, a small mask's maskness is its greatest
        probability.
        """
        measured = []
        for part in masks.split(rows_at_once(masks)):
            part.sigmoid_()
            measured.append((*maskness(part, self.config.mask_threshold), part.amax(1)))
        certainty, area, peak = (torch.cat(column) for column in zip(*measured, strict=True))
        if self.config.small_area:
            certainty = torch.where((area == 0) & (peak > self.config.faint), peak, certainty)
        return certainty, area, peak
