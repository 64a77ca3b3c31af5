"""Assigns objects to cells (SOLO, arXiv 1912.04488, section 3.3.1; SOLOv2, section 3).

An object is assigned to the levels whose size range contains its size. On these levels its positive cells are those
that touch its shrunk box (around its mass centre) and are at most one cell away from the mass centre's cell. The cells
of further points and of clicks can be added. There are no loops over cells or objects.

Legend: N images, L levels, K objects, P pairs of an object and a positive cell, H x W pixels of the padded input.
Pixel coordinates are x, y with the centre of the top-left pixel at (0.5, 0.5).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import SOLOv2Config
from models.masks.geometry import measure

NO_CLASS = -1
"""Category target of a cell that is positive for no object."""


@dataclass(frozen=True)
class Targets:
    """The training targets of a batch."""

    categories: list[Tensor]
    """L x int64 [N, rows, columns]: class of the cell's object, or NO_CLASS."""
    cell_weights: list[Tensor]
    """L x float32 [N, rows, columns]: weight of the cell in the category loss (0 in ignored regions)."""
    level: Tensor
    """int64 [P], sorted by image, then level, object and cell; so are the next three."""
    image: Tensor
    """int64 [P]"""
    cell: Tensor
    """int64 [P]: row * columns + column"""
    place: Tensor
    """int64 [P]: the cell, numbered through all levels"""
    instance: Tensor
    """int64 [P]: row of `masks` and `weights`"""
    masks: Tensor
    """float32 [sum K, H / mask_stride, W / mask_stride]: the fraction of each place that the object covers."""
    weights: Tensor
    """float32 [sum K]"""
    skipped_negatives: Tensor
    """int64 [3, S]: image, class and cell of the S entries that the category loss skips, since a pseudo mask of
    the class touches the cell; cells are numbered through all levels"""
    pairs_per_image: list[int]
    """N: pairs of each image, on the host, so that the loss doesn't wait for the device"""


def levels_of(size: Tensor, ranges: tuple[tuple[float, float], ...]) -> Tensor:
    """Bool [K, L]: the levels that objects of sizes [K] are assigned to, at least one each.

    A size below or above all ranges counts as the nearest one inside.
    """
    limits = size.new_tensor(ranges)
    lowest, highest = limits[:, 0].min(), limits[:, 1].max()
    # A size of exactly `highest` is outside, because the upper ends are.
    inside = size.clamp(min=lowest)[:, None]
    in_range = (limits[:, 0] <= inside) & (inside < limits[:, 1])
    return in_range | ((inside >= highest) & (limits[:, 1] == highest))


def cells_of(points_xy: Tensor, grid: int | tuple[int, int], input_size: tuple[int, int]) -> Tensor:
    """Int64 [..., 2]: column and row of the cell that contains each point; for a point outside, of the nearest cell.

    `grid` is the number of rows and of columns, or one number for both.
    """
    height, width = input_size
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    counts = torch.tensor([columns, rows], device=points_xy.device)
    cells = (points_xy / points_xy.new_tensor([width, height]) * counts).floor().long()
    return torch.minimum(cells.clamp(min=0), counts - 1)


def positive_cells(
    centre: Tensor, half: Tensor, grid: int | tuple[int, int], input_size: tuple[int, int]
) -> Tensor:
    """Bool [K, rows, columns]: cells that touch the box centre +- half (x, y, [K, 2]), at most one from the centre."""
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    middle = cells_of(centre, grid, input_size)
    low = torch.maximum(cells_of(centre - half, grid, input_size), middle - 1)
    high = torch.minimum(cells_of(centre + half, grid, input_size), middle + 1)
    span = torch.arange(max(rows, columns), device=centre.device)
    between = (span >= low[..., None]) & (span <= high[..., None])  # [K, 2, most]
    return between[:, 1, :rows, None] & between[:, 0, None, :columns]


