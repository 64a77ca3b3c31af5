from __future__ import annotations

import pytest
import torch

from models.masks.clicks import FurtherClicks
from models.sam import prompts
from models.sam.prompts import NO_POINT, OFF, ON, prompts_at

ROW = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [7.0, 0.0]])


@pytest.mark.parametrize("rows", [1, 2, 1024])
def test_the_nearest_others_are_negatives(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(prompts, "ROWS", rows)
    points, labels = prompts_at(ROW, 2)
    assert points[..., 0].tolist() == [[0, 1, 3], [1, 0, 3], [3, 1, 0], [7, 3, 1]]
    assert labels.tolist() == [[ON, OFF, OFF]] * 4


def test_of_equal_distances_the_first_is_used() -> None:
    points, _ = prompts_at(torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]), 1)
    assert points[2].tolist() == [[1, 0], [2, 0]]


@pytest.mark.parametrize(
    ("negatives", "clicks", "expected"), [(0, 4, 1), (3, 4, 4), (9, 4, 4), (3, 1, 1), (3, 0, 1)]
)
def test_as_many_as_there_are(negatives: int, clicks: int, expected: int) -> None:
    points, labels = prompts_at(ROW[:clicks], negatives)
    assert points.shape == (clicks, expected, 2) and labels.shape == (clicks, expected)
    assert torch.equal(points[:, 0], ROW[:clicks]) and labels[:, 0].eq(ON).all()


def test_a_click_at_the_same_place_contradicts_no_click() -> None:
    points, labels = prompts_at(torch.tensor([[1.0, 1.0], [1.0, 1.0], [4.0, 4.0]]), 2)
    assert labels.tolist() == [[ON, OFF, NO_POINT], [ON, OFF, NO_POINT], [ON, OFF, OFF]]
    assert points[:, 1].tolist() == [[4, 4], [4, 4], [1, 1]]


@pytest.mark.parametrize("negatives", [0, 1])
def test_further_clicks_are_points_of_their_object_alone(negatives: int) -> None:
    more = FurtherClicks(
        torch.tensor([[[9.0, 9.0]], [[8.0, 8.0]], [[0.0, 0.0]]]), torch.tensor([[ON], [OFF], [NO_POINT]])
    )
    points, labels = prompts_at(ROW[:3], negatives, more)
    plain = prompts_at(ROW[:3], negatives)
    assert torch.equal(points[:, :-1], plain.points_xy) and torch.equal(labels[:, :-1], plain.labels)
    assert points[:2, -1].tolist() == [[9, 9], [8, 8]]
    assert labels[:, -1].tolist() == [ON, OFF, NO_POINT]
