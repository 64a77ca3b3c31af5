from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.demo.clicks import CLICK_KINDS, ClickKind, click_record, click_rng, draw_click, random_inner_point
from data.masks import rle

any_mask = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30))


def click(
    mask: np.ndarray, kind: ClickKind, jitter: float = 0.2, seed: int = 0
) -> tuple[float, float] | None:
    return draw_click(rle.encode(mask), mask.shape[0], kind, jitter, np.random.default_rng(seed))


@settings(max_examples=300)
@given(any_mask, st.sampled_from(CLICK_KINDS), st.floats(0, 3), st.integers(0, 5))
def test_every_click_is_on_its_mask(mask: np.ndarray, kind: ClickKind, jitter: float, seed: int) -> None:
    point = click(mask, kind, jitter, seed)
    if not mask.any():
        assert point is None
        return
    assert point is not None
    x, y = click_record({"id": 1, "image_id": 1, "category_id": 1}, *point)["point"]
    assert mask[int(y), int(x)]
    assert 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0]
    if kind == "random":
        assert (x % 1, y % 1) == (0.5, 0.5)


@given(any_mask)
def test_the_centre_is_the_mass_centre_or_the_pixel_nearest_to_it(mask: np.ndarray) -> None:
    point = click(mask, "centre")
    if point is None:
        return
    rows, columns = np.nonzero(mask)
    x, y = columns.mean() + 0.5, rows.mean() + 0.5
    if mask[int(y), int(x)]:
        assert point == pytest.approx((x, y))
    else:
        least = np.hypot(columns + 0.5 - x, rows + 0.5 - y).min()
        assert np.hypot(point[0] - x, point[1] - y) == pytest.approx(least)


def test_the_centre_of_a_c_is_moved_onto_it() -> None:
    c = np.ones((9, 9), dtype=bool)
    c[2:7, 2:] = False
    assert not c[4, 4]
    x, y = click(c, "centre") or (0, 0)
    assert c[int(y), int(x)]


@pytest.mark.parametrize("kind", CLICK_KINDS)
def test_a_single_pixel_has_one_place_to_click(kind: ClickKind) -> None:
    mask = np.zeros((7, 9), dtype=bool)
    mask[6, 8] = True
    x, y = click(mask, kind) or (0, 0)
    assert (int(x), int(y)) == (8, 6)


def test_random_clicks_reach_every_pixel_alike() -> None:
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:3, 2:7] = mask[4, 0] = True
    rng = np.random.default_rng(0)
    counts = np.zeros(mask.shape, dtype=int)
    for _ in range(3300):
        x, y = draw_click(rle.encode(mask), 6, "random", 0.0, rng) or (0, 0)
        counts[int(y), int(x)] += 1
    assert (counts[~mask] == 0).all()
    assert (np.abs(counts[mask] - 300) < 75).all()  # more than four deviations


def test_jitter_is_a_share_of_the_objects_size() -> None:
    mask = np.zeros((200, 300), dtype=bool)
    mask[50:150, 50:250] = True  # size sqrt(100 * 200) = 141.4
    rng = np.random.default_rng(0)
    points = np.array([draw_click(rle.encode(mask), 200, "jittered", 0.05, rng) for _ in range(400)])
    assert points.mean(0) == pytest.approx([150, 100], abs=1.5)
    assert points.std(0) == pytest.approx([7.07, 7.07], rel=0.12)
    assert click(mask, "jittered", jitter=0.0) == pytest.approx(click(mask, "centre"))


def test_a_thin_object_s_clicks_are_jittered_along_it() -> None:
    """A line of one pixel's width has a size too: the root of 1 x 100."""
    mask = np.zeros((9, 200), dtype=bool)
    mask[4, 50:150] = True
    points = np.array([click(mask, "jittered", 0.3, seed) for seed in range(300)])
    assert (np.floor(points[:, 1]) == 4).all()
    assert points[:, 0].std() == pytest.approx(0.3 * 10, rel=0.25)


def test_one_objects_click_depends_on_seed_and_object() -> None:
    assert click_rng(3, 7).random() == click_rng(3, 7).random()
    assert len({click_rng(seed, at).random() for seed in range(3) for at in (-1, 0, 1)}) == 9


def test_a_record_stays_in_its_pixel() -> None:
    annotation = {"id": 5, "image_id": 2, "category_id": 3, "area": 9}
    found = click_record(annotation, 1.9999999, 0.0004)
    assert found == {"id": 5, "image_id": 2, "category_id": 3, "point": [1.999, 0.0]}


@given(any_mask, st.integers(0, 2**32 - 1))
def test_random_points_are_on_the_object(mask: np.ndarray, seed: int) -> None:
    if not mask.any():
        with pytest.raises(ValueError, match="empty"):
            random_inner_point(mask, np.random.default_rng(seed))
        return
    x, y = random_inner_point(mask, np.random.default_rng(seed))
    assert mask[int(y), int(x)]
    assert (x, y) == random_inner_point(mask, np.random.default_rng(seed))


def test_random_points_reach_the_whole_object_evenly() -> None:
    mask = np.zeros((4, 6), dtype=bool)
    mask[1, 2] = mask[3, 5] = mask[0, 0] = mask[2, 2] = True
    rng = np.random.default_rng(0)
    xy = np.asarray([random_inner_point(mask, rng) for _ in range(4000)])
    hits = np.zeros(mask.shape)
    np.add.at(hits, (xy[:, 1].astype(int), xy[:, 0].astype(int)), 1)
    assert hits[mask] == pytest.approx(np.full(4, 1000), abs=120)
    assert (xy % 1).mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.02)
