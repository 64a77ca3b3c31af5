"""Facts of a drawn data set, counted by hand from its annotations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.schemas import POINTS
from data.tables import Split, read_parquet
from tasks.common.config import Params
from tasks.planning.facts import FAR, _distances, data_facts


def test_a_drawn_set(line: tuple[Path, Params]) -> None:
    workspace = line[0] / "workspace"
    splits = {
        name: Split.open(workspace / "dataset" / name) for name in ("strong", "weak", "val", "kept_aside")
    }
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    facts = data_facts(splits, points)
    strong = json.loads((workspace / "demo/dataset/annotations/strong.json").read_text())
    names = {one["id"]: one["name"] for one in strong["categories"]}
    assert (facts.strong, facts.weak, facts.val) == (6, 14, 6)
    assert facts.kept_aside == facts.clicks_per_image.sum()  # the demo clicks each of the hidden masks
    assert sum(facts.masks.values()) == len(strong["annotations"]) == len(facts.object_sizes)
    for id, name in names.items():
        assert facts.masks[name] == sum(one["category_id"] == id for one in strong["annotations"])
    assert sum(facts.clicks.values()) == len(points)
    assert sorted(facts.object_sizes) == pytest.approx(
        sorted(one["area"] ** 0.5 for one in strong["annotations"])
    )
    assert sorted(facts.object_lengths) == pytest.approx(
        sorted(max(one["bbox"][2:]) for one in strong["annotations"])
    )
    assert set(facts.short_sides) == {64.0} and len(facts.short_sides) == 20
    np.testing.assert_allclose(facts.object_shares, facts.object_sizes / 64)
    assert facts.unlike_share == len(facts.unlike_images) / 14


def test_weak_images_of_other_colours() -> None:
    strong = np.array([[50.0, 128, 128], [60, 128, 128]])
    weak = np.array(
        [[55.0, 128, 128], [60 + FAR + 1, 128, 128], [60 + FAR - 1, 128, 128], [60, 128, 128 + FAR + 1]]
    )
    assert (_distances(strong, weak) > FAR).tolist() == [False, True, False, True]
    assert _distances(strong[:0], weak).tolist() == [0.0] * 4 and _distances(strong, weak[:0]).tolist() == []
