from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.masks import exclusive
from models.masks.boxes import mask_boxes
from models.masks.exclusive import Maps, PixelAssignment, Probability, groups_of, remove_overlaps_
from models.masks.resize import Sizes

SIZE = (24, 32)


def make_exclusive(masks: Tensor, probability: Probability, points: Tensor, groups: Tensor) -> Tensor:
    """A copy without overlaps."""
    copy = masks.clone()
    remove_overlaps_(copy, mask_boxes(masks), probability, points, groups)
    return copy


def scene(seed: int, count: int) -> tuple[Tensor, Maps, Tensor]:
    """Masks cut from random smooth maps of the whole image, and clicks anywhere."""
    rng = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 1, 6, 8, generator=rng)
    maps = Maps.of_input(low[:, 0], Sizes(SIZE, SIZE, SIZE))
    full = F.interpolate(low, size=SIZE, mode="bilinear", align_corners=False)[:, 0]
    points = torch.rand(count, 2, generator=rng) * torch.tensor([SIZE[1], SIZE[0]])
    return full > 0.5, maps, points


def naive(masks: Tensor, full: Tensor, points: Tensor, groups: Tensor) -> Tensor:
    """Pixel by pixel, claim by claim."""
    out = torch.zeros_like(masks)
    holds = [bool(masks[k, int(y), int(x)]) for k, (x, y) in enumerate(points.tolist())]
    for group in set(groups.tolist()):
        for y, x in masks[groups == group].any(0).nonzero().tolist():
            claims = [k for k in range(len(masks)) if groups[k] == group and masks[k, y, x]]

            def rank(k: int, x: int = x, y: int = y) -> tuple[bool, bool, float, float, int]:
                px, py = points[k].tolist()
                pinned = (int(px), int(py)) == (x, y)
                far = float(((points[k] - torch.tensor([x + 0.5, y + 0.5])) ** 2).sum())
                return (pinned, holds[k], 0.0 if pinned else float(full[k, y, x]), -far, -k)

            out[max(claims, key=rank), y, x] = True
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 7), st.sampled_from(["none", "same_class", "all"]))
def test_as_pixel_by_pixel(seed: int, count: int, rule: str) -> None:
    masks, maps, points = scene(seed, count)
    labels = torch.randint(0, 3, (count,), generator=torch.Generator().manual_seed(seed))
    groups = groups_of(labels, rule)  # type: ignore[arg-type]
    owned = make_exclusive(masks, maps.at, points, groups)
    y, x = torch.meshgrid(torch.arange(SIZE[0]) + 0.5, torch.arange(SIZE[1]) + 0.5, indexing="ij")
    spots = torch.stack([x, y], -1).view(-1, 2)
    rows = torch.arange(count).repeat_interleave(len(spots))
    full = maps.at(rows, spots.repeat(count, 1)).view(count, *SIZE)
    assert torch.equal(owned, naive(masks, full, points, groups))
    for group in groups.unique():
        mine = groups == group
        assert int(owned[mine].sum(0).max()) <= 1
        assert torch.equal(owned[mine].any(0), masks[mine].any(0))
    if rule == "none":
        assert torch.equal(owned, masks)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(6)))
def test_order_does_not_matter(seed: int, order: list[int]) -> None:
    masks, maps, points = scene(seed, 6)
    groups = torch.zeros(6, dtype=torch.long)
    whole = make_exclusive(masks, maps.at, points, groups)
    mixed = Maps(maps.probabilities[order], maps.boxes_xyxy[order])
    assert torch.equal(make_exclusive(masks[order], mixed.at, points[order], groups), whole[order])


def test_a_tie_is_cut_halfway_between_the_clicks() -> None:
    masks = torch.ones(2, 4, 10, dtype=torch.bool)
    maps = Maps(torch.full((2, 1, 1), 0.75), torch.tensor([[0.0, 0, 10, 4]]).expand(2, 4))
    owned = make_exclusive(
        masks, maps.at, torch.tensor([[2.5, 2.0], [7.5, 2.0]]), torch.zeros(2, dtype=torch.long)
    )
    assert owned[0, :, :5].all() and not owned[0, :, 5:].any()
    assert torch.equal(owned[1], ~owned[0])


def test_a_mask_that_holds_its_click_keeps_it_from_a_surer_one() -> None:
    masks = torch.ones(2, 4, 10, dtype=torch.bool)
    maps = Maps(torch.tensor([0.9, 0.6]).view(2, 1, 1), torch.tensor([[0.0, 0, 10, 4]]).expand(2, 4))
    points = torch.tensor([[2.5, 2.0], [7.5, 2.0]])
    owned = make_exclusive(masks, maps.at, points, torch.zeros(2, dtype=torch.long))
    assert owned[1].nonzero().tolist() == [[2, 7]]
    missed = masks.clone()
    missed[1, 2, 7] = False
    # A mask that misses its click takes nothing from one that holds its own, however sure it is.
    surer = Maps(maps.probabilities.flip(0), maps.boxes_xyxy)
    for each in (maps, surer):
        owned = make_exclusive(missed, each.at, points, torch.zeros(2, dtype=torch.long))
        assert owned[0].all() and not owned[1].any()


