from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.masks.rle import area, decode, encode
from data.tables import INSTANCES, POINTS, PSEUDO, Split, write_split
from tasks.common.config import Params, StudentConfig
from tasks.common.errors import TaskError
from tasks.training.student_labels import disc, with_pseudo_masks

SIDE = 64


def square(x: int, y: int, side: int) -> bytes:
    mask = np.zeros((SIDE, SIDE), dtype=np.bool_)
    mask[y : y + side, x : x + side] = True
    return encode(mask)


@pytest.fixture
def splits(
    line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Split, Split, StudentConfig]:
    """The weak split, a strong one whose second class has masks of 36, 36 and 100 pixels and whose third has none,
    and the student's config."""
    folder, params = line
    monkeypatch.chdir(folder)
    weak, strong = (Split.open(Path("workspace/dataset") / name) for name in ("weak", "strong"))
    empty = dict.fromkeys(INSTANCES.names)
    category = weak.categories[1].id
    rows = [
        {**empty, "image_id": strong.images["image_id"][0].as_py(), "category_id": category, "iscrowd": crowd}
        | {"instance_id": k, "bbox_xywh": [0, 0, side, side], "area": side * side, "source": "annotator"}
        | {"rle_counts": square(0, 0, side)}
        for k, (side, crowd) in enumerate([(6, False), (6, False), (10, False), (60, True)])
    ]
    table = pa.Table.from_pylist(rows, schema=INSTANCES)
    write_split(tmp_path / "strong", strong.images, table, strong.categories, strong.image_root)
    return weak, Split.open(tmp_path / "strong"), params.student


def labels(weak: Split) -> tuple[pa.Table, pa.Table]:
    """Points and hand-made pseudo labels on the first three weak images: ok, rough, empty, failed, and a weak ok."""
    ids, category = weak.images["image_id"].to_pylist(), [c.id for c in weak.categories]
    small, large = square(2, 2, 4), square(2, 2, 10)
    rows: list[dict[str, Any]] = [
        {"image_id": ids[0], "status": "ok", "score": 0.9, "rough_rle": small, "refined_rle": large},
        {"image_id": ids[0], "status": "rough", "score": 0.8, "rough_rle": small},
        {"image_id": ids[1], "status": "empty", "score": 0.0},
        {"image_id": ids[1], "status": "failed"},
        {"image_id": ids[2], "status": "ok", "score": 0.1, "rough_rle": small, "refined_rle": large},
        {"image_id": ids[2], "status": "ok", "score": 0.05, "rough_rle": square(30, 30, 3), "refined_rle": large},
        {"image_id": ids[2], "status": "empty", "score": 0.0, "category_id": category[2]},
    ]  # fmt: skip
    places = [(4, 4), (3, 3), (20, 20), (50, 50), (4, 4), (40.5, 40.5), (64, 10)]
    named = [{"category_id": category[1], **row, "point_id": f"{k:016x}"} for k, row in enumerate(rows)]
    points = [
        {**dict.fromkeys(POINTS.names), "x": x, "y": y}
        | {key: row[key] for key in ("point_id", "image_id", "category_id")}
        for row, (x, y) in zip(named, places, strict=True)
    ]
    pseudo = [{**dict.fromkeys(PSEUDO.names), **row} for row in named]
    return pa.Table.from_pylist(points, schema=POINTS), pa.Table.from_pylist(pseudo, schema=PSEUDO)


def made(
    splits: tuple[Split, Split, StudentConfig], folder: Path, **changes: Any
) -> tuple[Split, list[dict]]:
    weak, strong, config = splits
    points, pseudo = labels(weak)
    split = with_pseudo_masks(weak, strong, points, pseudo, config.model_copy(update=changes), folder)
    return split, split.instances.to_pylist()


@pytest.mark.parametrize("unusable", ["ignore", "background"])
@pytest.mark.parametrize(
    ("changes", "areas", "images"),
    [
        ({"masks": "refined", "min_score": 0.0}, [100, 16, 100, 100], [0, 2]),
        ({"masks": "rough", "min_score": 0.0}, [16, 16, 16, 9], [0, 2]),
        ({"masks": "refined", "min_score": 0.07}, [100, 16, 100], [0, 2]),
        ({"masks": "refined", "min_score": 0.5}, [100, 16], [0]),
        ({"masks": "refined", "min_score": 0.95}, [], []),
    ],
)
def test_which_pseudo_masks_are_learnt(
    splits: tuple[Split, Split, StudentConfig],
    tmp_path: Path,
    changes: dict[str, Any],
    areas: list[int],
    images: list[int],
    unusable: str,
) -> None:
    labelled, rows = made(splits, tmp_path / "made", unusable=unusable, **changes)
    ids = splits[0].images["image_id"].to_pylist()
    assert labelled.images["image_id"].to_pylist() == [ids[i] for i in images]
    assert sorted(row["area"] for row in rows if not row["iscrowd"]) == sorted(areas)
    assert labelled.instances.schema.names == INSTANCES.names
    assert {row["source"] for row in rows} <= {"pseudo"}
    assert all(row["area"] == area(row["rle_counts"], SIDE, SIDE) for row in rows)


