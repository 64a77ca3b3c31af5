"""The loss of queries against transformers' own; weights, ignored regions, parts of a batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from models.queries.loss import (
    QueryLossConfig,
    QueryTotals,
    Truth,
    counted,
    in_ignored,
    match,
    query_loss,
)
from models.queries.network import QueryOutputs
from tests.models.queries.tiny import network

CONFIG = QueryLossConfig(2.0, 5.0, 5.0, 0.1, 128, 3.0, 0.75, True)
QUERIES, CLASSES, SIDE = 6, 3, 64


def draws(seed: int = 5):  # type: ignore[no-untyped-def]
    generator = torch.Generator()
    return lambda n, layer: generator.manual_seed(1000 * seed + 10 * n + layer)


def truth(
    *boxes: tuple[int, int, int, int], labels: list[int] | None = None, ignored: Tensor | None = None
) -> Truth:
    """Objects with masks x0, y0, x1, y1."""
    masks = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = 1
    of = torch.tensor(range(len(boxes)) if labels is None else labels, dtype=torch.long)
    return Truth(masks, of % CLASSES, torch.ones(len(boxes)), ignored)


def outputs(images: int, layers: int = 1, seed: int = 1) -> QueryOutputs:
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> list[Tensor]:
        return [
            torch.randn(images, QUERIES, *shape, generator=generator).requires_grad_() for _ in range(layers)
        ]

    return QueryOutputs(some(CLASSES + 1), [2 * one for one in some(16, 16)])


def loss_of(found: QueryOutputs, truths: list[Truth], config: QueryLossConfig = CONFIG) -> dict[str, Tensor]:
    return query_loss(found, truths, config, QueryTotals.of(truths, QUERIES, config), draws())


@pytest.mark.parametrize("boxes", [[(4, 8, 30, 40), (33, 5, 60, 22)], [(0, 0, 64, 64)]])
def test_it_is_transformers_own_loss(boxes: list[tuple[int, int, int, int]]) -> None:
    """With weights of 1 and nothing ignored, at the same random points."""
    found, one = outputs(1, layers=3), truth(*boxes)
    settings = network(num_queries=QUERIES).settings
    theirs = Mask2FormerLoss(settings, {})
    expected = {"loss_category": 0.0, "loss_mask": 0.0, "loss_dice": 0.0}
    for layer, (logits, maps) in enumerate(zip(*found, strict=True)):
        torch.manual_seed(draws()(0, layer).initial_seed())
        parts = theirs(maps, logits, [one.masks.float()], [one.labels])
        expected["loss_category"] += 2 * float(parts["loss_cross_entropy"].detach())
        expected["loss_mask"] += 5 * float(parts["loss_mask"].detach())
        expected["loss_dice"] += 5 * float(parts["loss_dice"].detach())
    ours = loss_of(found, [one], QueryLossConfig.of(settings, True))
    for name, value in expected.items():
        assert float(ours[name].detach()) == pytest.approx(value, rel=1e-5), name
    assert float(ours["loss"].detach()) == pytest.approx(sum(expected.values()), rel=1e-5)


def test_parts_of_a_batch_sum_to_the_whole() -> None:
    found = outputs(3, layers=2)
    truths = [truth((4, 8, 30, 40), (33, 5, 60, 22)), truth(), truth((1, 1, 20, 20))]
    truths[0] = replace(truths[0], weights=torch.tensor([0.3, 1.0]))
    totals = QueryTotals.of(truths, QUERIES, CONFIG)
    whole = query_loss(found, truths, CONFIG, totals, draws())
    parts = []
    for part in (slice(0, 1), slice(1, 3)):
        some = QueryOutputs(
            [one[part] for one in found.class_logits], [one[part] for one in found.mask_logits]
        )
        own = draws()
        parts.append(
            query_loss(
                some, truths[part], CONFIG, totals, lambda n, layer, at=part.start, of=own: of(at + n, layer)
            )
        )
    for name, value in whole.items():
        assert torch.isclose(value, parts[0][name] + parts[1][name], rtol=1e-5)


def test_an_objects_weight_scales_its_part() -> None:
    found, one = outputs(1), truth((4, 8, 30, 40), (33, 5, 60, 22))
    both, alone = (
        query_loss(found, [one if weights is None else replace(one, weights=torch.tensor(weights))], CONFIG,
                   QueryTotals(torch.tensor(1.0), torch.tensor(1.0)), draws())
        for weights in (None, [1.0, 0.0])
    )  # fmt: skip
    half = query_loss(
        found, [replace(one, weights=torch.tensor([1.0, 0.5]))], CONFIG,
        QueryTotals(torch.tensor(1.0), torch.tensor(1.0)), draws(),
    )  # fmt: skip
    for name in ("loss_category", "loss_mask", "loss_dice"):
        assert both[name] > alone[name] + 1e-3
        assert torch.isclose(half[name], (both[name] + alone[name]) / 2, rtol=1e-5)
    # The class is certain at a click: the weight is the mask's alone.
    certain = CONFIG._replace(weigh_categories=False)
    masks = query_loss(
        found, [replace(one, weights=torch.tensor([1.0, 0.0]))], certain,
        QueryTotals(torch.tensor(1.0), torch.tensor(1.0)), draws(),
    )  # fmt: skip
    assert torch.isclose(masks["loss_category"], both["loss_category"])
    assert torch.isclose(masks["loss_dice"], alone["loss_dice"])


def test_low_weights_stay_low() -> None:
    """The divisor of masks is at least 1; that of classes has the queries without an object."""
    one = truth((4, 8, 30, 40), (33, 5, 60, 22))
    totals = QueryTotals.of([replace(one, weights=torch.tensor([0.25, 0.5]))], QUERIES, CONFIG)
    assert float(totals.masks) == 0.75
    assert float(totals.classes) == pytest.approx(0.75 + 0.1 * 4)
    many = truth(*[(0, 0, 8, 8)] * 8)
    totals = QueryTotals.of([replace(many, weights=torch.full((8,), 0.5))], QUERIES, CONFIG)
    assert float(totals.classes) == pytest.approx(0.5 * QUERIES)
    found = outputs(1)
    few = [replace(one, weights=torch.tensor([0.1, 0.1]))]
    full = loss_of(found, [one])
    assert float(loss_of(found, few)["loss_dice"]) == pytest.approx(
        0.1 * 2 * float(full["loss_dice"]), rel=1e-4
    )


def test_no_mask_loss_in_an_ignored_region() -> None:
    """What a mask is there has no effect, and no gradient comes from there."""
    region = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    region[:, 32:] = True
    found = outputs(1)
    losses = []
    for right in (40, 64):  # two truths that differ in the region alone
        one = truth((8, 8, right, 40), ignored=region)
        losses.append(loss_of(found, [one]))
    for name in losses[0]:
        assert torch.equal(losses[0][name], losses[1][name])
    known = truth((8, 8, 40, 40))
    assert not torch.equal(loss_of(found, [known])["loss_mask"], losses[0]["loss_mask"])
    (losses[0]["loss_mask"] + losses[0]["loss_dice"]).backward()
    gradient = found.mask_logits[0].grad if found.mask_logits[0].is_leaf else None
    assert gradient is None
    leaf = found.mask_logits[0].detach().requires_grad_()
    parts = loss_of(QueryOutputs(found.class_logits, [leaf]), [truth((8, 8, 40, 40), ignored=region)])
    (parts["loss_mask"] + parts["loss_dice"]).backward()
    assert leaf.grad is not None
    # Bilinear points reach one place of the map across the border.
    assert leaf.grad[..., 9:].abs().max() == 0 and leaf.grad[..., :8].abs().max() > 0


def test_a_whole_image_may_be_ignored() -> None:
    found = outputs(1)
    parts = loss_of(found, [truth((8, 8, 40, 40), ignored=torch.ones(SIDE, SIDE, dtype=torch.bool))])
    assert all(value.isfinite() for value in parts.values())
    assert float(parts["loss_mask"].detach()) == 0


def test_a_query_in_an_ignored_region_is_not_no_object() -> None:
    region = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    region[:, 32:] = True
    maps = torch.full((4, 16, 16), -3.0)
    maps[0, :, 8:] = 3  # inside
    maps[1, :, 7:10] = 3  # two of three columns inside
    maps[2, :, 6:10] = 3  # one half, which isn't most of it
    assert in_ignored(maps, region).tolist() == [True, True, False, False]  # the last one is empty

    logits = torch.zeros(1, 4, CLASSES + 1).requires_grad_()
    one = replace(truth((0, 0, 8, 8)), ignored=region)
    maps[3, :2, :2] = 3  # the object's
    totals = QueryTotals.of([one], 4, CONFIG)
    query_loss(QueryOutputs([logits], [maps[None]]), [one], CONFIG, totals, draws())["loss"].backward()
    assert logits.grad is not None
    learns = logits.grad[0].abs().amax(1) > 0
    assert learns.tolist() == [False, False, True, True]
    # Without the region all learn, and it is no other divisor.
    logits.grad = None
    query_loss(QueryOutputs([logits], [maps[None]]), [truth((0, 0, 8, 8))], CONFIG, totals, draws())[
        "loss"
    ].backward()
    assert logits.grad is not None and (logits.grad[0].abs().amax(1) > 0).all()


def test_a_matched_query_learns_even_in_an_ignored_region() -> None:
    region = torch.ones(SIDE, SIDE, dtype=torch.bool)
    logits = torch.zeros(1, 1, CLASSES + 1).requires_grad_()
    one = truth((0, 0, 8, 8), labels=[2], ignored=region)
    loss_of(QueryOutputs([logits], [torch.full((1, 1, 16, 16), 3.0)]), [one])["loss"].backward()
    assert logits.grad is not None and int(logits.grad[0, 0].argmin()) == 2


def test_the_best_pairs_are_matched() -> None:
    one = truth((0, 0, 32, 32), (32, 32, 64, 64), labels=[1, 1])
    maps = torch.full((3, 16, 16), -8.0)
    maps[2, :8, :8], maps[0, 8:, 8:] = 8, 8
    query, target = match(torch.zeros(3, 4), maps, one, CONFIG, draws()(0, 0))
    assert dict(zip(query.tolist(), target.tolist(), strict=True)) == {2: 0, 0: 1}
    # Equal masks: the class decides.
    maps[:] = 0
    logits = torch.zeros(3, 4)
    logits[1, 1] = logits[2, 2] = 9.0
    both = truth((0, 0, 32, 32), (0, 0, 32, 32), labels=[2, 1])
    query, target = match(logits, maps, both, CONFIG, draws()(0, 0))
    assert dict(zip(query.tolist(), target.tolist(), strict=True)) == {1: 1, 2: 0}


def test_more_objects_than_queries() -> None:
    many = truth(*[(4 * n, 0, 4 * n + 8, 64) for n in range(9)])
    parts = loss_of(outputs(1), [many])
    assert parts["loss"].isfinite()


def test_an_image_without_objects_has_gradients() -> None:
    found = outputs(1)
    loss_of(found, [truth()])["loss"].backward()
    assert found.class_logits[0].grad is not None and found.class_logits[0].grad.abs().sum() > 0


def test_points_at_a_regions_border() -> None:
    region = torch.zeros(4, 4, dtype=torch.bool)
    region[:, 2:] = True
    points = torch.tensor([[[0.49, 0.5], [0.51, 0.5], [0.99, 0.01]]])
    assert counted(region, points).tolist() == [[1.0, 0.0, 0.0]]
    assert counted(None, points).tolist() == [[1.0, 1.0, 1.0]]
