from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import InferenceConfig
from models.inference import detect
from models.inference.detect import (
    Candidates,
    _cells_in,
    mask_ious,
    maskness,
    matrix_nms,
    point_nms,
    predict,
    suppress,
)
from models.masks.resize import Sizes
from models.solov2.network import RawOutputs

CONFIG = InferenceConfig(
    score_threshold=0.1,
    min_area=1.0,
    nms_pre=500,
    nms_kernel="gaussian",
    nms_sigma=2.0,
    nms_threshold=0.05,
    max_detections=100,
    mask_threshold=0.5,
)


def naive_matrix_nms(masks, labels, scores, kernel: str, sigma: float) -> list[float]:
    def iou(i: int, j: int) -> float:
        if labels[i] != labels[j]:
            return 0.0
        both, either = (masks[i] & masks[j]).sum().item(), (masks[i] | masks[j]).sum().item()
        return both / max(either, 1)

    def f(value: float) -> float:
        return math.exp(-sigma * value**2) if kernel == "gaussian" else 1 - value

    decayed = []
    for j in range(len(scores)):
        factors = [1.0]
        for i in range(j):
            lost = max((iou(k, i) for k in range(i)), default=0.0)
            factors.append(f(iou(i, j)) / max(f(lost), 1e-6))
        decayed.append(float(scores[j]) * min(factors))
    return decayed


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 7), st.sampled_from(["gaussian", "linear"]), st.integers(0, 10_000))
def test_matrix_nms_equals_a_naive_loop(count: int, kernel: str, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 4, 5, generator=rng) > 0.5
    if count > 2:
        masks[2] = masks[0]
    labels = torch.randint(0, 2, (count,), generator=rng)
    scores = torch.rand(count, generator=rng).sort(descending=True).values
    found = matrix_nms(masks, labels, scores, kernel, 2.0)
    assert found.tolist() == pytest.approx(naive_matrix_nms(masks, labels, scores, kernel, 2.0), abs=1e-5)


def test_point_nms_looks_left_and_up() -> None:
    scores = torch.tensor([[[0.1, 0.9, 0.8], [0.2, 0.3, 0.85], [0.5, 0.4, 0.1]]])
    expected = [[0.1, 0.9, 0.0], [0.2, 0.0, 0.0], [0.5, 0.0, 0.0]]
    assert torch.equal(point_nms(scores)[0], torch.tensor(expected))


def test_maskness_of_full_and_empty_masks() -> None:
    certainty, area = maskness(torch.tensor([[0.9, 0.7, 0.1], [0.5, 0.4, 0.3]]), 0.5)
    assert certainty.tolist() == pytest.approx([0.8, 0.0])
    assert area.tolist() == [2, 0]


def scene() -> RawOutputs:
    """Two channels of mask features, an object in each; cells (0, 0) and (1, 1) hold class 1 and 0."""
    features = torch.full((1, 2, 16, 16), -9.0)
    features[0, 0, 2:8, 2:8] = 9
    features[0, 1, 9:16, 9:16] = 9
    logits = torch.full((1, 2, 2, 2), -9.0)
    logits[0, 1, 0, 0] = 3.0
    logits[0, 0, 1, 1] = 2.0
    kernels = torch.zeros(1, 2, 2, 2)
    kernels[0, 0, 0, 0] = 1
    kernels[0, 1, 1, 1] = 1
    return RawOutputs([logits], [kernels], features, (8,))


@pytest.mark.parametrize(
    ("home", "rows", "columns"),
    [
        ((8.0, 8.0, 40.0, 24.0), [0], [0, 1]),  # centres at 8, 24, 40 ...: the lower end is inside
        ((8.25, 7.75, 40.25, 24.25), [0, 1], [1, 2]),
        ((-torch.inf, -torch.inf, 8.0, torch.inf), [0, 1, 2, 3], []),
        ((56.0, 40.0, torch.inf, torch.inf), [2, 3], [3, 4, 5]),
    ],
)
def test_a_cell_is_where_its_centre_is(
    home: tuple[float, float, float, float], rows: list[int], columns: list[int]
) -> None:
    inside = _cells_in(home, (4, 6), (64, 96), torch.zeros(1))
    assert inside.shape == (4, 6)
    assert inside.nonzero().tolist() == [[row, column] for row in rows for column in columns]


def test_predict_finds_what_is_there() -> None:
    found = predict(scene(), 0, CONFIG, Sizes((64, 64), (64, 64), (64, 64)))
    assert found.labels.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx(torch.tensor([3.0, 2.0]).sigmoid().tolist(), abs=1e-3)
    assert found.masks.shape == (2, 64, 64)
    assert found.masks[0, 12:28, 12:28].all()
    assert not found.masks[0, 40:].any()


