"""A click becomes a mask. The paper's rule (PointWSSIS, arXiv 2303.15062, section 3.2: at every level the cell
that holds the point gives a kernel, hence a mask; the level whose mask scores best wins), and what makes it hold
for clicks anywhere and for crowds: neighbouring cells, the mask's own centre, and what the other clicks tell.

Every point gets exactly one answer, whatever the others are.

Legend: K points, L levels, S grid side, T cells of all levels, E kernel channels, M candidate cells a point, Q
places that were clicked, h x w the mask map. Points are x, y in pixels of the padded input, (0, 0) its outer
top-left corner.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.config import PromptConfig
from models.exclusive import groups_of
from models.postprocess import maskness
from models.solov2 import RawOutputs
from models.targets import cells_of

CHUNK_ELEMENTS = 1 << 26
"""Mask values held at a time."""


class Prompted(NamedTuple):
    """One row a point, in the order given."""

    level: Tensor
    """int64 [K], 0 the finest"""
    class_score: Tensor
    """float32 [K]: probability of the point's class in the cell that was chosen"""
    maskness: Tensor
    """float32 [K]: mean probability inside the mask, 0 when it's empty"""
    score: Tensor
    """float32 [K]: their product"""
    click_prob: Tensor
    """float32 [K]: the mask's probability at the point"""
    other_clicks: Tensor
    """float32 [K]: sum of its probabilities at the clicks of other objects (see `exclusive`) that it covers"""
    mask_prob: Tensor
    """float32 [K, h, w]"""


class _Choice(NamedTuple):
    """A cell a point, and all that is known of its mask."""

    cell: Tensor
    class_score: Tensor
    certainty: Tensor
    own: Tensor
    others: Tensor
    score: Tensor
    mask: Tensor  # [K, h * w]

    def better(self, other: "_Choice") -> "_Choice":
        """Row by row the one of greater score; of equals this one."""
        wins = other.score > self.score
        pairs = zip(self, other, strict=True)
        return _Choice(*(torch.where(wins[:, None] if a.ndim > 1 else wins, b, a) for a, b in pairs))


