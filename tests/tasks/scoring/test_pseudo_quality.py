"""Points against kept-aside masks: which mask a point is compared with, and what counts as 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.masks import rle as masks
from data.tables import IMAGES, INSTANCES, POINTS, PSEUDO, Category, Split
from tasks.scoring.pseudo_quality import by_group, point_quality, size_group, summarise

Box = tuple[int, int, int, int]  # x, y, width, height
HEIGHT, WIDTH = 24, 32
BOUNDS = (5.0, 12.0)
DISC, RING = 3, 8


def box_mask(box: Box) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    x, y, width, height = box
    mask[y : y + height, x : x + width] = True
    return mask


def rle(box: Box | None) -> bytes | None:
    return None if box is None else masks.encode(box_mask(box))


def split_of(instances: list[tuple[Box, int, bool]], image_ids: tuple[int, ...] = (1,)) -> Split:
    """Images of HEIGHT x WIDTH; instances (box, category, crowd), numbered from 100, all on image 1."""
    images = [
        {"image_id": id, "file_name": "a", "uri": "a", "width": WIDTH, "height": HEIGHT, "status": "ok"}
        for id in image_ids
    ]
    rows = [
        {
            "instance_id": 100 + i,
            "image_id": 1,
            "category_id": category_id,
            "bbox_xywh": list(box),
            "area": 1.0,  # wrong on purpose: sizes come from the masks
            "iscrowd": crowd,
            "rle_counts": rle(box),
        }
        for i, (box, category_id, crowd) in enumerate(instances)
    ]
    return Split(
        Path(),
        pa.Table.from_pylist(images, IMAGES),
        pa.Table.from_pylist(rows, INSTANCES),
        [Category(DISC, "disc"), Category(RING, "ring")],
        "",
    )


def measure(
    points: list[tuple[float, float, int]], rough: list[Box | None], refined: list[Box | None], truth: Split
) -> list[dict[str, Any]]:
    """The quality rows of points (x, y, category) on image 1 with their boxes as pseudo masks."""
    rows = [
        {"point_id": f"p{i}", "image_id": 1, "category_id": category_id, "x": x, "y": y}
        for i, (x, y, category_id) in enumerate(points)
    ]
    pseudo = [
        {
            "point_id": row["point_id"],
            "image_id": 1,
            "category_id": row["category_id"],
            "status": "empty" if a is None else "rough" if b is None else "ok",
            "rough_rle": rle(a),
            "refined_rle": rle(b),
        }
        for row, a, b in zip(rows, rough, refined, strict=True)
    ]
    table = point_quality(
        pa.Table.from_pylist(pseudo, PSEUDO), pa.Table.from_pylist(rows, POINTS), truth, BOUNDS
    )
    return table.to_pylist()


LARGE, SMALL = (0, 0, 20, 20), (4, 4, 4, 4)


@pytest.mark.parametrize(
    ("point", "instances", "matched"),
    [
        pytest.param((6.0, 6.0, DISC), [(LARGE, DISC, False), (SMALL, DISC, False)], 101, id="smallest"),
        pytest.param((6.0, 6.0, DISC), [(LARGE, DISC, False), (SMALL, RING, False)], 100, id="of its class"),
        pytest.param((15.0, 2.0, DISC), [(LARGE, DISC, False), (SMALL, DISC, False)], 100, id="only one"),
        pytest.param((25.0, 2.0, DISC), [(LARGE, DISC, False)], None, id="beside all masks"),
        pytest.param((6.0, 6.0, DISC), [(SMALL, DISC, True)], None, id="crowds match no point"),
        pytest.param((6.0, 6.0, DISC), [], None, id="an image without masks"),
        pytest.param((4.0, 4.0, DISC), [(SMALL, DISC, False)], 100, id="the pixel's outer corner"),
        pytest.param((3.99, 4.0, DISC), [(SMALL, DISC, False)], None, id="just beside it"),
        pytest.param((7.99, 7.99, DISC), [(SMALL, DISC, False)], 100, id="the last pixel's inner corner"),
        pytest.param((8.0, 7.0, DISC), [(SMALL, DISC, False)], None, id="just past it"),
        pytest.param((32.0, 24.0, DISC), [((28, 20, 4, 4), DISC, False)], 100, id="the image's far corner"),
    ],
)
def test_match(
    point: tuple[float, float, int], instances: list[tuple[Box, int, bool]], matched: int | None
) -> None:
    everywhere = (0, 0, WIDTH, HEIGHT)
    [row] = measure([point], [everywhere], [everywhere], split_of(instances))
    assert row["instance_id"] == matched
    assert (row["refined_iou"] > 0) == (matched is not None)
    assert (row["size"] is None) == (row["true_area"] is None) == (matched is None)


def test_figures_of_rough_refined_kept_and_missing_masks() -> None:
    truth = split_of([((0, 0, 10, 10), DISC, False), ((20, 0, 4, 4), RING, False)])
    rows = measure(
        [(5, 5, DISC), (6, 6, DISC), (21, 1, RING), (30, 20, RING)],
        rough=[(0, 0, 10, 5), (0, 0, 10, 8), None, (28, 18, 4, 4)],
        refined=[(0, 0, 10, 10), None, None, (28, 18, 4, 4)],
        truth=truth,
    )
    assert [row["rough_iou"] for row in rows] == pytest.approx([0.5, 0.8, 0, 0])
    # Where refining came out empty the rough mask is what training gets.
    assert [row["refined_iou"] for row in rows] == pytest.approx([1, 0.8, 0, 0])
    assert [row["size"] for row in rows] == ["medium", "medium", "small", None]
    assert [row["true_area"] for row in rows] == [100, 100, 16, None]
    assert [row["category"] for row in rows] == ["disc", "disc", "ring", "ring"]
    table = pa.Table.from_pylist(rows)
    assert summarise(table) == {
        "points": 4,
        "rough_iou": 32.5,
        "rough_over_50": 50.0,  # 0.5 itself counts
        "rough_over_75": 25.0,
        "refined_iou": 45.0,
        "refined_over_50": 50.0,
        "refined_over_75": 50.0,
    }
    by_size = by_group(table, "size", ["small", "medium", "large"])
    assert {name: group["points"] for name, group in by_size.items()} == {"small": 1, "medium": 2, "large": 0}
    assert by_size["large"]["refined_iou"] is None
    assert by_group(table, "category", ["disc"])["disc"]["refined_iou"] == pytest.approx(90)


def test_only_images_with_kept_aside_masks_are_measured_and_order_is_kept() -> None:
    truth = split_of([(LARGE, DISC, False)], image_ids=(1, 5))
    pseudo = [
        {"point_id": p, "image_id": i, "category_id": DISC, "status": "ok", "rough_rle": rle(LARGE)}
        for p, i in (("c", 5), ("a", 1), ("x", 9), ("b", 1))
    ]
    points = [{"point_id": row["point_id"], "image_id": row["image_id"], "x": 3, "y": 3} for row in pseudo]
    table = point_quality(
        pa.Table.from_pylist(pseudo, PSEUDO), pa.Table.from_pylist(points, POINTS), truth, BOUNDS
    )
    assert table["point_id"].to_pylist() == ["c", "a", "b"]
    assert table["refined_iou"].to_pylist() == [0, 1, 1]


def test_nothing_to_measure() -> None:
    table = point_quality(PSEUDO.empty_table(), POINTS.empty_table(), split_of([]), BOUNDS)
    assert summarise(table)["points"] == 0
    assert summarise(table)["refined_iou"] is None
    assert summarise(table)["refined_over_50"] is None


@pytest.mark.parametrize(
    ("area", "size"), [(1, "small"), (24.9, "small"), (25, "medium"), (143, "medium"), (144, "large")]
)
def test_size_group(area: float, size: str) -> None:
    assert size_group(area, BOUNDS) == size


boxes = st.tuples(st.integers(0, 25), st.integers(0, 18), st.integers(1, 30), st.integers(1, 20))


@given(
    truth=st.lists(boxes, max_size=5),
    pseudo=boxes,
    x=st.floats(0, WIDTH - 0.01),
    y=st.floats(0, HEIGHT - 0.01),
)
def test_agrees_with_arrays(truth: list[Box], pseudo: Box, x: float, y: float) -> None:
    """The run-length arithmetic gives what decoded masks give."""
    [row] = measure([(x, y, DISC)], [pseudo], [pseudo], split_of([(box, DISC, False) for box in truth]))
    x, y = float(np.float32(x)), float(np.float32(y))  # as the points table holds them
    arrays = [box_mask(box) for box in truth]
    hit = [i for i, mask in enumerate(arrays) if mask[min(int(y), HEIGHT - 1), min(int(x), WIDTH - 1)]]
    if not hit:
        assert row["instance_id"] is None
        return
    best = min(hit, key=lambda i: (arrays[i].sum(), i))
    found = box_mask(pseudo)
    iou = (found & arrays[best]).sum() / (found | arrays[best]).sum()
    assert row["instance_id"] == 100 + best
    assert row["refined_iou"] == pytest.approx(iou, abs=1e-6)