def test_predict_cuts_padding_off_before_resizing() -> None:
    found = predict(scene(), 0, CONFIG, Sizes((64, 64), (32, 64), (64, 128)))
    inside = found.masks[found.labels == 1][0]
    assert inside.shape == (64, 128)
    assert inside[20:60, 20:60].all()


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 2),
        ({"score_threshold": 0.9}, 1),
        ({"max_detections": 1}, 1),
        ({"nms_pre": 1}, 1),
        ({"min_area": 4.49}, 2),  # 36 and 49 places, by cells of stride 8
        ({"min_area": 4.5}, 1),
        ({"min_area": 6.12}, 1),
        ({"min_area": 6.125}, 0),
        ({"min_area": 50.0}, 0),
        ({"nms_threshold": 0.99}, 0),
    ],
)
def test_each_limit_limits(changes: dict, count: int) -> None:
    config = InferenceConfig.model_validate({**CONFIG.model_dump(), **changes})
    found = predict(scene(), 0, config, Sizes((64, 64), (64, 64), (50, 40)))
    assert found.masks.shape == (count, 50, 40)
    assert len(found.scores) == len(found.labels) == count


@pytest.mark.parametrize(("min_area", "count"), [(4.49, 2), (4.5, 1), (6.12, 1), (6.125, 0)])
def test_an_area_counts_alike_on_a_finer_map(min_area: float, count: int) -> None:
    """Of a network whose mask features are at stride 2."""
    plain = scene()
    finer = plain._replace(mask_features=plain.mask_features.repeat_interleave(2, 2).repeat_interleave(2, 3))
    config = InferenceConfig.model_validate({**CONFIG.model_dump(), "min_area": min_area})
    assert len(predict(finer, 0, config, Sizes((64, 64), (64, 64), (50, 40))).scores) == count


@pytest.mark.parametrize(
    ("nms_threshold", "kept"), [(0.25, 3), (0.375, 2), (0.376, 1), (0.75, 1), (0.7501, 0)]
)
def test_a_score_of_just_the_threshold_stays(nms_threshold: float, kept: int) -> None:
    """Of masks that don't overlap, whose scores stay as they are."""
    probabilities = torch.zeros(3, 4, 8)
    for k in range(3):
        probabilities[k, :, 2 * k : 2 * k + 2] = 0.9
    found = Candidates(torch.tensor([0.75, 0.375, 0.25]), torch.zeros(3, dtype=torch.long), probabilities)
    scores, order = suppress(found, CONFIG.model_copy(update={"nms_threshold": nms_threshold}))
    assert scores.tolist() == [0.75, 0.375, 0.25][:kept]
    assert order.tolist() == [0, 1, 2][:kept]


def test_nothing_found_is_an_empty_answer() -> None:
    outputs = scene()._replace(category_logits=[torch.full((1, 2, 2, 2), -9.0)])
    found = predict(outputs, 0, CONFIG, Sizes((64, 64), (64, 64), (50, 40)))
    assert found.masks.shape == (0, 50, 40)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 80), st.integers(0, 10_000), st.sampled_from([1, 3]), st.booleans())
def test_overlaps_are_those_of_one_large_product(count: int, seed: int, groups: int, dense: bool) -> None:
    """To the last bit: of many small masks, of large ones, and some that are empty."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 40, 70, generator=rng) > 0.5
    if not dense:
        x = torch.randint(0, 70, (count, 1, 1), generator=rng)
        masks &= (torch.arange(70) - x).abs() < 4
    masks[::5] = False
    group = torch.randint(0, groups, (count,), generator=rng)
    flat = masks.flatten(1).float()
    overlap, area = flat @ flat.T, flat.sum(1)
    expected = overlap / (area[:, None] + area - overlap).clamp(min=1)
    assert torch.equal(mask_ious(masks), expected)
    assert torch.equal(mask_ious(masks, group), expected * (group[:, None] == group))


@pytest.mark.parametrize("cached", [1, 100, 1 << 18])
def test_maskness_row_by_row_is_that_of_all(monkeypatch: pytest.MonkeyPatch, cached: int) -> None:
    values = torch.rand(3, 5, 40, generator=torch.Generator().manual_seed(0))
    values[0, 0] = 0.1
    monkeypatch.setattr(detect, "CACHED", cached)
    certainty, area = maskness(values, 0.5)
    inside = values > 0.5
    assert torch.equal(area, inside.sum(-1))
    torch.testing.assert_close(certainty, (values * inside).sum(-1) / inside.sum(-1).clamp(min=1))


@pytest.mark.parametrize("chunk", [1, 1 << 25])
def test_candidates_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    whole = predict(scene(), 0, CONFIG, Sizes((64, 64), (64, 64), (50, 40)))
    monkeypatch.setattr(detect, "CHUNK_ELEMENTS", chunk)
    for one, other in zip(
        predict(scene(), 0, CONFIG, Sizes((64, 64), (64, 64), (50, 40))), whole, strict=True
    ):
        torch.testing.assert_close(one, other)
