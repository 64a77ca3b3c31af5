"""The loss of teacher and student: what its draws depend on, what inner points add."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from data.samples.dataset import collate
from models.solov2.network import SOLOv2
from models.solov2.targets import Targets, draw_pairs
from tasks.common.config import Params
from tasks.training.detector import _clicks, _sampled, detector_pieces
from tasks.training.setup import StepBatch

SEED = 3


@pytest.fixture
def losses_of(
    params_of: Callable[[dict[str, Any]], Params], recipe: dict[str, Any]
) -> Callable[..., list[tuple[float, float]]]:
    """(mask, category) losses of one batch at some steps, with some of the teacher's keys changed."""

    def losses(
        steps: list[int],
        reference: int | None = None,
        origin: tuple[int, int] = (0, 0),
        **changes: Any,
    ) -> list[tuple[float, float]]:
        recipe["teacher"] |= changes
        recipe["model"]["grid_reference"] = reference
        params = params_of(recipe)
        torch.manual_seed(0)
        config = params.detector(params.teacher)
        model = SOLOv2(config, 4)
        # One object over the whole image: its centre cells are few, so an inner point nearly always adds one.
        mask = torch.ones(1, 64, 64, dtype=torch.bool)
        sample = {
            "image": torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8), "masks": mask,
            "labels": torch.tensor([1]), "weights": torch.ones(1), "points_xy": None, "crowd": None,
            "image_id": 1, "original_size": (64, 64), "crop_origin": origin,
        }  # fmt: skip
        pieces = detector_pieces(config, torch.device("cpu"), params.teacher, SEED)
        batch = collate([sample])  # type: ignore[list-item]
        found = []
        for step in steps:
            (piece,) = pieces(StepBatch(**batch, step=step))
            parts = piece.loss(model)
            found.append((parts["loss_mask"].item(), parts["loss_category"].item()))
        return found

    return losses


@pytest.mark.parametrize(
    ("changes", "drawn"),
    [
        ({"inner_points": 0, "mask_pairs": None}, False),
        ({"inner_points": 2, "mask_pairs": None}, True),
        ({"inner_points": 0, "mask_pairs": 1}, True),
    ],
)
def test_draws_depend_on_the_step_alone(
    losses_of: Callable[..., Any], changes: dict[str, Any], drawn: bool
) -> None:
    first, again, others = *losses_of([5, 5], **changes), losses_of([6, 7, 8, 9], **changes)
    assert first == again
    assert any(other != first for other in others) == drawn


def test_inner_points_add_cells(losses_of: Callable[..., Any]) -> None:
    # More positive cells among the same ones: the focal sum is divided by a larger count.
    (_, without), (_, with_points) = *losses_of([0], inner_points=0), *losses_of([0], inner_points=8)
    assert with_points != without


@pytest.mark.parametrize("reference", [None, 64])
def test_the_network_depends_on_the_place_of_a_crop(
    losses_of: Callable[..., Any], reference: int | None
) -> None:
    here, there = (losses_of([0], reference=reference, origin=origin) for origin in ((0, 0), (64, 32)))
    assert (here == there) == (reference is None)


def test_clicks_on_the_far_border_are_outside() -> None:
    """(h, w) is 40 x 60: pixels end below w and h; NaN, a true mask, stays NaN."""
    inside = [(0.0, 0.0), (59.75, 39.75), (20.5, 39.75)]
    outside = [(60.0, 20.0), (20.0, 40.0), (-0.25, 5.0), (5.0, -0.25), (40.5, 59.0)]
    xy = torch.tensor([*inside, *outside, (torch.nan, torch.nan)])
    batch: Any = {
        "points_xy": [xy, None],
        "labels": [torch.zeros(len(xy)), torch.zeros(2)],
        "content_sizes": [(40, 60), (40, 60)],
    }
    clicks = _clicks(batch)
    assert clicks is not None
    first, second = clicks
    assert torch.equal(first[: len(inside)], xy[: len(inside)])
    assert first[len(inside) : -1].isposinf().all()
    assert first[-1].isnan().all() and second.isnan().all() and second.shape == (2, 2)


@pytest.mark.parametrize("limit", [1, 4, 7, 8, None])
def test_sampled_pairs_are_the_whole_step_s_wherever_pieces_end(limit: int | None) -> None:
    """The first and the last pair of a piece too."""
    numbers = torch.arange(8)
    pieces = [
        Targets(
            [],
            [],
            level=own,
            image=torch.zeros_like(own),
            cell=own,
            instance=own,
            masks=own,
            weights=own,
            place=own,
            skipped_negatives=own,
            pairs_per_image=[],
        )
        for own in numbers.split([3, 0, 5])
    ]
    seen: set[int] = set()
    for seed in range(20):
        draw = (torch.Generator().manual_seed(seed) for _ in range(2))
        sampled = torch.cat([one.cell for one in _sampled(pieces, limit, next(draw))])
        kept = None if limit is None else draw_pairs(8, limit, next(draw))
        assert torch.equal(sampled, numbers if kept is None else kept)
        seen |= set(sampled.tolist())
    assert seen == set(range(8))


def test_pieces_are_shares_of_the_whole_step(
    params_of: Callable[[dict[str, Any]], Params], recipe: dict[str, Any]
) -> None:
    """Also where draws are of the whole step, one image has no object, some masks are guesses, pieces are uneven."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for n in range(5):
        masks = torch.zeros(n, 64, 64, dtype=torch.bool)
        for mask in masks:
            x, y, side = (int(torch.randint(4, 30, (), generator=generator)) for _ in range(3))
            mask[y : y + side, x : x + side] = True
        sample = {
            "image": torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8, generator=generator), "masks": masks,
            "labels": torch.arange(n) % 4, "weights": torch.rand(n, generator=generator), "crowd": None, "image_id": n,
            # Every other image's masks are guesses, one click beside the picture.
            "points_xy": torch.rand(n, 2, generator=generator) * 80 if n % 2 else None,
            "original_size": (64, 64), "crop_origin": (0, 0),
        }  # fmt: skip
        samples.append(sample)
    batch = StepBatch(**collate(samples), step=3)  # type: ignore[arg-type]
    found = []
    for accumulate in (1, 2, 5):
        recipe["teacher"] |= {"inner_points": 2, "mask_pairs": 20, "accumulate": accumulate, "batch_size": 5}
        params = params_of(recipe)
        torch.manual_seed(0)
        model = SOLOv2(params.detector(params.teacher), 4)
        pieces = detector_pieces(model.config, torch.device("cpu"), params.teacher, SEED)(batch)
        assert [image for piece in pieces for image in piece.image_ids] == list(range(5))
        parts = [piece.loss(model) for piece in pieces]
        total = {name: sum(part[name] for part in parts) for name in parts[0]}
        total["loss"].backward()  # type: ignore[union-attr]
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((torch.stack([*total.values()]).detach(), torch.cat(gradients)))  # type: ignore[arg-type]
    for losses, gradients in found[1:]:
        torch.testing.assert_close(losses, found[0][0])
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-3, atol=1e-5)