@torch.no_grad()
def prompt_points(
    outputs: RawOutputs,
    n: int,
    points_xy: Tensor,
    labels: Tensor,
    input_size: tuple[int, int],
    config: PromptConfig,
) -> Prompted:
    """Masks of image `n` at points [K, 2] of contiguous classes [K], which are all the clicks of the image.

    Candidates are the cells around each point. What clicks tell of their masks takes the mask features at the
    clicked places alone, so that only the `candidates` best are drawn whole: all of them one matrix product
    with the mask features (several where memory wouldn't hold it). The best has the greatest

        maskness x class score x probability at its own click (own_click) / (1 + clicks of others that it covers)

    A candidate whose mask is empty loses to any other; a tie goes to the nearer cell, then the finer level.

    Raises ValueError for a point that isn't finite or a class the network doesn't have.
    """
    device = outputs.mask_features.device
    points, labels = points_xy.to(device, torch.float32), labels.to(device)
    classes = outputs.category_logits[0].shape[1]
    if points.shape != (len(labels), 2) or not bool(points.isfinite().all()):
        raise ValueError(f"points_xy: found shape {list(points.shape)}, expected finite [{len(labels)}, 2]")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise ValueError(f"labels: found {labels.tolist()}, expected classes 0..{classes - 1}")

    if not len(points):
        empty = torch.empty(0, device=device)
        mask_prob = torch.empty(0, *outputs.mask_features.shape[-2:], device=device)
        return Prompted(empty.long(), empty, empty, empty, empty, empty, mask_prob)
    prompter = _Prompter(outputs, n, points, labels, input_size, config)
    h, w = prompter.map_size
    mask_prob = torch.empty(len(points), h, w, device=device)
    parts = []
    step = max(1, CHUNK_ELEMENTS // ((prompter.candidates + 1) * h * w))
    for at in range(0, len(points), step):
        rows = torch.arange(at, min(at + step, len(points)), device=device)
        choice = prompter.choose(rows)
        mask_prob[rows] = choice.mask.view(-1, h, w).to(mask_prob)
        parts.append(choice[:-1])
    cell, class_score, certainty, own, others, _ = (torch.cat(part) for part in zip(*parts, strict=True))
    level = torch.searchsorted(prompter.ends, cell, right=True)
    return Prompted(level, class_score, certainty, certainty * class_score, own, others, mask_prob)


class _Prompter:
    """One image's outputs and clicks, laid out for lookups by cell and by place."""

    def __init__(
        self,
        outputs: RawOutputs,
        n: int,
        points: Tensor,
        labels: Tensor,
        input_size: tuple[int, int],
        config: PromptConfig,
    ) -> None:
        self.points, self.labels, self.input_size, self.config = points, labels, input_size, config
        self.grids = [(logits.shape[-2], logits.shape[-1]) for logits in outputs.category_logits]
        counts = torch.tensor([rows * columns for rows, columns in self.grids])
        self.ends = counts.cumsum(0).to(points.device)
        self.logits = torch.cat([logits[n].flatten(1) for logits in outputs.category_logits], 1)  # [C, T]
        self.kernels = torch.cat([kernels[n].flatten(1) for kernels in outputs.kernels], 1)  # [E, T]
        features = outputs.mask_features[n].float()
        self.map_size = (features.shape[1], features.shape[2])
        self.features = features.flatten(1)
        self.candidates = min(config.candidates, len(self.grids) * (2 * config.neighbourhood + 1) ** 2)

        # Clicks of one group at the very same place count once, hence not against each other.
        group = groups_of(labels, config.exclusive)
        groups, self.group = group.unique(return_inverse=True)
        places, self.place = torch.cat([points, self.group[:, None]], 1).unique(dim=0, return_inverse=True)
        self.member = places[:, 2:].long() == torch.arange(len(groups), device=points.device)  # [Q, G]
        self.taps, self.tap_weights = self._taps(places[:, :2])

    def choose(self, rows: Tensor) -> _Choice:
        """The best cells for the points of these rows."""
        cells, real = self._cells_around(self.points[rows], self.config.neighbourhood)
        choice = self._best(rows, cells, real, None)
        for _ in range(self.config.recentre):
            centre, found = self._centre(choice.mask)
            cells, real = self._cells_around(torch.where(found[:, None], centre, self.points[rows]), 0)
            choice = self._best(rows, cells, real & (cells != choice.cell[:, None]), choice)
        return choice

    def _cells_around(self, points: Tensor, reach: int) -> tuple[Tensor, Tensor]:
        """Cells int64 [k, M], the nearest first, of those the finest; bool [k, M]: on the grid."""
        span = torch.arange(-reach, reach + 1, device=points.device)
        offsets = torch.cartesian_prod(span, span).view(-1, 2)
        offsets = offsets[offsets.square().sum(1).argsort(stable=True)]
        cells, real = [], []
        start = 0
        for rows, columns in self.grids:
            column, row = (cells_of(points, (rows, columns), self.input_size)[:, None] + offsets).unbind(-1)
            real.append((column >= 0) & (column < columns) & (row >= 0) & (row < rows))
            cells.append(start + row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1))
            start += rows * columns
        return torch.stack(cells, 2).flatten(1), torch.stack(real, 2).flatten(1)

    def _best(self, rows: Tensor, cells: Tensor, real: Tensor, held: _Choice | None) -> _Choice:
        """For each point the best of the real ones among cells [k, M] and of what is held already."""
        class_score = self.logits[self.labels[rows, None], cells].float().sigmoid()
        own, others = self._at_clicks(rows, cells)
        appeal = class_score / (1 + others)
        if self.config.own_click:
            appeal = appeal * own
        if held is not None:
            real = real & (appeal > held.score[:, None])  # maskness is 1 at most: no other can win
        # In the order of `cells` again, which decides ties.
        ranked = torch.where(real, appeal, -1).argsort(dim=1, descending=True, stable=True)
        kept = ranked[:, : self.candidates].sort(1).values
        real = real.gather(1, kept)
        drawn = cells.gather(1, kept)[real].unique()
        if held is not None and not len(drawn):
            return held
        masks = (self._kernels(drawn) @ self.features).sigmoid_()
        at = torch.searchsorted(drawn, cells.gather(1, kept)).clamp(max=len(drawn) - 1)
        certainty = maskness(masks, self.config.mask_threshold)[0][at]
        score = torch.where(real, certainty * appeal.gather(1, kept), -1)
        best = score.argmax(1, keepdim=True)
        pick = kept.gather(1, best)
        found = [values.gather(1, pick)[:, 0] for values in (cells, class_score, own, others)]
        certainty, score, at = (values.gather(1, best)[:, 0] for values in (certainty, score, at))
        choice = _Choice(found[0], found[1], certainty, found[2], found[3], score, masks[at])
        return choice if held is None else held.better(choice)

    def _at_clicks(self, rows: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """[k, M] each: a candidate's probability at its own click, and the sum at others that it covers."""
        drawn, at = cells.unique(return_inverse=True)
        kernels = self._kernels(drawn)
        seen = torch.zeros(len(drawn), self.taps.shape[2], device=cells.device)
        for taps, weights in zip(self.taps, self.tap_weights, strict=True):
            seen += (kernels @ taps).sigmoid_() * weights
        place, group = self.place[rows, None], self.group[rows, None]
        own = seen[at, place]
        if self.config.exclusive == "none":
            return own, torch.zeros_like(own)
        covered = seen * (seen > self.config.mask_threshold)
        others = (covered @ self.member.float())[at, group] - covered[at, place]
        return own, others.clamp(min=0)

    def _kernels(self, cells: Tensor) -> Tensor:
        return self.kernels[:, cells].float().T

    def _taps(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Mask features [4, E, Q] around each place and their weights [4, Q]: masks are resized bilinearly."""
        (h, w), (height, width) = self.map_size, self.input_size
        limit = places.new_tensor([w - 1, h - 1])
        spot = places * places.new_tensor([w / width, h / height]) - 0.5
        spot = spot.clamp(min=torch.zeros_like(limit), max=limit)
        low = spot.floor()
        (right, down), (x0, y0) = (spot - low).unbind(1), low.long().unbind(1)
        x1, y1 = (x0 + 1).clamp(max=w - 1), (y0 + 1).clamp(max=h - 1)
        corners = [y0 * w + x0, y0 * w + x1, y1 * w + x0, y1 * w + x1]
        weights = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
        return torch.stack([self.features[:, corner] for corner in corners]), torch.stack(weights)

    def _centre(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Mass centres [k, 2] in input pixels of masks [k, h * w]; bool [k]: it has one, being not empty."""
        (h, w), (height, width) = self.map_size, self.input_size
        inside = (masks > self.config.mask_threshold).view(-1, h, w)
        columns, rows = inside.sum(1, dtype=torch.float32), inside.sum(2, dtype=torch.float32)
        area = columns.sum(1)
        x = columns @ (torch.arange(w, device=masks.device) + 0.5) / area.clamp(min=1) * (width / w)
        y = rows @ (torch.arange(h, device=masks.device) + 0.5) / area.clamp(min=1) * (height / h)
        return torch.stack([x, y], 1), area > 0
