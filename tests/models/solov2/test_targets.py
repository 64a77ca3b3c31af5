from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.config import SOLOv2Config
from models.masks.geometry import random_inner_points
from models.solov2.targets import (
    NO_CLASS,
    Targets,
    assign_targets,
    cells_of,
    draw_pairs,
    keep_pairs,
    levels_of,
    positive_cells,
    shrink_masks,
)

SIZE = (64, 96)


@pytest.fixture(scope="module")
def config(solov2_config) -> SOLOv2Config:
    return solov2_config()


def naive_pairs(mask: Tensor, config: SOLOv2Config, size: tuple[int, int]) -> set[tuple[int, int]]:
    """(level, cell) of one mask, by the book: one loop over everything."""
    ys, xs = mask.nonzero().T.tolist()
    if not xs:
        return set()
    cx, cy = sum(x + 0.5 for x in xs) / len(xs), sum(y + 0.5 for y in ys) / len(ys)
    w, h = max(xs) - min(xs) + 1, max(ys) - min(ys) + 1
    lowest, highest = min(r[0] for r in config.ranges), max(r[1] for r in config.ranges)
    side = min(max(math.sqrt(w * h), lowest), math.nextafter(highest, 0))
    found = set()
    for level, (grid, (lower, upper)) in enumerate(zip(config.grids, config.ranges, strict=True)):
        if not lower <= side < upper:
            continue

        def cell(value: float, length: int, grid: int = grid) -> int:
            return min(max(math.floor(value / length * grid), 0), grid - 1)

        mx, my = cell(cx, size[1]), cell(cy, size[0])
        dx, dy = w * config.centre_shrink / 2, h * config.centre_shrink / 2
        for row in range(max(cell(cy - dy, size[0]), my - 1), min(cell(cy + dy, size[0]), my + 1) + 1):
            for column in range(max(cell(cx - dx, size[1]), mx - 1), min(cell(cx + dx, size[1]), mx + 1) + 1):
                found.add((level, row * grid + column))
    return found


boxes = st.tuples(st.integers(0, 95), st.integers(0, 63), st.integers(1, 96), st.integers(1, 64))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(boxes, max_size=4), min_size=1, max_size=3))
def test_assignment_equals_a_naive_loop(
    config: SOLOv2Config, images: list[list[tuple[int, int, int, int]]]
) -> None:
    masks, labels = [], []
    for image in images:
        drawn = torch.zeros(len(image), *SIZE, dtype=torch.bool)
        for mask, (x, y, w, h) in zip(drawn, image, strict=True):
            mask[y : y + h, x : x + w] = True
        masks.append(drawn)
        labels.append(torch.arange(len(image)) % 3)
    targets = assign_targets(masks, labels, [torch.ones(len(m)) for m in masks], SIZE, config)

    expected = []
    row = 0
    categories = [torch.full((len(images), s, s), NO_CLASS) for s in config.grids]
    for i, (drawn, classes) in enumerate(zip(masks, labels, strict=True)):
        for mask, label in zip(drawn, classes, strict=True):
            for level, cell in naive_pairs(mask, config, SIZE):
                expected.append((i, level, row, cell))
                categories[level][i].view(-1)[cell] = label
            row += 1
    columns = (targets.image, targets.level, targets.instance, targets.cell)
    found = list(zip(*(c.tolist() for c in columns), strict=True))
    assert found == sorted(expected)
    for ours, theirs in zip(targets.categories, categories, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        (0.5, [0]),
        (1, [0]),
        (23.9, [0]),
        (24, [0, 1]),
        (32, [1]),
        (48, [1, 2]),
        (127.9, [2]),
        (128, [2]),
        (900, [2]),
    ],
)
def test_no_object_is_too_small_or_too_large(size: float, levels: list[int], config: SOLOv2Config) -> None:
    assert levels_of(torch.tensor([float(size)]), config.ranges)[0].nonzero()[:, 0].tolist() == levels


