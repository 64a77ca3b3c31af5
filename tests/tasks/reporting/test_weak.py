"""Weak images of the report: their figures by hand, with and without masks that were kept aside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.tables import POINTS, read_parquet, write_parquet
from tasks.reporting.gallery import hex_colour
from tasks.reporting.weak import WeakImage, WeakImages, pseudo_gallery
from tests.tasks.reporting.scene import clicks, split, square, thing

MASK = square(2, 2, 10)


def click(point: str, image: int, score: float | None, status: str = "ok") -> dict[str, Any]:
    row = {"point_id": point, "image_id": image, "category_id": 1, "status": status, "score": score}
    return row | (
        {"rough_rle": MASK, "refined_rle": MASK} if score is not None else {"reason": "nothing there"}
    )


ROWS = [click("a", 7, 0.5), click("b", 7, None, "empty"), click("c", 3, 0.125), click("d", 9, 0.75)]


def weak(root: Path, quality: list[dict[str, Any]]) -> WeakImages:
    split(root, "weak", [3, 7, 8, 9], [])  # no click on image 8
    split(root, "kept_aside", [7], [thing(70, 7, 1, 2, 2, 10), thing(71, 7, 2, 30, 30, 9)])
    return WeakImages(clicks(root, ROWS, quality))


def test_points_without_a_score_count_as_0_and_images_without_clicks_are_left_out(tmp_path: Path) -> None:
    assert weak(tmp_path, []).images == [
        WeakImage(3, 1, 1, 0.125, 0.125, None),
        WeakImage(7, 2, 1, 0.25, 0.0, None),
        WeakImage(9, 1, 1, 0.75, 0.75, None),
    ]


def test_without_kept_aside_masks_the_score_ranks(tmp_path: Path) -> None:
    gallery = pseudo_gallery(weak(tmp_path, []), 5)
    assert [row.name for row in gallery.rows] == ["9.png", "7.png", "3.png"]
    assert [row.rank for row in gallery.rows] == ["best, rank 1 of 3", "rank 2 of 3", "worst, rank 3 of 3"]
    assert gallery.rows[0].facts == ["1 click"]
    assert gallery.rows[1].facts == ["2 clicks", "1 without a mask"]
    assert [caption for caption, _ in gallery.rows[1].panels] == ["clicks", "rough", "refined"]


def test_a_click_s_masks_and_its_true_mask_have_its_colour(tmp_path: Path) -> None:
    quality = [
        {"point_id": "a", "image_id": 7, "instance_id": 70, "rough_iou": 1.0, "refined_iou": 0.5},
        {"point_id": "b", "image_id": 7, "instance_id": None, "rough_iou": 0.0, "refined_iou": 0.0},
    ]
    images = weak(tmp_path, quality)
    assert [one.iou for one in images.images] == [None, 25.0, None]
    (row,) = pseudo_gallery(images, 5).rows  # images 3 and 9 aren't measured
    assert row.facts == ["2 clicks", "1 without a mask", "mean IoU 50.0 rough, 25.0 refined"]
    panels = dict(row.panels)
    first, second, third = (hex_colour(n) for n in range(3))
    assert f'fill="{first}"' in panels["clicks"] and f'fill="{second}"' in panels["clicks"]
    for name in ("rough", "refined"):
        assert f'fill="{first}"' in panels[name] and second not in panels[name]
        assert 'class="cross"' in panels[name]
    assert f'fill="{first}"' in panels["true masks"]  # of object 70
    assert third not in panels["true masks"] and f'fill="{hex_colour(3)}"' in panels["true masks"]
    assert "disc: refined, score 0.50, IoU 0.50" in panels["refined"]


def test_further_clicks_have_their_object_s_colour(tmp_path: Path) -> None:
    images = weak(tmp_path, [])
    path = tmp_path / "workspace/points/points.parquet"
    rows = read_parquet(path, POINTS).to_pylist()
    places = [(20.5, 3.5, True), (22.5, 3.5, False)]
    rows[0]["further"] = [{"x": x, "y": y, "inside": inside} for x, y, inside in places]
    before = dict(images.rows([images.images[1]])[0].panels)["clicks"]
    write_parquet(pa.Table.from_pylist(rows, schema=POINTS), path)
    panel = dict(WeakImages(tmp_path / "workspace").rows([images.images[1]])[0].panels)["clicks"]
    count = [text.count(f'fill="{hex_colour(0)}"') for text in (before, panel)]
    assert count[1] == count[0] + 1
    assert "inside the object" in panel and "outside the object" in panel
    assert panel.count('class="cross"') == before.count('class="cross"') + 1


def test_no_clicks_at_all(tmp_path: Path) -> None:
    split(tmp_path, "weak", [3], [])
    split(tmp_path, "kept_aside", [], [])
    images = WeakImages(clicks(tmp_path, [], []))
    assert images.images == [] and pseudo_gallery(images, 5).rows == [] and not images.measured


def test_a_page_s_row(tmp_path: Path) -> None:
    images = weak(tmp_path, [])
    low, middle, _ = images.page_rows(images.images, 320)
    assert low.facts == ["id 3", "1 click", "score 0.12"]
    assert middle.facts == ["id 7", "2 clicks", "1 without a mask", "score 0.25"]
    ((caption, picture),) = middle.panels
    assert caption == "masks" and picture.count('class="mask"') == picture.count('class="click"') == 1
    assert picture.count('class="cross"') == 1


@pytest.mark.parametrize("longest", [640, 40])
def test_masks_are_in_the_image_s_pixels_however_small_they_are_decoded(tmp_path: Path, longest: int) -> None:
    images = weak(tmp_path, [])
    ((_, picture),) = images.page_rows(images.images, longest)[0].panels
    assert 'viewBox="0 0 80 60"' in picture
    (path,) = re.findall(r' d="(M.*?)"', picture)
    numbers = [float(number) for number in re.findall(r"[\d.]+", path)]
    assert min(numbers) == pytest.approx(2, abs=0.3) and max(numbers) == pytest.approx(12, abs=0.3)