def assign_targets(
    masks: list[Tensor],
    labels: list[Tensor],
    weights: list[Tensor],
    input_size: tuple[int, int],
    config: SOLOv2Config,
    *,
    points_xy: list[Tensor] | None = None,
    clicks_xy: list[Tensor] | None = None,
    ignore: list[Tensor | None] | None = None,
    weigh_categories: bool = True,
) -> Targets:
    """Targets of a batch padded to `input_size` (H, W).

    Args:
        masks: for each image bool [K, h, w], h <= H and w <= W, at the padded image's top left. An empty mask
            has no positive cells.
        labels: int64 [K], contiguous classes.
        weights: float32 [K]: factors of an object's part of both losses.
        points_xy: float [K, 2] or [K, Q, 2], in input pixels: further points whose cells are positive too, so that the
            object can be prompted there. NaN means none.
        clicks_xy: float [K, 2] for each image: the clicks of objects with a pseudo mask; NaN for an object with a true
            mask, infinite if the click is outside the input. A click is certain: its cell is positive, and gets the
            object's class with weight 1, even if objects without a click in that cell have it too. The extent of a
            pseudo mask is uncertain: cells that touch it aren't negatives of its class.
        ignore: bool [h, w] or None for each image (crowds): cells that touch it and have no object have weight 0.
        weigh_categories: if false, `weights` apply to the mask loss only.

    If several objects have the same positive cell, the last one determines its class (of those with a click in it, if
    there are any). In the mask loss each is a pair of its own.
    """
    device = masks[0].device
    objects = _Objects.of(masks, labels, weights, config, points_xy, clicks_xy)
    pseudo_regions = [] if clicks_xy is None else _pseudo_mask_regions(masks, labels, clicks_xy)
    ignored = None if ignore is None else [None if region is None else _summed(region) for region in ignore]

    categories, cell_weights, pairs, skipped = (
        [],
        [],
        [],
        [torch.zeros(3, 0, dtype=torch.long, device=device)],
    )
    first_cell = 0
    for level, grid in enumerate(config.grid_shapes(input_size)):
        positive, clicked = objects.cells(level, grid, input_size)
        instance, cell = positive.nonzero(as_tuple=True)
        shape = (len(masks), grid[0] * grid[1])
        category, cell_weight = objects.categories(
            instance, cell, clicked[instance, cell], shape, weigh_categories
        )
        if ignored is not None:
            cell_weight[_touched(ignored, grid, input_size, device) & (category == NO_CLASS)] = 0
        skipped += _skipped_negatives(pseudo_regions, category.view(shape), first_cell, grid, input_size)
        categories.append(category.view(-1, *grid))
        cell_weights.append(cell_weight.view(-1, *grid))
        pairs.append(
            torch.stack(
                [objects.image[instance], torch.full_like(cell, level), instance, cell, cell + first_cell]
            )
        )
        first_cell += shape[1]

    table = torch.cat(pairs, 1)
    # Stable, so pairs stay sorted by level inside an image, and by object inside a level.
    table = table[:, table[0].argsort(stable=True)]
    return Targets(
        categories,
        cell_weights,
        level=table[1],
        image=table[0],
        cell=table[3],
        instance=table[2],
        place=table[4],
        masks=torch.cat([shrink_masks(m, input_size, config.mask_stride) for m in masks]),
        weights=objects.weight,
        skipped_negatives=torch.cat(skipped, 1),
        pairs_per_image=table[0].bincount(minlength=len(masks)).tolist(),
    )


