"""Which cells learn which object (SOLO, arXiv 1912.04488, section 3.3.1; SOLOv2, section 3).

An object is learnt by the levels whose size range holds it, in the cells that touch its box shrunk around its
mass centre, no further than one cell from the centre's. Nothing here loops over cells or objects.

Legend: N images, L levels, K objects, P (cell, object) pairs, H x W pixels of the padded input.
Pixel coordinates are x, y with the centre of the top-left pixel at (0.5, 0.5).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import SOLOv2Config

NO_CLASS = -1
"""Category target of a cell that holds no object."""


@dataclass(frozen=True)
class Targets:
    """What a batch should have answered."""

    categories: list[Tensor]
    """L x int64 [N, rows, columns]: class of the cell's object, NO_CLASS where there is none."""
    cell_weights: list[Tensor]
    """L x float32 [N, rows, columns]: weight of the cell in the category loss (0 where an ignored region decides)."""
    level: Tensor
    """int64 [P], sorted by image, then level, object and cell; so are the next three."""
    image: Tensor
    """int64 [P]"""
    cell: Tensor
    """int64 [P]: row * columns + column"""
    instance: Tensor
    """int64 [P]: row of `masks` and `weights`"""
    masks: Tensor
    """float32 [sum K, H / mask_stride, W / mask_stride]: share of each place that the object covers."""
    weights: Tensor
    """float32 [sum K]"""
    silent: Tensor
    """int64 [3, S]: image, class and cell, counted over the cells of all levels in turn, of what isn't taught: whether
    this cell holds an object of this class."""


@dataclass(frozen=True)
class Shapes:
    """Measures of K masks, in pixels; all 0 for an empty one."""

    area: Tensor
    centre: Tensor
    """float32 [K, 2]: mean x, y of the pixel centres"""
    size: Tensor
    """float32 [K, 2]: width and height of the box"""


def measure(masks: Tensor) -> Shapes:
    """Area, mass centre and box size of bool masks [K, H, W]."""
    columns = masks.sum(1, dtype=torch.float32)  # [K, W]
    rows = masks.sum(2, dtype=torch.float32)  # [K, H]
    area = columns.sum(1)
    mean, extent = [], []
    for counts in (columns, rows):
        where = torch.arange(counts.shape[1], device=masks.device, dtype=torch.float32)
        mean.append((counts * (where + 0.5)).sum(1) / area.clamp(min=1))
        held = counts > 0
        first = torch.where(held, where, torch.inf).amin(1)
        last = torch.where(held, where, -torch.inf).amax(1)
        extent.append((last - first + 1).clamp(min=0))
    return Shapes(area, torch.stack(mean, 1), torch.stack(extent, 1))


def levels_of(size: Tensor, ranges: tuple[tuple[float, float], ...]) -> Tensor:
    """Bool [K, L]: which levels learn objects of these sizes [K]; every object has at least one.

    A size below or above all ranges counts as the nearest one inside.
    """
    limits = size.new_tensor(ranges)
    lowest, highest = limits[:, 0].min(), limits[:, 1].max()
    # A size of exactly `highest` is outside, because the upper ends are.
    inside = size.clamp(min=lowest)[:, None]
    held = (limits[:, 0] <= inside) & (inside < limits[:, 1])
    return held | ((inside >= highest) & (limits[:, 1] == highest))


