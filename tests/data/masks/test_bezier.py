from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.masks import bezier, polygons, rle

SQUARE = [[1.0, 1.0], [5.0, 1.0], [5.0, 5.0], [1.0, 5.0]]
KAPPA = 4 / 3 * (np.sqrt(2) - 1)  # a quarter circle as a cubic curve, to 3 parts in 10,000


def circle(x: float, y: float, radius: float) -> dict[str, Any]:
    """A circle of four curves; the last one closes to the first point."""
    k = KAPPA * radius
    vertices = [
        [x + radius, y], [x + radius, y + k], [x + k, y + radius],
        [x, y + radius], [x - k, y + radius], [x - radius, y + k],
        [x - radius, y], [x - radius, y - k], [x - k, y - radius],
        [x, y - radius], [x + k, y - radius], [x + radius, y - k],
    ]  # fmt: skip
    return {"vertices": vertices, "types": "LCC" * 4, "closed": True}


def test_straight_edges_are_kept_as_they_are() -> None:
    part = {"vertices": SQUARE, "types": "LLLL", "closed": True}
    assert bezier.polygons([part, part], 8, 8) == [[1, 1, 5, 1, 5, 5, 1, 5]] * 2
    assert bezier.polygons([{"vertices": SQUARE}], 8, 8) == [[1, 1, 5, 1, 5, 5, 1, 5]]


def test_a_circle_of_curves_is_a_circle() -> None:
    flat = bezier.polygons([circle(50, 40, 30)], 100, 100)
    points = np.asarray(flat[0]).reshape(-1, 2)
    radii = np.hypot(points[:, 0] - 50, points[:, 1] - 40)
    assert np.abs(radii - 30).max() < 0.02
    drawn = rle.decode(polygons.from_polygons(flat, 100, 100), 100, 100)
    rows, columns = np.mgrid[:100, :100] + 0.5
    disc = np.hypot(columns - 50, rows - 40) < 30
    assert (drawn ^ disc).sum() < 0.02 * disc.sum()
    # Drawn through its control points it would be a square with its corners cut: the curves matter.
    straight = circle(50, 40, 30) | {"types": "L" * 12}
    rough = rle.area(polygons.from_polygons(bezier.polygons([straight], 100, 100), 100, 100), 100, 100)
    assert rough > 1.05 * disc.sum()


curve = hnp.arrays(np.float64, (4, 2), elements=st.floats(-100, 200))


@given(curve)
def test_chords_are_near_the_curve(points: np.ndarray) -> None:
    t = np.linspace(0, 1, 1001)[:, None]
    exact = (
        (1 - t) ** 3 * points[0]
        + 3 * (1 - t) ** 2 * t * points[1]
        + 3 * (1 - t) * t**2 * points[2]
        + t**3 * points[3]
    )
    chain = bezier.flatten(points, "LCCL")
    assert np.allclose(chain[[0, -1]], points[[0, 3]])
    begin, step = chain[:-1], np.diff(chain, axis=0)
    length = np.maximum((step**2).sum(axis=1), 1e-12)
    along = np.clip((((exact[:, None] - begin) * step).sum(axis=2)) / length, 0, 1)
    gaps = np.linalg.norm(begin + along[..., None] * step - exact[:, None], axis=2).min(axis=1)
    assert gaps.max() <= bezier.TOLERANCE * 1.01
    assert len(chain) <= bezier.MAX_SEGMENTS + 1


def test_the_outline_of_2018_is_read() -> None:
    rows = [[*point, "L"] for point in SQUARE]
    assert bezier.polygons(rows, 8, 8) == [[1, 1, 5, 1, 5, 5, 1, 5]]


@pytest.mark.parametrize(
    ("poly2d", "found"),
    [
        ([], "no outline"),
        ("LLL", "no outline"),
        ([3], "outline 0 without a list of vertices"),
        ([{"types": "LLL"}], "outline 0 without a list of vertices"),
        ([{"vertices": SQUARE, "types": "LLLL", "closed": False}], "closed False: a line"),
        ([{"vertices": SQUARE, "types": "LLL"}], "4 vertices and 3 types"),
        ([{"vertices": SQUARE, "types": 7}], "types 7"),
        ([{"vertices": SQUARE, "types": "LLCL"}], "types 'LLCL'"),
        ([{"vertices": SQUARE, "types": "CCLL"}], "types 'CCLL'"),
        ([{"vertices": [*SQUARE, [0, 0]], "types": "LCCCL"}], "types 'LCCCL'"),
        ([{"vertices": SQUARE, "types": "llll"}], "types 'llll'"),
        ([{"vertices": SQUARE[:2], "types": "LL"}], "2 vertices, not 3"),
        ([{"vertices": [], "types": ""}], "outline 0 with"),
        ([{"vertices": [[1, 2], [3], [4, 5]]}], "not two finite numbers"),
        ([{"vertices": [[1, 2, 3]] * 3}], "not two finite numbers"),
        ([{"vertices": [["1", "2"]] * 3}], "not two finite numbers"),
        ([{"vertices": [[1, float("nan")]] * 3}], "not two finite numbers"),
        ([{"vertices": [[1, 10**400]] * 3}], "not two finite numbers"),
        ([{"vertices": [[1, 25], [2, 2], [3, 3]]}], "far outside the 8 x 8 image"),
        ([[1, 2, "L"], [1, 2]], "not [x, y, 'L' or 'C']"),
        ([[1, 2, "M"]] * 3, "not [x, y, 'L' or 'C']"),
    ],
)
def test_what_is_no_outline_is_refused(poly2d: Any, found: str) -> None:
    with pytest.raises(ValueError, match=r"outline|poly2d") as caught:
        bezier.polygons(poly2d, 8, 8)
    assert found in str(caught.value)


def test_curves_can_not_take_all_memory() -> None:
    vertices = [[0, 0], [8000, 0], [0, 8000]] * 20_000
    with pytest.raises(ValueError, match="points when drawn, more than"):
        bezier.polygons([{"vertices": vertices, "types": "LCC" * 20_000}], 8000, 8000)


def test_bdd100ks_own_masks_agree(shared_dir: Path) -> None:
    """Their tool's drawing takes in each pixel that the outline touches, ours those whose centre is within."""
    path = shared_dir / "fixtures/bdd100k/scalabel_seg_track_100_frames.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    curved: list[float] = []
    straight: list[float] = []
    for frame in json.loads(path.read_text())[::4]:
        for label in frame["labels"]:
            theirs = polygons.from_segmentation(label["rle"], 720, 1280)
            if rle.area(theirs, 720, 1280) < 5000:
                continue
            has_curve = any("C" in part["types"] for part in label["poly2d"])
            ours = polygons.from_polygons(bezier.polygons(label["poly2d"], 720, 1280), 720, 1280)
            (curved if has_curve else straight).append(
                float(rle.iou_matrix([theirs], [ours], 720, 1280)[0, 0])
            )
    assert len(curved) > 20
    assert np.mean(curved) > 0.97
    assert min(curved + straight) > 0.94