def test_of_two_clicks_at_one_place_the_first_has_the_mask() -> None:
    masks = torch.ones(2, 4, 10, dtype=torch.bool)
    maps = Maps(torch.full((2, 1, 1), 0.75), torch.tensor([[0.0, 0, 10, 4]]).expand(2, 4))
    owned = make_exclusive(masks, maps.at, torch.tensor([[2.5, 2.0]] * 2), torch.zeros(2, dtype=torch.long))
    assert owned[0].all() and not owned[1].any()


def test_more_claims_of_a_pixel_than_a_byte_counts() -> None:
    masks = torch.ones(600, 2, 3, dtype=torch.bool)
    maps = Maps(torch.linspace(0.6, 0.9, 600).view(600, 1, 1), torch.tensor([[0.0, 0, 3, 2]]).expand(600, 4))
    points = torch.tensor([[0.5, 0.5]]).repeat(600, 1)
    owned = make_exclusive(masks, maps.at, points, torch.zeros(600, dtype=torch.long))
    assert torch.equal(owned.sum(0), torch.ones(2, 3, dtype=torch.long))
    assert owned[0].sum() == 1 and owned[599].sum() == 5


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    masks, maps, points = scene(3, 6)
    whole = make_exclusive(masks, maps.at, points, torch.zeros(6, dtype=torch.long))
    monkeypatch.setattr(exclusive, "CHUNK_ELEMENTS", 40)
    assert torch.equal(make_exclusive(masks, maps.at, points, torch.zeros(6, dtype=torch.long)), whole)


def test_maps_of_a_padded_and_scaled_batch_lie_on_the_original() -> None:
    """A map of 8 x 12 for an input of 32 x 48, of which 24 x 32 show an image of 48 x 64."""
    maps = Maps.of_input(torch.arange(12.0).expand(1, 8, 12), Sizes((32, 48), (24, 32), (48, 64)))
    assert maps.boxes_xyxy.tolist() == [[0, 0, 96, 64]]
    at = maps.at(torch.zeros(3, dtype=torch.long), torch.tensor([[4.0, 10.0], [12.0, 10.0], [-5.0, 99.0]]))
    assert at.tolist() == [0.0, 1.0, 0.0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 6), st.integers(0, 30))
def test_boxes_that_are_not_tight_change_nothing(seed: int, count: int, loose: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    around = discs(count, rng)
    _, maps, points = scene(seed, count)
    groups = torch.randint(0, 2, (count,), generator=rng)
    expected = make_exclusive(around, maps.at, points, groups)
    boxes = mask_boxes(around)
    real = boxes[:, 2] > 0
    boxes[real, :2] = (boxes[real, :2] - loose).clamp(min=0)
    boxes[real, 2:] = torch.minimum(boxes[real, 2:] + loose, torch.tensor([SIZE[1], SIZE[0]]))
    owned = around.clone()
    remove_overlaps_(owned, boxes, maps.at, points, groups)
    assert torch.equal(owned, expected)
    assert torch.equal(owned.any(0), around.any(0))


def discs(count: int, rng: torch.Generator) -> Tensor:
    """Small masks that overlap here and there, some of them empty."""
    places = torch.rand(count, 3, generator=rng) * torch.tensor([SIZE[1], SIZE[0], 8.0])
    x, y, radius = (column[:, None, None] for column in places.unbind(1))
    across, down = torch.arange(SIZE[1]) + 0.5 - x, (torch.arange(SIZE[0]) + 0.5)[:, None] - y
    return across.square() + down.square() <= (radius - 1).square() * (radius > 1)


def test_a_scale_counts_as_if_the_maps_had_it() -> None:
    _, maps, points = scene(2, 5)
    scale = torch.linspace(0.5, 2.0, 5)
    rows = torch.arange(5)
    scaled = maps._replace(probabilities=maps.probabilities * scale[:, None, None])
    assert torch.equal(maps._replace(scale=scale).at(rows, points), scaled.at(rows, points))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), chunk=st.integers(1, 9), rounded=st.booleans())
def test_chunk_by_chunk_as_all_at_once(seed: int, count: int, chunk: int, rounded: bool) -> None:
    masks, maps, points = scene(seed, count)
    if rounded:  # so that many are equally sure, and equally near
        maps = maps._replace(probabilities=torch.full_like(maps.probabilities, 0.5))
        points = points.floor()
    expected = make_exclusive(masks, maps.at, points, torch.zeros(count, dtype=torch.long))
    found = PixelAssignment(SIZE, torch.device("cpu"))
    parts = [slice(at, at + chunk) for at in range(0, count, chunk)]
    rows = torch.arange(count)
    for part in parts:
        mine = maps._replace(probabilities=maps.probabilities[part], boxes_xyxy=maps.boxes_xyxy[part])
        found.add(masks[part], rows[part], mine.at, points[part])
    owned = torch.cat([found.exclusive(masks[part], rows[part]) for part in parts])
    assert torch.equal(owned, expected)


def test_a_chunk_of_many_pixels_is_processed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    masks, maps, points = scene(3, 8)
    whole, pieces = (PixelAssignment(SIZE, torch.device("cpu")) for _ in range(2))
    whole.add(masks, torch.arange(8), maps.at, points)
    monkeypatch.setattr(exclusive, "CHUNK_ELEMENTS", 1)
    pieces.add(masks, torch.arange(8), maps.at, points)
    assert torch.equal(whole.exclusive(masks, torch.arange(8)), pieces.exclusive(masks, torch.arange(8)))