def cells_of(points_xy: Tensor, grid: int | tuple[int, int], input_size: tuple[int, int]) -> Tensor:
    """Int64 [..., 2]: column and row of the cell that holds each point; beyond the map, its edge.

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
    """Bool [K, rows, columns]: cells that touch the box centre +- half (x, y, [K, 2]), one away at most."""
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    middle = cells_of(centre, grid, input_size)
    low = torch.maximum(cells_of(centre - half, grid, input_size), middle - 1)
    high = torch.minimum(cells_of(centre + half, grid, input_size), middle + 1)
    span = torch.arange(max(rows, columns), device=centre.device)
    held = (span >= low[..., None]) & (span <= high[..., None])  # [K, 2, most]
    return held[:, 1, :rows, None] & held[:, 0, None, :columns]


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
        masks: for each image bool [K, h, w], h <= H and w <= W, at the padded image's top left; empty ones
            are learnt nowhere.
        labels: int64 [K], contiguous classes.
        weights: float32 [K]; they scale an object's part of both losses.
        weigh_categories: or of the mask loss alone, if false: its class is learnt in full, however doubtful its mask.
        points_xy: float [K, 2] or [K, Q, 2], further places in input pixels whose cells learn the object
            too, so that it can be prompted there. NaN means none.
        clicks_xy: float [K, 2] for each image, of objects whose mask is a guess made from a click; NaN: the mask is
            true; infinite: a guess, its click out of the picture. That such an object is at its click is sure: the
            click's cell learns it, its class in full, before whatever else claims that cell. How far it reaches is
            not: a cell that touches the mask isn't taught that there is no object of its class.
        ignore: bool [h, w] or None for each image (crowds): cells without an object that touch it teach
            nothing.

    Where several objects claim a cell, the last one gives its class; each remains a pair of the mask loss.
    """
    device = masks[0].device
    counts = [len(m) for m in masks]
    shapes = [measure(m) for m in masks]
    area = torch.cat([s.area for s in shapes])
    centre = torch.cat([s.centre for s in shapes])
    half = torch.cat([s.size for s in shapes]) * config.centre_shrink / 2
    member = (
        levels_of(torch.cat([s.size for s in shapes]).prod(1).sqrt(), config.ranges) & (area > 0)[:, None]
    )
    image = torch.repeat_interleave(
        torch.arange(len(masks), device=device), torch.tensor(counts, device=device)
    )
    label, weight = torch.cat(labels).long(), torch.cat(weights).float()
    extra = _stack_points(points_xy, counts, device)
    clicks = None if clicks_xy is None else torch.cat(clicks_xy)
    guessed = () if clicks_xy is None else _guessed_regions(masks, labels, clicks_xy)
    ignored = None if ignore is None else [None if region is None else _summed(region) for region in ignore]

    categories, cell_weights, pairs, silent = [], [], [], []
    cells_before = 0
    for level, grid in enumerate(config.grid_shapes(input_size)):
        cells = grid[0] * grid[1]
        held = positive_cells(centre, half, grid, input_size)
        if extra is not None:
            real = extra.isfinite().all(-1)
            place = cells_of(extra.nan_to_num(0.0), grid, input_size)
            rows = torch.arange(len(held), device=device)[:, None].expand_as(real)
            held[rows[real], place[..., 1][real], place[..., 0][real]] = True
        sure = _clicked_cells(clicks, held, grid, input_size)
        held = ((held | sure) & member[:, level, None, None]).flatten(1)
        instance, cell = held.nonzero(as_tuple=True)
        # The last object in a cell wins its class, one that was clicked there before others; amax does so whatever
        # the order of execution.
        rank = instance + len(held) * sure.flatten(1)[instance, cell]
        winner = torch.full((len(masks) * cells,), -1, dtype=torch.long, device=device)
        winner.scatter_reduce_(0, image[instance] * cells + cell, rank, "amax")
        taken, certain = winner >= 0, winner >= len(held)
        winner[certain] -= len(held)
        category = torch.full_like(winner, NO_CLASS)
        category[taken] = label[winner[taken]]
        cell_weight = torch.ones_like(winner, dtype=torch.float32)
        if weigh_categories:
            cell_weight[taken] = weight[winner[taken]]
            cell_weight[certain] = 1
        if ignored is not None:
            cell_weight[_touched(ignored, grid, input_size, device) & ~taken] = 0
        for i, of_class, region in guessed:
            touched = _touched([region], grid, input_size, device) & (
                category[i * cells : (i + 1) * cells] != of_class
            )
            where = touched.nonzero()[:, 0] + cells_before
            silent.append(torch.stack([torch.full_like(where, i), torch.full_like(where, of_class), where]))
        cells_before += cells
        categories.append(category.view(-1, *grid))
        cell_weights.append(cell_weight.view(-1, *grid))
        pairs.append(torch.stack([image[instance], torch.full_like(cell, level), instance, cell]))

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
        masks=torch.cat([shrink_masks(m, input_size, config.mask_stride) for m in masks]),
        weights=weight,
        silent=torch.cat([torch.zeros(3, 0, dtype=torch.long, device=device), *silent], 1),
    )


def draw_pairs(count: int, limit: int, generator: torch.Generator | None = None) -> Tensor | None:
    """Int64 [limit], rising: which of `count` pairs are kept, drawn evenly; None where all are.

    The mask loss is a mean over pairs, so a draw of them has the same expectation. Its cost is pairs x mask map, which
    in crowded images is more than the network's own.
    """
    if count <= limit:
        return None
    return torch.randperm(count, generator=generator)[:limit].sort().values


