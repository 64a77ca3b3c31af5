from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.config import InferenceConfig, PromptConfig, TileConfig
from models.inference.click_masks import prompt_points
from models.inference.detect import Candidates, candidates
from models.inference.tiles import (
    Tile,
    Tiled,
    _inside,
    forward_tiled,
    joined,
    predict,
    prompt,
    starts,
    tile_core_ranges,
)
from models.masks.boxes import mask_boxes
from models.masks.clicks import NO_POINT, OFF, ON, FurtherClicks
from models.masks.resize import Sizes
from models.solov2.network import RawOutputs, SOLOv2

TILE = TileConfig(side=64, overlap=32)
CLICKS = PromptConfig(
    mask_threshold=0.5, kernel="blend", neighbourhood=1, class_power=0.5, click_power=2.0, small_area=64.0,
    faint=0.1, exclusive="same_class", mirror="none",
)  # fmt: skip
FINDING = InferenceConfig(
    score_threshold=0.05, min_area=0.0, nms_pre=500, nms_kernel="gaussian", nms_sigma=2.0, nms_threshold=0.0,
    max_detections=100, mask_threshold=0.5,
)  # fmt: skip


@pytest.fixture
def network(solov2_config) -> SOLOv2:
    torch.manual_seed(0)
    config = solov2_config(grids=[12, 8, 4], grid_reference=64, mask_stride=2, prior_prob=0.4)
    return SOLOv2(config, 3).eval().requires_grad_(False)


def images(height: int, width: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 255, (count, 3, height, width), generator=generator, dtype=torch.uint8)


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 7))
def test_tiles_cover_a_side_and_overlap(length: int, side: int, overlap: int) -> None:
    length, side, overlap = length * 32, side * 32, min(overlap, side - 1) * 32
    begins = starts(length, side, overlap)
    assert begins[0] == 0
    assert all(begin % 32 == 0 for begin in begins)
    if length > side:
        assert begins[-1] + side == length
    gaps = [b - a for a, b in pairwise(begins)]
    # Rounded to multiples of 32, a step may be longer by less than that.
    assert all(0 < gap < side - overlap + 32 for gap in gaps)
    parts = tile_core_ranges(begins, side)
    assert parts[0][0] == -math.inf
    assert parts[-1][1] == math.inf
    assert [part[1] for part in parts[:-1]] == [part[0] for part in parts[1:]]
    for begin, (low, high) in zip(begins, parts, strict=True):
        assert max(low, 0) >= begin
        assert min(high, length) <= begin + side


@pytest.mark.parametrize(("side", "overlap"), [(64, 33), (32, 1), (64, -1), (48, 0)])
def test_tiles_that_can_t_be(side: int, overlap: int) -> None:
    with pytest.raises(ValidationError):
        TileConfig(side=side, overlap=overlap)


def test_without_tiles_images_are_seen_whole(network: SOLOv2) -> None:
    batch = images(64, 96)
    seen = forward_tiled(network, batch, [(64, 96)], None)
    assert isinstance(seen, RawOutputs)
    assert torch.equal(seen.mask_features, network(batch, [(64, 96)]).mask_features)


@pytest.mark.parametrize("content", [(64, 64), (50, 41)])
def test_an_image_of_one_tile_is_as_seen_whole(network: SOLOv2, content: tuple[int, int]) -> None:
    batch = images(64, 64)
    whole, tiled = (
        forward_tiled(network, batch, [content], None),
        forward_tiled(network, batch, [content], TILE),
    )
    xy, labels = torch.tensor([[5.0, 9.0], [30.0, 40.0], [31.0, 40.5]]), torch.tensor([0, 2, 2])
    for a, b in zip(
        prompt(whole, 0, xy, labels, (64, 64), CLICKS),
        prompt(tiled, 0, xy, labels, (64, 64), CLICKS),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-6)
    sizes = Sizes((64, 64), content, content)
    for a, b in zip(predict(whole, 0, FINDING, sizes), predict(tiled, 0, FINDING, sizes), strict=True):
        assert torch.equal(a, b)


def test_a_small_image_is_padded_to_a_tile(network: SOLOv2) -> None:
    batch = images(32, 32)
    padded = torch.nn.functional.pad(batch, (0, 32, 0, 32))
    small = forward_tiled(network, batch, [(32, 32)], TILE)
    xy, labels = torch.tensor([[5.0, 9.0]]), torch.tensor([0])
    expected = prompt_points(network(padded, [(32, 32)]), 0, xy, labels, (64, 64), CLICKS)
    found = prompt(small, 0, xy, labels, (32, 32), CLICKS)
    assert torch.allclose(found.score, expected.score)
    assert torch.allclose(found.mask_prob, expected.mask_prob[:, :16, :16])


