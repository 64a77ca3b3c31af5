from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import PromptConfig
from models.inference import click_masks
from models.inference.click_masks import Prompted, prompt_points
from models.masks.clicks import NO_POINT, OFF, ON, FurtherClicks
from models.solov2.network import RawOutputs

SIZE = (64, 96)
GRIDS = (6, 4, 2)
PAPER = PromptConfig.paper(0.5)


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


@pytest.mark.parametrize(
    ("logits", "small_area", "expected"),
    [
        ((2.0, 4.0), 16.0, [2.0, 4.0]),  # some places are above the threshold: their mean, not the greatest
        ((-3.0, -1.0), 16.0, [-1.0]),  # none is, but the greatest is above `faint`
        ((-3.0, -1.0), 0.0, []),  # nor is any mask small
        ((-9.0, -3.0), 16.0, []),  # fainter than `faint`
    ],
)
def test_the_maskness_of_a_small_mask_without_any_place_is_its_greatest(
    logits: tuple[float, float], small_area: float, expected: list[float]
) -> None:
    features = torch.full((1, 1, 16, 24), -9.0)
    features[0, 0, 4:6, 4], features[0, 0, 4:6, 5] = logits
    raw = RawOutputs([torch.zeros(1, 1, 1, 1)], [torch.ones(1, 1, 1, 1)], features, (32,))
    config = PAPER.model_copy(update={"small_area": small_area, "faint": 0.1})
    found = prompt_points(raw, 0, torch.tensor([[20.0, 20.0]]), torch.tensor([0]), SIZE, config)
    certainty = torch.tensor(expected).sigmoid().mean().item() if expected else 0.0
    assert found.maskness.item() == pytest.approx(certainty, abs=1e-6)


@pytest.mark.parametrize("kernel", ["best", "blend"])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    config = BLEND.model_copy(update={"kernel": kernel})
    points, labels = torch.rand(9, 2) * 64, torch.arange(9) % 3
    whole = prompt_points(outputs(), 0, points, labels, SIZE, config)
    monkeypatch.setattr(click_masks, "CHUNK_ELEMENTS", 2 * 3 * 16 * 24)
    chunked = prompt_points(outputs(), 0, points, labels, SIZE, config)
    for name in Prompted._fields:
        torch.testing.assert_close(getattr(whole, name), getattr(chunked, name))


BLEND = PromptConfig(
    mask_threshold=0.5,
    kernel="blend",
    neighbourhood=1,
    class_power=0.5,
    click_power=2.0,
    small_area=16.0,
    faint=0.1,
    exclusive="same_class",
    mirror="none",
)


