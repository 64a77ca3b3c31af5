"""Images of more points than masks fit into memory: the same rows as all points at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

import tasks.labelling.compute as module
from data.tables import POINTS, Split, write_parquet
from models.refiner.crops import Refined
from tasks.common.config import Params
from tasks.labelling.rows import TAKEN
from tasks.pseudo_label import run
from tasks.train_student import read_pseudo
from tests.tasks.test_pseudo_label import image_counts, place

__all__ = ["place"]

POINTS_ON = (23, 3, 1)
"""Of three images; several lie on the same object, some in the same pixel."""


def crowd(workspace: Path, further: bool = False) -> None:
    weak = Split.open(workspace / "dataset" / "weak")
    categories = [category.id for category in weak.categories]
    rng = np.random.default_rng(0)
    rows = [
        {
            "point_id": f"{rng.integers(2**60):016x}", "image_id": image_id,
            "category_id": categories[int(rng.integers(2))],
            "x": float(rng.integers(0, 40)) + 0.5 * (n % 2), "y": float(rng.integers(0, 40)),
            "further": [{"x": 50.0, "y": 9.5 + n, "inside": n % 4 > 0}] * (n % 3) if further and n % 3 else None,
        }
        for image_id, count in zip(weak.images["image_id"].to_pylist(), POINTS_ON, strict=False)
        for n in range(count)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=POINTS).sort_by(
        [("image_id", "ascending"), ("point_id", "ascending")]
    )
    write_parquet(table, workspace / "points" / "points.parquet")


def corner(
    _: Any, image: Tensor, masks: Tensor, points_xy: Tensor, *__: Any, selected: Tensor, **___: Any
) -> Refined:
    """In place of `refine`: each mask becomes the lower right corner; its probability grows with its click's x."""
    drawn = masks.flatten(1).any(1) & selected
    refined = masks.clone()
    refined[drawn] = False
    refined[drawn, 50:, 50:] = True
    probabilities = (0.5 + points_xy[:, 0] / 200)[:, None, None].expand(-1, 4, 4)
    return Refined(refined, ~drawn, probabilities, torch.tensor([0.0, 0, 64, 64]).expand(len(masks), 4))


@pytest.mark.parametrize(
    ("exclusive", "refiner", "further"),
    [
        ("same_class", None, False),
        ("same_class", None, True),
        ("all", None, False),
        ("none", None, False),
        ("same_class", corner, False),
        ("all", corner, False),
    ],
)
def test_in_chunks_as_at_once(
    place: tuple[Path, Params],
    monkeypatch: pytest.MonkeyPatch,
    exclusive: str,
    refiner: Callable[..., Refined] | None,
    further: bool,
) -> None:
    if refiner is not None:
        monkeypatch.setattr("models.refiner.refine.refine", refiner)
        monkeypatch.setattr("tasks.labelling.crowded.refine", refiner)
    workspace, params = place
    prompt = params.prompt.model_copy(update={"exclusive": exclusive, "mask_threshold": 0.3})
    params = params.model_copy(update={"prompt": prompt})
    crowd(workspace, further)
    run(params, workspace)
    expected = read_pseudo(workspace / "pseudo")
    assert sum(code is not None for code in expected["refined_rle"].to_pylist()) > 2
    if refiner is corner:  # the pixels of the corner go to one mask of a group
        assert expected["reason"].to_pylist().count(f"refined, {TAKEN}") > 1
    for at_once in (4, 1):
        monkeypatch.setattr(module, "MASK_PIXELS", at_once * 64 * 64)
        shutil.rmtree(workspace / "runs" / "pseudo_label")
        run(params, workspace)
        assert image_counts(workspace)["computed"] == len(POINTS_ON)
        found = read_pseudo(workspace / "pseudo")
        same = ("point_id", "status", "reason", "level", "rough_rle", "contains_point")
        for name in same:
            assert found[name].to_pylist() == expected[name].to_pylist(), (at_once, name)
        # Another number of crops at a time may round otherwise, and so turn a pixel at the threshold.
        pairs = zip(found["area"].to_pylist(), expected["area"].to_pylist(), strict=True)
        assert all(one == other or abs(one - other) <= 1 for one, other in pairs)
        for name in ("class_score", "maskness", "score"):
            values = [[value or 0.0 for value in table[name].to_pylist()] for table in (found, expected)]
            assert values[0] == pytest.approx(values[1], abs=1e-5)