def keep_pairs(targets: Targets, kept: Tensor) -> Targets:
    """`targets` with these of its pairs; cells and their classes stay."""
    kept = kept.to(targets.cell.device)
    return replace(
        targets,
        level=targets.level[kept],
        image=targets.image[kept],
        cell=targets.cell[kept],
        instance=targets.instance[kept],
    )


def shrink_masks(masks: Tensor, input_size: tuple[int, int], stride: int) -> Tensor:
    """Bool [K, h, w] to float32 [K, H / stride, W / stride]: the share of every square that is covered.

    A share keeps what a bilinear sample loses: one-pixel objects, and where inside a square an edge lies.
    """
    (height, width), (h, w) = input_size, masks.shape[-2:]
    padded = F.pad(masks.float(), (0, width - w, 0, height - h))
    return F.avg_pool2d(padded[:, None], stride)[:, 0]


def random_inner_points(masks: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Float32 [K, count, 2]: x, y of random pixels' centres in bool masks [K, H, W]; NaN in an empty one."""
    return inner_points(masks, torch.rand(len(masks), count, generator=generator, device=masks.device))


def inner_points(masks: Tensor, draws: Tensor) -> Tensor:
    """Float32 [K, Q, 2]: x, y of pixels' centres in bool masks [K, H, W]; NaN in an empty one.

    `draws` in [0, 1), float32 [K, Q], say how far down its mask, in reading order, each pixel lies.
    """
    points = torch.full((len(masks), draws.shape[1], 2), torch.nan, device=masks.device)
    # The r-th pixel of a mask, r uniform: the row where the running count of pixels first exceeds r, and in it the
    # column. So only these rows are counted along, not whole masks.
    running = masks.view(torch.uint8).sum(2, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    real = running[:, -1] > 0
    if draws.shape[1] and bool(real.any()):
        running, total = running[real], running[real][:, -1:]
        rank = (draws[real] * total).int().minimum(total - 1)
        y = torch.searchsorted(running, rank, right=True)
        before = torch.where(y > 0, running.gather(1, (y - 1).clamp(min=0)), 0)
        along = masks[real.nonzero(), y].cumsum(2, dtype=torch.int32)
        x = torch.searchsorted(along, (rank - before)[..., None], right=True)[..., 0]
        points[real] = torch.stack([x, y], -1).float() + 0.5
    return points


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
            raise ValueError(f"points_xy: found {len(points)} rows for {count} masks; give one row a mask")
        stacked[start : start + count, : points.shape[1]] = points
        start += count
    return stacked


def _clicked_cells(
    clicks: Tensor | None, held: Tensor, grid: tuple[int, int], input_size: tuple[int, int]
) -> Tensor:
    """Bool as `held`, [K, rows, columns]: the cell of each object's click."""
    sure = torch.zeros_like(held)
    if clicks is not None:
        seen = clicks.isfinite().all(1).nonzero()[:, 0]
        place = cells_of(clicks[seen], grid, input_size)
        sure[seen, place[:, 1], place[:, 0]] = True
    return sure


def _guessed_regions(
    masks: list[Tensor], labels: list[Tensor], clicks_xy: list[Tensor]
) -> list[tuple[int, int, Tensor]]:
    """(image, class, running sums): what the masks made from clicks cover, of each class together; see `_summed`."""
    regions = []
    for i, (drawn, classes, clicks) in enumerate(zip(masks, labels, clicks_xy, strict=True)):
        guess = ~clicks.isnan().any(1)
        for of_class in classes[guess].unique().tolist():
            regions.append((i, int(of_class), _summed(drawn[guess & (classes == of_class)].any(0))))
    return regions


def _summed(region: Tensor) -> Tensor:
    """Int [h + 1, w + 1]: pixels of a region, bool [h, w], above and left of every place, so that a cell's count is
    four look-ups, whatever the grid."""
    return F.pad(region.cumsum(0, dtype=torch.int32).cumsum(1), (1, 0, 1, 0))


def _touched(
    regions: list[Tensor | None], grid: tuple[int, int], input_size: tuple[int, int], device: torch.device
) -> Tensor:
    """Bool [N * rows * columns]: cells that touch the image's region, if it has one; `regions` as `_summed`.

    One pixel is enough: any pixel of the region may be the mass centre of an object that nobody outlined, and
    such an object may be smaller than a cell.
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


def _cell_edges(cells: int, side: int, held: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Int64 [cells] twice: the first pixel that each cell touches along an axis of `side` pixels, and the one
    after the last; both at most `held`, where the region ends."""
    at = torch.arange(cells, device=device)
    first, after = at * side // cells, -(-(at + 1) * side // cells)
    return first.clamp(max=held), after.clamp(max=held)