@settings(max_examples=15, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(0, 159), st.floats(0, 95), st.integers(0, 2)), min_size=1, max_size=8)
)
def test_a_click_is_answered_by_its_home(points: list[tuple[float, float, int]]) -> None:
    network = _network()
    batch = images(96, 160, 2)
    seen = forward_tiled(network, batch, [(96, 160), (90, 150)], TILE)
    assert isinstance(seen, Tiled)
    xy = torch.tensor([point[:2] for point in points])
    labels = torch.tensor([point[2] for point in points])
    found = prompt(seen, 1, xy, labels, (96, 160), CLICKS)
    assert all(len(column) == len(points) for column in found)
    for k, (x, y) in enumerate(xy.tolist()):
        (tile,) = [
            t
            for t in seen.tiles[1]
            if t.core_xyxy[0] <= x < t.core_xyxy[2] and t.core_xyxy[1] <= y < t.core_xyxy[3]
        ]
        piece = batch[1:, :, tile.y : tile.y + 64, tile.x : tile.x + 64]
        size = (min(90 - tile.y, 64), min(150 - tile.x, 64))
        local = xy - torch.tensor([tile.x, tile.y])
        within = ((local >= 0) & (local < 64)).all(1).nonzero()[:, 0].tolist()
        alone = prompt_points(
            network(piece, [size], [(float(tile.x), float(tile.y))]),
            0,
            local[within],
            labels[within],
            (64, 64),
            CLICKS,
        )
        mine = within.index(k)
        # A pixel at the cut may fall to either side, since convolutions of other batches round otherwise.
        assert found.score[k].item() == pytest.approx(alone.score[mine].item(), abs=1e-4)
        canvas = torch.zeros(48, 80)
        canvas[tile.y // 2 : tile.y // 2 + 32, tile.x // 2 : tile.x // 2 + 32] = alone.mask_prob[mine]
        assert torch.allclose(found.mask_prob[k], canvas, atol=1e-5)


def test_a_click_between_two_homes_belongs_to_the_latter(network: SOLOv2) -> None:
    """Homes end at 48, 80 and 112 across, and at 48 down."""
    size = (96, 160)
    seen = forward_tiled(network, images(*size), [size], TILE)
    assert isinstance(seen, Tiled)
    assert {x for tile in seen.tiles[0] for x in tile.core_xyxy[::2]} == {-math.inf, 48, 80, 112, math.inf}
    xy = torch.tensor([[48.0, 20.0], [20.0, 48.0], [48.0, 48.0], [112.0, 48.0], [79.5, 31.25]])
    cores = torch.stack([_inside(xy, tile.core_xyxy) for tile in seen.tiles[0]])
    assert cores.sum(0).tolist() == [1] * len(xy)
    places = [(seen.tiles[0][row].x, seen.tiles[0][row].y) for row in cores.int().argmax(0).tolist()]
    assert places == [(32, 0), (0, 32), (32, 32), (96, 32), (32, 0)]
    found = prompt(seen, 0, xy, torch.tensor([0, 1, 2, 0, 1]), size, CLICKS)
    assert [len(column) for column in found] == [len(xy)] * len(found)
    for column, alone in zip(found, prompt(seen, 0, xy[3:4], torch.tensor([0]), size, CLICKS), strict=True):
        assert torch.allclose(column[3:4].float(), alone.float(), atol=1e-4)  # each row is its own click's


@pytest.mark.parametrize("size", [(96, 160), (32, 32)])
def test_a_click_on_the_border_has_a_row(network: SOLOv2, size: tuple[int, int]) -> None:
    """A click a hair inside an image may be rounded onto its border when it is scaled to the input."""
    height, width = size
    seen = forward_tiled(network, images(*size), [size], TILE)
    labels = torch.tensor([0, 1, 2])
    xy = torch.tensor([[width, 20.0], [5.0, height], [width, height]])
    found = prompt(seen, 0, xy, labels, size, CLICKS)
    assert all(len(column) == 3 for column in found)
    inside = prompt(seen, 0, xy - 1e-3 * (xy >= torch.tensor([width, height])), labels, size, CLICKS)
    assert torch.allclose(found.mask_prob, inside.mask_prob, atol=1e-4)
    assert torch.allclose(found.score, inside.score, atol=1e-4)


def _network() -> SOLOv2:
    from models.config import SOLOv2Config
    from tests.models.conftest import SOLOV2

    torch.manual_seed(0)
    config = {**SOLOV2, "grids": [12, 8, 4], "grid_reference": 64, "mask_stride": 2, "prior_prob": 0.4}
    return SOLOv2(SOLOv2Config.model_validate(config), 3).eval().requires_grad_(False)


def test_each_cell_is_asked_once_and_its_mask_lies_in_its_tile(network: SOLOv2) -> None:
    batch, size = images(96, 160), (96, 160)
    seen = forward_tiled(network, batch, [size], TILE)
    assert isinstance(seen, Tiled)
    every = FINDING.model_copy(update={"nms_pre": 100_000, "max_detections": 100_000})
    found = predict(seen, 0, every, Sizes(size, size, size))
    expected = sum(
        len(candidates(seen.outputs, t.row, every, (64, 64), tuple(
            side - corner for side, corner in zip(t.core_xyxy, (t.x, t.y, t.x, t.y), strict=True)
        )).scores)
        for t in seen.tiles[0]
    )  # fmt: skip
    assert len(found.scores) == expected > 0
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert found.masks.shape == (expected, *size)
    for mask in found.masks[:50]:
        ys, xs = mask.nonzero(as_tuple=True)
        if len(ys):
            assert int(ys.max() - ys.min()) < 64
            assert int(xs.max() - xs.min()) < 64


def test_masks_are_drawn_alike_by_tile_and_whole(network: SOLOv2) -> None:
    """An image that is as large as its input goes another way than one that isn't."""
    batch, size = images(96, 160), (96, 160)
    seen = forward_tiled(network, batch, [size], TILE)
    by_tile = predict(seen, 0, FINDING, Sizes(size, size, size))
    whole = predict(seen, 0, FINDING, Sizes(size, size, (192, 320)))
    assert torch.equal(by_tile.scores, whole.scores)
    shrunk = whole.masks[:, ::2, ::2]
    for found in (by_tile, whole):
        tight, real = mask_boxes(found.masks), found.masks.flatten(1).any(1)
        assert (found.boxes_xyxy[real, :2] <= tight[real, :2]).all()
        assert (found.boxes_xyxy[real, 2:] >= tight[real, 2:]).all()
    # Edges differ by resampling, insides don't.
    assert (by_tile.masks != shrunk).float().mean() < 0.1


@pytest.mark.parametrize("tile", [None, TILE])
def test_a_click_that_is_nowhere_is_refused(network: SOLOv2, tile: TileConfig | None) -> None:
    seen = forward_tiled(network, images(96, 160), [(96, 160)], tile)
    with pytest.raises(ValueError, match="finite"):
        prompt(seen, 0, torch.tensor([[5.0, 5.0], [math.nan, 3.0]]), torch.tensor([0, 0]), (96, 160), CLICKS)


def test_further_clicks_in_other_tiles(network: SOLOv2) -> None:
    """The mask is the greater of both tiles', as if each had the first click; other objects stay as they are."""
    seen = forward_tiled(network, images(64, 160), [(64, 160)], TILE)
    assert isinstance(seen, Tiled) and len(seen.tiles[0]) > 2
    points, labels = torch.tensor([[20.0, 30.0], [20.0, 30.0]]), torch.tensor([0, 0])
    further = FurtherClicks(
        torch.tensor([[[150.0, 30.0], [120.0, 40.0]], [[0.0, 0.0], [0.0, 0.0]]]),
        torch.tensor([[ON, OFF], [NO_POINT, NO_POINT]]),
    )
    size = (64, 160)
    found = prompt(seen, 0, points, labels, size, CLICKS, further)
    first = prompt(seen, 0, points[:1], labels[:1], size, CLICKS)
    off = FurtherClicks(further.points_xy[:1, 1:], further.labels[:1, 1:])
    other = prompt(seen, 0, further.points_xy[:1, 0], labels[:1], size, CLICKS, off)
    scaled = other.mask_prob * (first.cut / other.cut)
    assert torch.allclose(found.mask_prob[0], torch.maximum(first.mask_prob, scaled)[0], atol=1e-6)
    assert not torch.equal(found.mask_prob[0], first.mask_prob[0])
    assert torch.equal(found.mask_prob[1], first.mask_prob[0])
    assert found.cut[0] == first.cut[0]


@pytest.mark.parametrize(("most", "scores", "labels"), [(1, [0.9], [2]), (2, [0.9, 0.8], [2, 1])])
def test_the_best_of_all_tiles_are_joined(most: int, scores: list[float], labels: list[int]) -> None:
    """Up to `most` in the whole image, each pasted at its tile's place."""
    tiles = [Tile(0, 0, 0, (0, 0, 32, 64)), Tile(1, 32, 0, (32, 0, 96, 64))]
    found = [
        Candidates(torch.tensor([0.8, 0.1]), torch.tensor([1, 0]), torch.full((2, 16, 16), 0.7)),
        Candidates(torch.tensor([0.9]), torch.tensor([2]), torch.full((1, 16, 16), 0.6)),
    ]
    best, source, local = joined(found, tiles, most, 4, (64, 96))
    assert best.scores.tolist() == pytest.approx(scores) and best.labels.tolist() == labels
    assert source.tolist() == [1, 0][:most] and local.shape == (most, 16, 16)
    assert best.probabilities.shape == (most, 16, 24)
    assert (best.probabilities[0, :, :8] == 0).all() and (best.probabilities[0, :, 8:] == 0.6).all()
    assert tiles[1].own_core_xyxy == (0, 0, 64, 64)