@pytest.mark.parametrize(("min_score", "learnt"), [(0.624, 2), (0.625, 2), (0.626, 1), (0.75, 1), (0.751, 0)])
def test_a_score_of_just_min_score_is_enough(
    splits: tuple[Split, Split, StudentConfig], tmp_path: Path, min_score: float, learnt: int
) -> None:
    weak, strong, config = splits
    points, pseudo = labels(weak)
    scores = pa.array([0.625, 0.75, 0.0, None, 0.1, 0.05, 0.0], pa.float32())
    pseudo = pseudo.set_column(pseudo.schema.get_field_index("score"), "score", scores)
    config = config.model_copy(update={"min_score": min_score, "unusable": "background"})
    split = with_pseudo_masks(weak, strong, points, pseudo, config, tmp_path / "made")
    assert len(split.instances) == learnt


@pytest.mark.parametrize(
    ("weight_by_score", "expected"),
    [("both", [0.9, 0.8, 0.1, 0.05]), ("mask", [0.9, 0.8, 0.1, 0.05]), ("none", [1] * 4)],
)
def test_weights(
    splits: tuple[Split, Split, StudentConfig], tmp_path: Path, weight_by_score: str, expected: list[float]
) -> None:
    _, rows = made(splits, tmp_path / "made", weight_by_score=weight_by_score, min_score=0.0)
    assert [row["score"] for row in rows if not row["iscrowd"]] == pytest.approx(expected)


def test_clicks_go_with_the_masks_made_from_them(
    splits: tuple[Split, Split, StudentConfig], tmp_path: Path
) -> None:
    _, plain = made(splits, tmp_path / "plain", unusable="ignore", min_score=0.07)
    _, rows = made(splits, tmp_path / "made", unusable="ignore", min_score=0.07, classes_from="click")
    assert [(row["point_x"], row["point_y"]) for row in rows] == [(4, 4), (3, 3), (4, 4), *[(None, None)] * 2]
    assert [row["iscrowd"] for row in rows] == [False] * 3 + [True] * 2
    names = INSTANCES.names
    assert [[row[name] for name in names] for row in rows] == [[row[name] for name in names] for row in plain]


def test_around_points_without_a_usable_mask_nothing_is_taught(
    splits: tuple[Split, Split, StudentConfig], tmp_path: Path
) -> None:
    _, rows = made(splits, tmp_path / "made", unusable="ignore", min_score=0.07)
    ignored = [row for row in rows if row["iscrowd"]]
    # Points 2 and 3 lie on an image that has no usable mask at all: it is left out.
    assert [row["image_id"] for row in ignored] == [splits[0].images["image_id"][2].as_py()] * 2
    low, empty = (decode(row["rle_counts"], SIDE, SIDE) for row in ignored)
    radius = math.sqrt(36 / math.pi)  # of the median of 36, 36 and 100; the crowd doesn't count
    assert low[30:33, 30:33].all(), "its rough mask"
    assert low[40, 40] and low[40, 40 + int(radius)] and not low[40, 42 + int(radius)]
    assert low.sum() == 9 + disc((40.5, 40.5), radius, SIDE, SIDE).sum()
    assert np.array_equal(empty, disc((64, 10), radius, SIDE, SIDE)), (
        "a class without masks takes the median class"
    )
    _, rows = made(splits, tmp_path / "other", unusable="background", min_score=0.07)
    assert not any(row["iscrowd"] for row in rows)


def test_without_any_strong_mask_the_points_own_pixel_is_ignored(
    splits: tuple[Split, Split, StudentConfig], tmp_path: Path
) -> None:
    weak, strong, config = splits
    write_split(
        tmp_path / "bare", strong.images, INSTANCES.empty_table(), strong.categories, strong.image_root
    )
    _, rows = made((weak, Split.open(tmp_path / "bare"), config), tmp_path / "made", unusable="ignore")
    assert [row["area"] for row in rows if row["iscrowd"]] == [1]


@pytest.mark.parametrize(
    ("changes", "known", "unknown"),
    [
        ({"unusable": "ignore"}, 6, r"of 1 points .* \(0{15}6\)"),
        (
            {"unusable": "background", "classes_from": "click"},
            1,
            r"of 3 points .* \(0{15}1, 0{15}4, 0{15}5\)",
        ),
    ],
)
def test_pseudo_labels_of_other_points_are_refused(
    splits: tuple[Split, Split, StudentConfig],
    tmp_path: Path,
    changes: dict[str, str],
    known: int,
    unknown: str,
) -> None:
    weak, strong, config = splits
    points, pseudo = labels(weak)
    config = config.model_copy(update={"min_score": 0.0, **changes})
    with pytest.raises(TaskError, match=unknown):
        with_pseudo_masks(weak, strong, points[:known], pseudo, config, tmp_path / "made")


@given(st.floats(-3, 40), st.floats(-3, 30), st.floats(0, 12))
def test_a_disc_is_round_and_holds_its_centre(x: float, y: float, radius: float) -> None:
    held = disc((x, y), radius, 24, 32)
    cx, cy = min(max(x, 0), 32), min(max(y, 0), 24)
    assert held[min(int(cy), 23), min(int(cx), 31)]
    far = [math.hypot(c + 0.5 - cx, r + 0.5 - cy) for r, c in zip(*held.nonzero(), strict=True)]
    assert max(far) <= max(radius, 0.75)
    if 12 <= x <= 20 and 12 <= y <= 12.5:
        assert held.sum() == pytest.approx(math.pi * radius**2, abs=1 + 6 * radius)