def naive_blend(
    raw: RawOutputs, n: int, x: float, y: float, label: int, config: PromptConfig
) -> tuple[torch.Tensor, float]:
    """The mask [h, w] and class probability of a blend, cell after cell; probabilities at the click by grid_sample."""
    kernels, weights, classes = [], [], []
    place = torch.tensor([[[[x / SIZE[1] * 2 - 1, y / SIZE[0] * 2 - 1]]]])
    for level, grid in enumerate(GRIDS):
        column = min(max(int(x / SIZE[1] * grid // 1), 0), grid - 1)
        row = min(max(int(y / SIZE[0] * grid // 1), 0), grid - 1)
        for r in range(max(0, row - config.neighbourhood), min(grid, row + config.neighbourhood + 1)):
            for c in range(
                max(0, column - config.neighbourhood), min(grid, column + config.neighbourhood + 1)
            ):
                kernel = raw.kernels[level][n, :, r, c]
                mask = torch.einsum("e,ehw->hw", kernel, raw.mask_features[n]).sigmoid()
                at = torch.nn.functional.grid_sample(
                    mask[None, None], place, padding_mode="border", align_corners=False
                ).item()
                probability = raw.category_logits[level][n, label, r, c].sigmoid().item()
                kernels.append(kernel)
                classes.append(probability)
                weights.append(probability**config.class_power * at**config.click_power)
    share = torch.tensor(weights) / sum(weights)
    kernel = (share[:, None] * torch.stack(kernels)).sum(0)
    mask = torch.einsum("e,ehw->hw", kernel, raw.mask_features[n]).sigmoid()
    return mask, float((share * torch.tensor(classes)).sum())


@settings(max_examples=30, deadline=None)
@given(st.lists(coordinates, min_size=1, max_size=8), st.integers(0, 100), st.integers(0, 2))
def test_a_blend_is_the_sum_of_kernels_by_their_fit(points: list, seed: int, reach: int) -> None:
    raw, config = outputs(seed), BLEND.model_copy(update={"neighbourhood": reach})
    xy = torch.tensor([p[:2] for p in points], dtype=torch.float32)
    found = prompt_points(raw, 1, xy, torch.tensor([p[2] for p in points]), SIZE, config)
    assert all(len(field) == len(points) for field in found)
    for k, (x, y, label) in enumerate(points):
        mask, probability = naive_blend(raw, 1, x, y, label, config)
        torch.testing.assert_close(found.mask_prob[k], mask, atol=1e-4, rtol=1e-3)
        assert found.class_score[k].item() == pytest.approx(probability, abs=1e-4)
        at = torch.nn.functional.grid_sample(
            mask[None, None],
            torch.tensor([[[[x / SIZE[1] * 2 - 1, y / SIZE[0] * 2 - 1]]]]),
            padding_mode="border",
            align_corners=False,
        )
        assert found.click_prob[k].item() == pytest.approx(at.item(), abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(6)), st.sampled_from([PAPER, BLEND]))
def test_the_order_of_points_does_not_matter(order: list[int], config: PromptConfig) -> None:
    rng = torch.Generator().manual_seed(5)
    points, labels = torch.rand(6, 2, generator=rng) * 64, torch.arange(6) % 3
    whole = prompt_points(outputs(), 0, points, labels, SIZE, config)
    mixed = prompt_points(outputs(), 0, points[order], labels[order], SIZE, config)
    for one, other in zip(whole, mixed, strict=True):
        torch.testing.assert_close(one[order], other)


def test_cells_that_draw_nothing_at_the_click_count_for_nothing() -> None:
    """Of two levels the one of higher class probability predicts another place: the other's mask is used."""
    features = torch.full((1, 2, 16, 24), -8.0)
    features[0, 0, :, :12] = 8.0
    features[0, 1, :, 12:] = 8.0
    kernels = [torch.zeros(1, 2, s, s) for s in (4, 2)]
    kernels[0][:, 1] = 1.0
    kernels[1][:, 0] = 1.0
    logits = [torch.full((1, 1, 4, 4), 5.0), torch.full((1, 1, 2, 2), -1.0)]
    raw = RawOutputs(logits, kernels, features, (8, 16))
    found = prompt_points(raw, 0, torch.tensor([[10.0, 30.0]]), torch.tensor([0]), SIZE, BLEND)
    assert found.level.tolist() == [1]
    assert (found.mask_prob[0] > 0.5).nonzero()[:, 1].max() == 11
    paper = prompt_points(raw, 0, torch.tensor([[10.0, 30.0]]), torch.tensor([0]), SIZE, PAPER)
    assert paper.level.tolist() == [0]


def test_autocast_changes_nothing() -> None:
    points, labels = torch.rand(5, 2) * 64, torch.arange(5) % 3
    plain = prompt_points(outputs(), 0, points, labels, SIZE, BLEND)
    with torch.autocast("cpu", torch.bfloat16):
        cast = prompt_points(outputs(), 0, points, labels, SIZE, BLEND)
    for one, other in zip(plain, cast, strict=True):
        assert torch.equal(one, other)


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


def none_of(clicks: int, count: int = 2) -> FurtherClicks:
    return FurtherClicks(torch.zeros(clicks, count, 2), torch.full((clicks, count), NO_POINT))


@pytest.mark.parametrize("kernel", ["best", "blend"])
def test_objects_without_further_clicks_are_drawn_to_the_bit(kernel: str) -> None:
    config = BLEND.model_copy(update={"kernel": kernel})
    points, labels = torch.tensor([[10.0, 10.0], [50.0, 30.0], [80.5, 60.0]]), torch.tensor([0, 1, 2])
    plain = prompt_points(outputs(), 0, points, labels, SIZE, config)
    for further in (none_of(3), none_of(3, 0)):
        for one, other in zip(
            prompt_points(outputs(), 0, points, labels, SIZE, config, further), plain, strict=True
        ):
            assert torch.equal(one, other)
    further = none_of(3)
    further.points_xy[1], further.labels[1] = (
        torch.tensor([[60.0, 20.0], [20.0, 50.0]]),
        torch.tensor([ON, OFF]),
    )
    found = prompt_points(outputs(), 0, points, labels, SIZE, config, further)
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert not torch.equal(found.mask_prob[1], plain.mask_prob[1])


@pytest.mark.parametrize("kernel", ["best", "blend"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), inside=st.integers(0, 2), outside=st.integers(1, 2))
def test_a_click_outside_is_left_out_and_those_inside_stay(
    kernel: str, seed: int, inside: int, outside: int
) -> None:
    """Each at the centre of a place of the mask map, whose features differ from those of the others."""
    raw = outputs(seed)
    raw = raw._replace(
        kernels=[torch.cat([one, one.roll(1, 2), one.roll(1, 3)], 1) / 2 for one in raw.kernels],
        mask_features=torch.randn(2, 12, 16, 24, generator=torch.Generator().manual_seed(seed)),
    )
    config = BLEND.model_copy(update={"kernel": kernel})
    places = torch.randperm(16 * 24, generator=torch.Generator().manual_seed(seed))[: 1 + inside + outside]
    xy = torch.stack([places % 24, places // 24], 1) * 4 + 2.0
    labels = torch.tensor([[ON] * inside + [OFF] * outside])
    with_all = FurtherClicks(xy[None, 1:], labels)
    without = FurtherClicks(with_all.points_xy, labels.where(labels == ON, NO_POINT))
    label = torch.tensor([1])
    before, after = (
        prompt_points(raw, 0, xy[:1], label, SIZE, config, one).mask_prob[0].flatten()[places]
        for one in (without, with_all)
    )
    kept = 1 + inside
    expected = before.logit()
    expected[kept:] = expected[kept:].clamp(max=click_masks.OUTSIDE)
    # Ridge regression falls short by a part of the change: at most 0.165 of it over all these examples,
    # whose logits stay below 10.5 (halved kernels), far from where float32 probabilities become 1.
    change = float((expected - before.logit()).abs().max())
    torch.testing.assert_close(after.logit(), expected, atol=0.02 + 0.2 * change, rtol=0)


def test_the_kernel_that_holds_all_clicks_has_the_most_weight() -> None:
    """Two cells draw each a half of the map, a third one all of it; the object has a click in both halves."""
    left, right = torch.zeros(1, 1, 16, 24), torch.zeros(1, 1, 16, 24)
    left[..., :12], right[..., 12:] = 1, 1
    features = torch.cat([left, right], 1)
    kernels = torch.full((1, 2, 2, 2), -9.0)
    kernels[0, 0, 0, 0] = 9.0  # the cell at the first click: left
    kernels[0, :, 0, 1] = 9.0  # the cell at the second: both
    raw = RawOutputs([torch.zeros(1, 1, 2, 2)], [kernels], features, (8,))
    points, label = torch.tensor([[10.0, 10.0]]), torch.tensor([0])
    config = BLEND.model_copy(update={"neighbourhood": 0})
    alone = prompt_points(raw, 0, points, label, SIZE, config).mask_prob[0] > 0.5
    assert alone[:, :12].all() and not alone[:, 12:].any()
    second = FurtherClicks(torch.tensor([[[80.0, 10.0]]]), torch.tensor([[ON]]))
    both = prompt_points(raw, 0, points, label, SIZE, config, second)
    assert (both.mask_prob[0] > 0.5).all()
    assert both.click_prob > 0.9