def test_one_pixel_and_empty_masks(rectangles, config: SOLOv2Config) -> None:
    masks = rectangles(SIZE, (95, 63, 1, 1), (0, 0, 0, 0))
    targets = assign_targets([masks], [torch.tensor([2, 1])], [torch.ones(2)], SIZE, config)
    assert targets.instance.tolist() == [0]
    assert targets.cell.tolist() == [12 * 12 - 1]
    assert targets.masks[0, -1, -1] == pytest.approx(1 / 16)
    assert (targets.categories[0] == 1).sum() == 0


def test_an_image_without_objects(rectangles, config: SOLOv2Config) -> None:
    targets = assign_targets(
        [rectangles(SIZE), rectangles(SIZE, (8, 8, 20, 20))],
        [torch.zeros(0, dtype=torch.long), torch.tensor([0])],
        [torch.zeros(0), torch.ones(1)],
        SIZE,
        config,
    )
    assert set(targets.image.tolist()) == {1}
    assert (targets.categories[0][0] == NO_CLASS).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(boxes, min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 3), st.sampled_from([64, 128])
)
def test_with_a_reference_padding_changes_no_target(
    solov2_config, drawn: list[tuple[int, int, int, int]], down: int, right: int, reference: int
) -> None:
    """The same cells, by row and column, learn the same objects, however large the batch."""
    config = solov2_config(grid_reference=reference, grids=[16, 8, 4])
    masks = torch.zeros(len(drawn), *SIZE, dtype=torch.bool)
    for mask, (x, y, w, h) in zip(masks, drawn, strict=True):
        mask[y : y + h, x : x + w] = True
    region = masks[0].flip(0, 1)
    points = random_inner_points(masks, 1, torch.Generator().manual_seed(0))
    own, other = (
        assign_targets(
            [masks],
            [torch.arange(len(masks)) % 3],
            [torch.ones(len(masks))],
            size,
            config,
            points_xy=[points],
            ignore=[region],
        )
        for size in (SIZE, (SIZE[0] + 32 * down, SIZE[1] + 32 * right))
    )
    for name in ("categories", "cell_weights"):
        for small, large in zip(getattr(own, name), getattr(other, name), strict=True):
            rows, columns = small.shape[1:]
            assert torch.equal(small, large[:, :rows, :columns])
            outside = large.clone()
            outside[:, :rows, :columns] = NO_CLASS if name == "categories" else 1
            assert (outside == (NO_CLASS if name == "categories" else 1)).all()

    def pairs(targets: Targets) -> list[tuple[int, ...]]:
        columns = torch.tensor([c.shape[2] for c in targets.categories])[targets.level]
        parts = (targets.level, targets.instance, targets.cell // columns, targets.cell % columns)
        return list(zip(*(part.tolist() for part in parts), strict=True))

    assert pairs(own) == pairs(other)
    h, w = own.masks.shape[1:]
    assert torch.equal(own.masks, other.masks[:, :h, :w])


def test_masks_may_be_smaller_than_the_padded_batch(rectangles, config: SOLOv2Config) -> None:
    box = (8, 8, 20, 20)
    arguments = ([torch.tensor([1])], [torch.ones(1)], SIZE, config)
    small, full = (assign_targets([rectangles(s, box)], *arguments) for s in ((50, 60), SIZE))
    assert torch.equal(small.cell, full.cell)
    assert torch.equal(small.masks, full.masks)


def test_weights_and_ignored_cells(rectangles, config: SOLOv2Config) -> None:
    masks = rectangles(SIZE, (8, 8, 20, 20))
    crowd = rectangles(SIZE, (0, 0, 48, 64))[0]
    targets = assign_targets(
        [masks], [torch.tensor([1])], [torch.tensor([0.3])], SIZE, config, ignore=[crowd]
    )
    weights, categories = targets.cell_weights[0][0], targets.categories[0][0]
    assert weights[categories >= 0].tolist() == pytest.approx([0.3] * int((categories >= 0).sum()))
    assert (weights[:, 6:] == 1).all()
    assert (weights[:, :6][categories[:, :6] < 0] == 0).all()


def test_weights_may_scale_the_mask_loss_alone(rectangles, config: SOLOv2Config) -> None:
    arguments = ([rectangles(SIZE, (8, 8, 20, 20))], [torch.tensor([1])], [torch.tensor([0.3])], SIZE, config)
    targets = assign_targets(*arguments, weigh_categories=False)
    assert all((level == 1).all() for level in targets.cell_weights)
    assert targets.weights.tolist() == pytest.approx([0.3])
    assert targets.cell.tolist() == assign_targets(*arguments).cell.tolist()


regions = st.tuples(st.integers(0, 95), st.integers(0, 63), st.integers(1, 40), st.integers(1, 30))


@settings(max_examples=60, deadline=None)
@given(st.lists(regions, max_size=3), st.sampled_from([(64, 96), (50, 61)]))
def test_a_cell_that_touches_an_ignored_region_teaches_nothing(
    config: SOLOv2Config, boxes: list[tuple[int, int, int, int]], size: tuple[int, int]
) -> None:
    region = torch.zeros(size, dtype=torch.bool)
    for x, y, w, h in boxes:
        region[y : y + h, x : x + w] = True
    nothing = ([torch.zeros(0, *size, dtype=torch.bool)], [torch.zeros(0).long()], [torch.zeros(0)])
    targets = assign_targets(*nothing, SIZE, config, ignore=[region])
    pixels = region.nonzero().tolist()
    for weights, grid in zip(targets.cell_weights, config.grids, strict=True):
        touched = torch.zeros(grid, grid, dtype=torch.bool)
        for y, x in pixels:
            # Down to the cell that holds the pixel's last corner, which belongs to the next one if on its edge.
            rows = slice(y * grid // SIZE[0], -(-(y + 1) * grid // SIZE[0]))
            touched[rows, x * grid // SIZE[1] : -(-(x + 1) * grid // SIZE[1])] = True
        assert torch.equal(weights[0] == 0, touched)


def test_an_ignored_region_smaller_than_a_cell_still_counts(rectangles, config: SOLOv2Config) -> None:
    speck = rectangles(SIZE, (1, 1, 1, 1))[0]
    targets = assign_targets(
        [rectangles(SIZE)],
        [torch.zeros(0).long()],
        [torch.zeros(0)],
        SIZE,
        config,
        ignore=[speck],
    )
    assert [int((weights == 0).sum()) for weights in targets.cell_weights] == [1, 1, 1]
    assert all(weights[0, 0, 0] == 0 for weights in targets.cell_weights)


def test_an_object_is_learnt_inside_an_ignored_region(rectangles, config: SOLOv2Config) -> None:
    masks = rectangles(SIZE, (40, 24, 16, 16))
    arguments = ([masks], [torch.tensor([1])], [torch.ones(1)], SIZE, config)
    free = assign_targets(*arguments)
    inside = assign_targets(*arguments, ignore=[rectangles(SIZE, (30, 14, 40, 40))[0]])
    assert torch.equal(free.cell, inside.cell)
    for before, after in zip(free.categories, inside.categories, strict=True):
        assert torch.equal(before, after)
    assert (inside.cell_weights[0][inside.categories[0] >= 0] == 1).all()


def test_further_points_teach_their_cells(rectangles, config: SOLOv2Config) -> None:
    masks = rectangles(SIZE, (8, 8, 20, 20), (60, 30, 10, 10))
    points = torch.tensor([[[27.5, 27.5], [8.5, 8.5]], [[60.5, 30.5], [torch.nan, torch.nan]]])
    plain, more = (
        assign_targets([masks], [torch.tensor([0, 1])], [torch.ones(2)], SIZE, config, points_xy=p)
        for p in (None, [points])
    )
    own = {(i, c) for i, c in zip(more.instance.tolist(), more.cell.tolist(), strict=True)}
    before = {(i, c) for i, c in zip(plain.instance.tolist(), plain.cell.tolist(), strict=True)}
    assert before < own
    assert own - before == {(0, 5 * 12 + 3), (0, 1 * 12 + 1), (1, 5 * 12 + 7)} - before
    with pytest.raises(ValueError, match="1 rows for 2 masks"):
        assign_targets([masks], [torch.tensor([0, 1])], [torch.ones(2)], SIZE, config, points_xy=[points[:1]])


@pytest.mark.parametrize(
    ("point", "cell"),
    [((0, 0), (0, 0)), ((96, 64), (7, 7)), ((-3, 70), (0, 7)), ((12, 8), (1, 1)), ((11.99, 7.99), (0, 0))],
)
def test_points_on_the_border_have_a_cell(point: tuple[float, float], cell: tuple[int, int]) -> None:
    assert tuple(cells_of(torch.tensor([point], dtype=torch.float32), 8, SIZE)[0].tolist()) == cell


@given(st.floats(-20, 120, width=32), st.floats(-20, 90, width=32), st.integers(1, 9), st.integers(1, 9))
def test_a_grid_may_have_other_rows_than_columns(x: float, y: float, rows: int, columns: int) -> None:
    point = torch.tensor([x, y])
    own = cells_of(point, (rows, columns), SIZE).tolist()
    assert own == [int(cells_of(point, columns, SIZE)[0]), int(cells_of(point, rows, SIZE)[1])]
    assert torch.equal(cells_of(point, rows, SIZE), cells_of(point, (rows, rows), SIZE))


@pytest.mark.parametrize(
    ("centre", "half", "rows", "columns"),
    [
        ((36.0, 44.0), (0.0, 0.0), (5, 5), (4, 4)),
        ((36.0, 44.0), (3.75, 4.25), (4, 6), (4, 4)),  # 32.25 to 39.75, and 39.75 to 48.25
        ((36.0, 44.0), (4.0, 4.0), (5, 6), (4, 5)),  # up to a border is in the cell behind it
        ((36.0, 44.0), (30.0, 30.0), (4, 6), (3, 5)),  # one cell away at most
        ((4.0, 60.0), (30.0, 30.0), (6, 7), (0, 1)),
    ],
)
def test_positive_cells_touch_the_box_and_are_one_away_at_most(
    centre: tuple[float, float], half: tuple[float, float], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    """Cells of 8 x 8 pixels; the first and last row and column."""
    held = positive_cells(torch.tensor([centre]), torch.tensor([half]), (8, 12), (64, 96))[0]
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    assert torch.equal(held, expected)


def test_shrinking_keeps_the_area(rectangles) -> None:
    masks = rectangles((50, 61), (3, 5, 31, 17), (60, 49, 1, 1))
    small = shrink_masks(masks, SIZE, 4)
    assert small.shape == (2, 16, 24)
    assert torch.equal(small.sum((1, 2)) * 16, masks.sum((1, 2)).float())


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_sampled_pairs_are_some_of_them_in_their_order(config: SOLOv2Config, limit: int) -> None:
    masks = torch.zeros(3, *SIZE, dtype=torch.bool)
    masks[0, 4:20, 4:20] = masks[1, 30:60, 10:80] = masks[2, 2:60, 50:90] = True
    images = [masks[:2], masks[2:]]
    targets = assign_targets(
        images, [torch.zeros(2), torch.ones(1)], [torch.ones(2), torch.ones(1)], SIZE, config
    )
    whole = list(
        zip(
            *(getattr(targets, name).tolist() for name in ("image", "level", "instance", "cell")), strict=True
        )
    )
    drawn = set()
    for seed in range(20):
        kept = draw_pairs(len(targets.cell), limit, torch.Generator().manual_seed(seed))
        sampled = targets if kept is None else keep_pairs(targets, kept)
        rows = list(
            zip(
                *(getattr(sampled, name).tolist() for name in ("image", "level", "instance", "cell")),
                strict=True,
            )
        )
        assert len(rows) == min(limit, len(whole))
        assert rows == sorted(set(rows) & set(whole))
        assert sampled.categories is targets.categories
        assert sampled.masks is targets.masks
        drawn |= set(rows)
    assert len(drawn) > min(limit, len(whole) - 1)  # another draw, other pairs


def clicked(
    rectangles: Callable[..., Tensor], config: SOLOv2Config, click: tuple[float, float], **more: Any
) -> Targets:
    """A guessed mask of class 1 with this click, of weight 0.3, and a true one of class 0."""
    masks = rectangles(SIZE, (8, 8, 20, 20), (60, 30, 10, 10))
    clicks = torch.tensor([click, (torch.nan, torch.nan)])
    return assign_targets(
        [masks], [torch.tensor([1, 0])], [torch.tensor([0.3, 1.0])], SIZE, config, clicks_xy=[clicks], **more
    )


def test_a_clicks_cell_learns_its_class_in_full(
    rectangles: Callable[..., Tensor], config: SOLOv2Config
) -> None:
    """Whether the mask holds the click or not: it is the mask that is doubtful."""
    for x, y in [(12.5, 12.5), (50.5, 50.5)]:
        targets = clicked(rectangles, config, (x, y))
        level = int(targets.level[targets.instance == 0][0])
        side = config.grids[level]
        row, column = int(y / SIZE[0] * side), int(x / SIZE[1] * side)
        assert targets.categories[level][0, row, column] == 1
        weights = targets.cell_weights[level][0]
        assert weights[row, column] == 1
        others = targets.categories[level][0] == 1
        others[row, column] = False
        assert others.any()
        assert weights[others].tolist() == pytest.approx([0.3] * int(others.sum()))
        assert (
            row * side + column in targets.cell[(targets.instance == 0) & (targets.level == level)].tolist()
        )


def test_a_click_wins_its_cell_from_later_objects(
    rectangles: Callable[..., Tensor], config: SOLOv2Config
) -> None:
    masks = rectangles(SIZE, (8, 8, 20, 20), (10, 10, 20, 20))
    arguments = ([masks], [torch.tensor([1, 0])], [torch.ones(2)], SIZE, config)
    free = assign_targets(*arguments)
    level = int(free.level[0])
    side = config.grids[level]
    # The mass centre of the second mask lies at (20, 20): its own cell.
    row, column = 20 * side // SIZE[0], 20 * side // SIZE[1]
    assert free.categories[level][0, row, column] == 0
    own = torch.tensor([[20.0, 20.0], [torch.nan, torch.nan]])
    both = torch.tensor([[20.0, 20.0], [20.0, 20.0]])
    for clicks, expected in [(own, 1), (both, 0)]:
        found = assign_targets(*arguments, clicks_xy=[clicks])
        assert found.categories[level][0, row, column] == expected


@pytest.mark.parametrize("click", [(12.5, 12.5), (math.inf, math.inf)])
def test_a_guessed_mask_teaches_no_background_of_its_own_class(
    rectangles: Callable[..., Tensor], config: SOLOv2Config, click: tuple[float, float]
) -> None:
    targets = clicked(rectangles, config, click)
    expected = set()
    before = 0
    for level, side in enumerate(config.grids):
        for row in range(side):
            for column in range(side):
                # Cells of 64 / side x 96 / side pixels that share a pixel with columns and rows 8 to 27.
                top, bottom = row * SIZE[0] // side, -(-(row + 1) * SIZE[0] // side)
                left, right = column * SIZE[1] // side, -(-(column + 1) * SIZE[1] // side)
                touches = top < 28 and bottom > 8 and left < 28 and right > 8
                if touches and targets.categories[level][0, row, column] != 1:
                    expected.add((0, 1, before + row * side + column))
        before += side * side
    assert set(zip(*targets.skipped_negatives.tolist(), strict=True)) == expected
    assert expected


def test_without_clicks_nothing_is_silent_and_true_masks_change_nothing(
    rectangles: Callable[..., Tensor], config: SOLOv2Config
) -> None:
    masks = rectangles(SIZE, (8, 8, 20, 20), (60, 30, 10, 10))
    arguments = ([masks], [torch.tensor([1, 0])], [torch.tensor([0.3, 1.0])], SIZE, config)
    plain, true = (
        assign_targets(*arguments),
        assign_targets(*arguments, clicks_xy=[torch.full((2, 2), torch.nan)]),
    )
    assert plain.skipped_negatives.shape == true.skipped_negatives.shape == (3, 0)
    assert torch.equal(plain.cell, true.cell)
    for name in ("categories", "cell_weights"):
        for a, b in zip(getattr(plain, name), getattr(true, name), strict=True):
            assert torch.equal(a, b)
