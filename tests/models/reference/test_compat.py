"""The reference's rules on small cases; tests/models/reference/test_reference.py compares them with its own results."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.reference.compat import mask_nms, prompt_as_reference, reference_cells, rounded_points
from models.reference.compat_refine import refine_as_reference
from models.reference.published_config import TEACHER
from models.refiner.network import MaskRefineNet
from models.solov2.network import RawOutputs
from models.solov2.targets import cells_of

SIZE = (64, 64)


@given(st.integers(1, 90), st.integers(0, 1400), st.integers(32, 1344))
def test_cells_are_python_s_floor_division(grid: int, index: int, width: int) -> None:
    """At whole pixels, where borders of cells often lie; the reference counts from the first pixel's centre."""
    index = min(index, width - 1)
    expected = int((index / width) // (1 / grid))
    points = torch.tensor([[index + 0.5, 0.5]], dtype=torch.float64)
    found = reference_cells(points, (grid, grid), (width, width))
    assert found.tolist() == [[expected, 0]]


def test_cells_differ_from_ours_at_borders() -> None:
    """Of the borders of 20 cells over 320 pixels some fall to the cell before."""
    borders = torch.arange(20) * 16.0 + 0.5
    points = torch.stack([borders, borders], 1)
    theirs, ours = reference_cells(points, (20, 20), (320, 320)), cells_of(points, 20, (320, 320))
    assert torch.equal(ours[:, 0], torch.arange(20))
    lower = (theirs[:, 0] == ours[:, 0] - 1).nonzero()[:, 0].tolist()
    assert lower == [i for i in range(20) if int((i * 16 / 320) // (1 / 20)) == i - 1]
    assert lower


def brute_force_nms(masks: Tensor, labels: Tensor) -> list[int]:
    kept: list[int] = []
    lost_to = []
    for i in range(len(masks)):
        over = [
            j
            for j in kept
            if labels[i] == labels[j]
            and float((masks[i] & masks[j]).sum()) > 0.5 * max(1.0, float((masks[i] | masks[j]).sum()))
        ]
        lost_to.append(over[0] if over else -1)
        if not over:
            kept.append(i)
    return lost_to


@given(st.integers(0, 12), st.integers(0, 1000))
def test_mask_nms_against_brute_force(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 3, 3, generator=generator) < 0.6
    labels = torch.randint(2, (count,), generator=generator)
    assert mask_nms(masks, labels).tolist() == brute_force_nms(masks, labels)


def test_places_are_cut_off_to_ten_thousandths() -> None:
    points = torch.tensor([[0.5, 0.5], [0.0, 10.0], [100.777, 50.0]])
    found = rounded_points(points, (100, 200))
    expected = [[0.5, 0.5], [0.5, 10.0], [5013 / 10_000 * 200 + 0.5, 50.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def boxes_of(*levels: tuple[int, list[list[int]]]) -> RawOutputs:
    """Outputs whose cell i of the row-major grid of each level draws the i-th box x0, y0, x1, y1 of a 16 x 16 map.

    Every class of every cell has probability 0.5; maskness falls from level to level.
    """
    boxes = [box for _, level in levels for box in level]
    features = torch.full((1, len(boxes), 16, 16), -1.0)
    for channel, (x0, y0, x1, y1) in enumerate(boxes):
        features[0, channel, y0:y1, x0:x1] = 1.0
    kernels, logits, at = [], [], 0
    for strength, (grid, level) in zip((6.0, 3.0), levels, strict=False):
        kernel = torch.zeros(1, len(boxes), grid * grid)
        for cell in range(len(level)):
            kernel[0, at + cell, cell] = strength
        at += len(level)
        kernels.append(kernel.view(1, -1, grid, grid))
        logits.append(torch.zeros(1, 2, grid, grid))
    return RawOutputs(logits, kernels, features, (8, 16)[: len(levels)])


def test_how_points_are_lost() -> None:
    outputs = boxes_of((2, [[0, 0, 8, 8], [0, 0, 8, 7], [0, 8, 2, 10], [8, 8, 16, 16]]))
    points = torch.tensor([[9.0, 9.0], [12.0, 9.0], [50.0, 9.0], [9.0, 50.0], [50.0, 50.0], [51.0, 50.0]])
    labels = torch.tensor([0, 0, 0, 1, 1, 0])
    found = prompt_as_reference(outputs, 0, points, labels, SIZE, TEACHER.inference)
    assert found.fates == [
        "kept",
        "the mask of point 0: the same cell and class",
        "covered by the mask of point 0: IoU above 0.5",
        "too small: 4 pixels of the mask map, at stride 8",
        "kept",
        "kept",
    ]
    assert sorted(found.prompt.tolist()) == [0, 4, 5]
    # Whatever its class, the last point in the cell is reported.
    assert dict(zip(found.prompt.tolist(), found.carried.tolist(), strict=True)) == {0: 1, 4: 5, 5: 5}
    capped = TEACHER.inference.model_copy(update={"max_detections": 1})
    fates = prompt_as_reference(outputs, 0, points, labels, SIZE, capped).fates
    assert fates.count("kept") == 1
    assert fates.count("beyond the best 1") == 2


def test_the_best_level_is_by_class_and_maskness_and_the_score_by_maskness_alone() -> None:
    outputs = boxes_of((1, [[0, 0, 8, 8]]), (1, [[8, 8, 16, 16]]))
    point, label = torch.tensor([[5.0, 5.0]]), torch.tensor([1])
    first = prompt_as_reference(outputs, 0, point, label, SIZE, TEACHER.inference)
    assert first.level.tolist() == [0]
    assert first.scores.item() == pytest.approx(torch.tensor(6.0).sigmoid().item())
    outputs.category_logits[1][0, 1] = 2.0
    second = prompt_as_reference(outputs, 0, point, label, SIZE, TEACHER.inference)
    assert second.level.tolist() == [1]
    assert second.scores.item() == pytest.approx(torch.tensor(3.0).sigmoid().item())


def test_no_points() -> None:
    outputs = boxes_of((2, [[0, 0, 8, 8]]))
    none = torch.zeros(0, dtype=torch.long)
    found = prompt_as_reference(outputs, 0, torch.zeros(0, 2), none, SIZE, TEACHER.inference)
    assert (len(found.prompt), found.fates, found.mask_prob.shape) == (0, [], (0, 16, 16))


class Disc(MaskRefineNet):
    """Predicts a disc in the middle of every crop, or, where the rough mask fills its crop, nothing."""

    def forward(self, x: Tensor) -> Tensor:
        span = torch.linspace(-1, 1, x.shape[-1])
        disc = (span.square() + span.square()[:, None] < 0.25).float()
        object_ = disc * (x[:, -1].mean((1, 2)) < 0.9)[:, None, None] - 0.5
        return torch.stack([-object_, object_], 1)


def test_refined_masks_lie_in_their_crops(refinenet_config) -> None:
    model = Disc(refinenet_config(heatmap_channels=3)).eval()
    model.categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    masks = torch.zeros(3, 60, 80, dtype=torch.bool)
    masks[0, 20:31, 30:51] = True
    masks[1] = True
    points = torch.tensor([[40.5, 25.5], [1.0, 1.0], [5.0, 5.0]])
    image, labels = torch.zeros(3, 60, 80, dtype=torch.uint8), torch.tensor([0, 1, 1])
    refined, kept_rough = refine_as_reference(model, image, masks, points, labels, 2, enlarge=2.0)
    assert kept_rough.tolist() == [False, True, True]
    assert torch.equal(refined[1:], masks[1:])
    # The crop is 41 x 21 pixels around the middle of pixel 40, 25; the disc half as wide.
    rows, columns = (refined[0].any(axis).nonzero()[:, 0] for axis in (1, 0))
    assert (rows.min() + rows.max(), columns.min() + columns.max()) == (50, 80)
    assert abs(len(columns) - 20.5) <= 1 and abs(len(rows) - 10.5) <= 1
