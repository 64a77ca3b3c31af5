from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.masks import owners
from models.masks.exclusive import settle
from models.masks.owners import Owners
from tests.models.masks.test_exclusive import SIZE, scene


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), chunk=st.integers(1, 9), rounded=st.booleans())
def test_by_chunks_as_all_at_once(seed: int, count: int, chunk: int, rounded: bool) -> None:
    masks, maps, points = scene(seed, count)
    if rounded:  # so that many are equally sure, and equally near
        maps = maps._replace(probabilities=torch.full_like(maps.probabilities, 0.5))
        points = points.floor()
    expected = settle(masks, maps.at, points, torch.zeros(count, dtype=torch.long))
    found = Owners(SIZE, torch.device("cpu"))
    parts = [slice(at, at + chunk) for at in range(0, count, chunk)]
    rows = torch.arange(count)
    for part in parts:
        mine = maps._replace(probabilities=maps.probabilities[part], boxes_xyxy=maps.boxes_xyxy[part])
        found.claim(masks[part], rows[part], mine.at, points[part])
    owned = torch.cat([found.owned(masks[part], rows[part]) for part in parts])
    assert torch.equal(owned, expected)


def test_a_chunk_of_many_pixels_is_looked_at_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    masks, maps, points = scene(3, 8)
    whole, pieces = (Owners(SIZE, torch.device("cpu")) for _ in range(2))
    whole.claim(masks, torch.arange(8), maps.at, points)
    monkeypatch.setattr(owners, "CHUNK_ELEMENTS", 1)
    pieces.claim(masks, torch.arange(8), maps.at, points)
    assert torch.equal(whole.owned(masks, torch.arange(8)), pieces.owned(masks, torch.arange(8)))