@dataclass(frozen=True)
class _Objects:
    """The K objects of all images of a batch, in order."""

    image: Tensor
    """int64 [K]"""
    label: Tensor
    """int64 [K]"""
    weight: Tensor
    """float32 [K]"""
    centre: Tensor
    """float32 [K, 2]: x, y of the mass centre"""
    half: Tensor
    """float32 [K, 2]: half the width and height of the shrunk box"""
    member: Tensor
    """bool [K, L]: the levels that the object is assigned to"""
    points: Tensor | None
    """float32 [K, Q, 2], padded with NaN: further points whose cells are positive"""
    clicks: Tensor | None
    """float32 [K, 2], not finite if the object has no click inside the input"""

    @classmethod
    def of(
        cls,
        masks: list[Tensor],
        labels: list[Tensor],
        weights: list[Tensor],
        config: SOLOv2Config,
        points_xy: list[Tensor] | None,
        clicks_xy: list[Tensor] | None,
    ) -> "_Objects":
        """The objects of a batch; see `assign_targets`."""
        device, counts = masks[0].device, [len(m) for m in masks]
        shapes = [measure(m) for m in masks]
        area, size = torch.cat([s.area for s in shapes]), torch.cat([s.size for s in shapes])
        return cls(
            image=torch.repeat_interleave(
                torch.arange(len(masks), device=device), torch.tensor(counts, device=device)
            ),
            label=torch.cat(labels).long(),
            weight=torch.cat(weights).float(),
            centre=torch.cat([s.centre for s in shapes]),
            half=size * config.centre_shrink / 2,
            member=levels_of(size.prod(1).sqrt(), config.ranges) & (area > 0)[:, None],
            points=_stack_points(points_xy, counts, device),
            clicks=None if clicks_xy is None else torch.cat(clicks_xy),
        )

    def cells(self, level: int, grid: tuple[int, int], input_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Two of bool [K, rows * columns]: each object's positive cells, and the cell of its click."""
        positive = positive_cells(self.centre, self.half, grid, input_size)
        clicked = torch.zeros_like(positive)
        if self.points is not None:
            real = self.points.isfinite().all(-1)
            place = cells_of(self.points.nan_to_num(0.0), grid, input_size)
            rows = torch.arange(len(positive), device=positive.device)[:, None].expand_as(real)
            positive[rows[real], place[..., 1][real], place[..., 0][real]] = True
        if self.clicks is not None:
            row = self.clicks.isfinite().all(1).nonzero()[:, 0]
            place = cells_of(self.clicks[row], grid, input_size)
            clicked[row, place[:, 1], place[:, 0]] = True
        positive = (positive | clicked) & self.member[:, level, None, None]
        return positive.flatten(1), clicked.flatten(1)

    def categories(
        self, instance: Tensor, cell: Tensor, clicked: Tensor, shape: tuple[int, int], weigh: bool
    ) -> tuple[Tensor, Tensor]:
        """Class and weight [N * cells] of every cell of a level, from its (object, cell) pairs [P].

        `clicked`, bool [P]: the cell is that of the object's click. `shape` is (N, cells).
        """
        count = len(self.image)
        # A cell gets the class of its last object, or of its last clicked one. amax makes the result independent of the
        # order of execution.
        rank = instance + count * clicked
        winner = torch.full((shape[0] * shape[1],), -1, dtype=torch.long, device=cell.device)
        winner.scatter_reduce_(0, self.image[instance] * shape[1] + cell, rank, "amax")
        taken, certain = winner >= 0, winner >= count
        winner[certain] -= count
        category = torch.full_like(winner, NO_CLASS)
        category[taken] = self.label[winner[taken]]
        cell_weight = torch.ones_like(winner, dtype=torch.float32)
        if weigh:
            cell_weight[taken] = self.weight[winner[taken]]
            cell_weight[certain] = 1
        return category, cell_weight


def draw_pairs(count: int, limit: int, generator: torch.Generator | None = None) -> Tensor | None:
    """Int64 [limit], ascending: the indices of a uniform sample of `count` pairs; None for all.

    The mask loss is a mean over pairs, so a sample has the same expectation. Its cost is pairs x mask map: in crowded
    images more than the network's.
    """
    if count <= limit:
        return None
    return torch.randperm(count, generator=generator)[:limit].sort().values


def keep_pairs(targets: Targets, kept: Tensor) -> Targets:
    """`targets` with the pairs `kept` only; cells and their classes stay."""
    kept = kept.to(targets.cell.device)
    image = targets.image[kept]
    return replace(
        targets,
        level=targets.level[kept],
        image=image,
        cell=targets.cell[kept],
        instance=targets.instance[kept],
        place=targets.place[kept],
        pairs_per_image=image.bincount(minlength=len(targets.pairs_per_image)).tolist(),
    )


def shrink_masks(masks: Tensor, input_size: tuple[int, int], stride: int) -> Tensor:
    """Bool [K, h, w] to float32 [K, H / stride, W / stride]: the fraction of each square that is covered.

    It keeps what a bilinear sample loses: one-pixel objects, and the place of an edge inside a square.
    """
    (height, width), (h, w) = input_size, masks.shape[-2:]
    padded = F.pad(masks.float(), (0, width - w, 0, height - h))
    return F.avg_pool2d(padded[:, None], stride)[:, 0]


def _stack_points(points_xy: list[Tensor] | None, counts: list[int], device: torch.device) -> Tensor | None:
    """Float32 [sum K, Q, 2], padded with NaN."""
    if points_xy is None:
        return None
    grouped = [p[:, None] if p.ndim == 2 else p for p in points_xy]
    most = max((p.shape[1] for p in grouped), default=0)
    stacked = torch.full((sum(counts), most, 2), torch.nan, device=device)
    start = 0
    for count, points in zip(counts, grouped, strict=True):
        if len(points) != count:
            raise ValueError(f"points_xy: found {len(points)} rows for {count} masks; give one row per mask")
        stacked[start : start + count, : points.shape[1]] = points
        start += count
    return stacked


def _pseudo_mask_regions(
    masks: list[Tensor], labels: list[Tensor], clicks_xy: list[Tensor]
) -> list[tuple[int, int, Tensor]]:
    """(image, class, integral image) of the union of the pseudo masks of each image and class; see `_summed`."""
    regions = []
    for i, (drawn, classes, clicks) in enumerate(zip(masks, labels, clicks_xy, strict=True)):
        is_pseudo = ~clicks.isnan().any(1)
        for of_class in classes[is_pseudo].unique().tolist():
            regions.append((i, int(of_class), _summed(drawn[is_pseudo & (classes == of_class)].any(0))))
    return regions


def _skipped_negatives(
    pseudo_regions: list[tuple[int, int, Tensor]],
    category: Tensor,
    first_cell: int,
    grid: tuple[int, int],
    input_size: tuple[int, int],
) -> list[Tensor]:
    """Columns of `Targets.skipped_negatives` for a level with categories [N, cells]; one tensor per region."""
    columns = []
    for image, of_class, region in pseudo_regions:
        touched = _touched([region], grid, input_size, category.device) & (category[image] != of_class)
        cell = touched.nonzero()[:, 0] + first_cell
        columns.append(torch.stack([torch.full_like(cell, image), torch.full_like(cell, of_class), cell]))
    return columns


def _summed(region: Tensor) -> Tensor:
    """Int [h + 1, w + 1]: the integral image of a region, bool [h, w]: four look-ups give any cell's pixel count."""
    return F.pad(region.cumsum(0, dtype=torch.int32).cumsum(1), (1, 0, 1, 0))


def _touched(
    regions: list[Tensor | None], grid: tuple[int, int], input_size: tuple[int, int], device: torch.device
) -> Tensor:
    """Bool [N * rows * columns]: cells that touch the image's region, if it has one; `regions` as `_summed`.

    One pixel is enough: any pixel of the region may be the centre of an object without a mask, and such an object may
    be smaller than a cell.
    """
    flags = torch.zeros(len(regions), *grid, dtype=torch.bool, device=device)
    for i, summed in enumerate(regions):
        if summed is None:
            continue
        (top, bottom), (left, right) = (
            _cell_edges(cells, side, places - 1, device)
            for cells, side, places in zip(grid, input_size, summed.shape, strict=True)
        )
        down = summed[bottom] - summed[top]
        flags[i] = down[:, right] > down[:, left]
    return flags.flatten()


def _cell_edges(cells: int, side: int, end: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two of int64 [cells]: the first pixel that each cell touches along an axis of `side` pixels, and one past the
    last; both at most `end`, the end of the region."""
    at = torch.arange(cells, device=device)
    first, after = at * side // cells, -(-(at + 1) * side // cells)
    return first.clamp(max=end), after.clamp(max=end)
