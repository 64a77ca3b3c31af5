from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import prompting
from models.config import PromptConfig
from models.prompting import Prompted, prompt_points
from models.solov2 import RawOutputs

SIZE = (64, 96)
GRIDS = (6, 4, 2)
PAPER = PromptConfig.paper(len(GRIDS), 0.5)


def outputs(seed: int = 0, images: int = 2) -> RawOutputs:
    rng = torch.Generator().manual_seed(seed)
    return RawOutputs(
        [torch.randn(images, 3, s, s, generator=rng) for s in GRIDS],
        [torch.randn(images, 4, s, s, generator=rng) for s in GRIDS],
        torch.randn(images, 4, 16, 24, generator=rng),
        (8, 16, 32),
    )


def naive(raw: RawOutputs, n: int, x: float, y: float, label: int) -> tuple[int, float, float]:
    """Level, class probability and maskness of the best level at one point, one level after the other."""
    best = (-1, 0.0, 0.0)
    for level, grid in enumerate(GRIDS):
        column = min(max(int(x / SIZE[1] * grid // 1), 0), grid - 1)
        row = min(max(int(y / SIZE[0] * grid // 1), 0), grid - 1)
        kernel = raw.kernels[level][n, :, row, column]
        mask = torch.einsum("e,ehw->hw", kernel, raw.mask_features[n]).sigmoid()
        inside = mask > 0.5
        certainty = mask[inside].mean().item() if inside.any() else 0.0
        probability = raw.category_logits[level][n, label, row, column].sigmoid().item()
        if best[0] < 0 or certainty * probability > best[1] * best[2]:
            best = (level, probability, certainty)
    return best


coordinates = st.tuples(st.floats(-5, 101, width=32), st.floats(-5, 69, width=32), st.integers(0, 2))


@settings(max_examples=50, deadline=None)
@given(st.lists(coordinates, max_size=12), st.integers(0, 100))
def test_every_point_gets_exactly_the_row_it_would_get_alone(points: list, seed: int) -> None:
    raw = outputs(seed)
    xy = torch.tensor([p[:2] for p in points], dtype=torch.float32).reshape(-1, 2)
    found = prompt_points(raw, 1, xy, torch.tensor([p[2] for p in points], dtype=torch.long), SIZE, PAPER)
    assert all(len(field) == len(points) for field in found)
    assert found.mask_prob.shape == (len(points), 16, 24)
    for k, (x, y, label) in enumerate(points):
        level, probability, certainty = naive(raw, 1, x, y, label)
        assert found.level[k] == level
        assert found.class_score[k].item() == pytest.approx(probability, abs=1e-5)
        assert found.maskness[k].item() == pytest.approx(certainty, abs=1e-5)
        assert found.score[k].item() == pytest.approx(probability * certainty, abs=1e-5)


def test_points_of_one_class_in_one_cell_each_keep_their_mask() -> None:
    points = torch.tensor([[10.0, 10.0], [10.0, 10.0], [10.1, 10.1], [10.0, 10.0]])
    found = prompt_points(outputs(), 0, points, torch.tensor([1, 1, 1, 2]), SIZE, PAPER)
    assert torch.equal(found.mask_prob[0], found.mask_prob[1])
    assert torch.equal(found.mask_prob[0], found.mask_prob[2])
    assert found.class_score[3] != found.class_score[0]


def test_a_level_with_an_empty_mask_loses() -> None:
    raw = outputs()
    features = torch.ones_like(raw.mask_features)
    kernels = [torch.full_like(k, -1.0) for k in raw.kernels]
    kernels[2][:] = 0.1
    confident = [torch.full_like(c, 9.0) for c in raw.category_logits]
    confident[2][:] = -5.0
    found = prompt_points(
        RawOutputs(confident, kernels, features, raw.strides),
        0,
        torch.tensor([[1.0, 1.0]]),
        torch.tensor([0]),
        SIZE,
        PAPER,
    )
    assert found.level.tolist() == [2]


def test_a_point_without_any_mask_still_gets_a_row() -> None:
    raw = outputs()
    raw = raw._replace(
        mask_features=torch.ones_like(raw.mask_features), kernels=[-k.abs() for k in raw.kernels]
    )
    found = prompt_points(raw, 0, torch.tensor([[1.0, 1.0]]), torch.tensor([0]), SIZE, PAPER)
    assert found.level.tolist() == [0]
    assert found.maskness.tolist() == found.score.tolist() == [0.0]
    assert not (found.mask_prob > 0.5).any()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, labels = torch.rand(9, 2) * 64, torch.arange(9) % 3
    whole = prompt_points(outputs(), 0, points, labels, SIZE, PAPER)
    monkeypatch.setattr(prompting, "CHUNK_ELEMENTS", 2 * 3 * 16 * 24)
    chunked = prompt_points(outputs(), 0, points, labels, SIZE, PAPER)
    for name in Prompted._fields:
        torch.testing.assert_close(getattr(whole, name), getattr(chunked, name))


@pytest.mark.parametrize(
    ("points", "labels", "reason"),
    [
        ([[float("nan"), 1.0]], [0], "finite"),
        ([[1.0, 1.0]], [3], "classes 0..2"),
        ([[1.0, 1.0]], [-1], "classes 0..2"),
        ([[1.0, 1.0], [2.0, 2.0]], [0], "shape"),
    ],
)
def test_bad_points_are_refused(points: list, labels: list, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        prompt_points(outputs(), 0, torch.tensor(points), torch.tensor(labels), SIZE, PAPER)


def test_points_can_be_prompted_in_the_precision_that_training_runs_in() -> None:
    raw = outputs()
    xy, labels = torch.tensor([[20.0, 30.0], [70.0, 10.0]]), torch.tensor([0, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = prompt_points(raw, 0, xy, labels, SIZE, PAPER)
    full = prompt_points(raw, 0, xy, labels, SIZE, PAPER)
    assert found.mask_prob.dtype == torch.float32
    torch.testing.assert_close(found.mask_prob, full.mask_prob, atol=0.02, rtol=0)
