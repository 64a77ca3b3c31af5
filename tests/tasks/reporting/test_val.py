"""False alarms and misses of the student on squares: kinds, reasons, ids, order and crops, by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tasks.common.config import ReportConfig
from tasks.reporting.val import ValImages, val_gallery
from tests.tasks.reporting.scene import found, predictions, split, thing

CONFIG = ReportConfig(title="t", gallery_images=5, score_threshold=None, page_images=9)
TRUE = [
    thing(11, 1, 1, 0, 0, 20),
    thing(12, 1, 2, 40, 0, 20),
    thing(13, 1, 1, 0, 35, 20),
    thing(21, 2, 1, 10, 10, 10),
]
FOUND = [
    found(1, 1, 0.95, 0, 0, 20),  # 0: object 11, exactly
    found(1, 1, 0.90, 1, 1, 19),  # 1: object 11 again
    found(1, 1, 0.85, 40, 0, 20),  # 2: object 12, as the other class
    found(1, 1, 0.80, 10, 35, 20),  # 3: IoU 200 / 600 with object 13
    found(1, 2, 0.70, 60, 40, 15),  # 4: nothing there
    found(1, 1, 0.49, 0, 35, 20),  # 5: object 13, below the threshold
    found(3, 1, 0.99, 5, 5, 10),  # 6: an image without objects
]


def val(root: Path, **changed: Any) -> ValImages:
    split(root, "val", [1, 2, 3, 4], TRUE)
    return ValImages(predictions(root, FOUND), CONFIG.model_copy(update=changed))


def test_errors_have_kinds_reasons_and_ids(tmp_path: Path) -> None:
    errors = [(e.kind, e.image_id, e.id, e.category, e.score, e.why) for e in val(tmp_path).errors()]
    assert errors == [
        ("false alarm", 3, 6, "disc", 0.99, "no object there"),
        ("false alarm", 1, 1, "disc", 0.90, "a second detection of object 11"),
        ("false alarm", 1, 2, "disc", 0.85, "object 12 is of class bar"),
        ("false alarm", 1, 3, "disc", 0.80, "IoU 0.33 with object 13 (disc)"),
        ("false alarm", 1, 4, "bar", 0.70, "no object there"),
        ("missed", 1, 12, "bar", None, "IoU 1.00 with detection 2 (disc)"),
        ("missed", 1, 13, "disc", None, "IoU 0.33 with detection 3 (disc)"),
        ("missed", 2, 21, "disc", None, "no detection there"),
    ]


def test_counts_by_class(tmp_path: Path) -> None:
    rows = [
        (row.name, row.objects, row.found, row.missed, row.false_alarms) for row in val(tmp_path).counts()
    ]
    assert rows == [("all", 4, 1, 3, 5), ("disc", 3, 1, 2, 4), ("bar", 1, 0, 1, 1)]
    whole, _, bar = val(tmp_path).counts()
    assert (whole.precision, whole.recall) == (pytest.approx(100 / 6), 25.0)
    assert (bar.precision, bar.recall) == (0.0, 0.0)


def test_worst_images_first(tmp_path: Path) -> None:
    """F1 0 on images 2 and 3, with an error each; on image 1 it is 2 / 8; image 4 has nothing, and nothing is found."""
    images = val(tmp_path)
    assert images.worst() == [2, 3, 1, 4]
    assert [row.facts for row in images.page_rows([1, 4], 320)] == [
        ["id 1", "3 objects", "2 missed", "4 false alarms"],
        ["id 4", "0 objects", "0 missed", "0 false alarms"],
    ]


@pytest.mark.parametrize(
    ("min_score", "threshold", "used"), [(0.5, None, 0.5), (0.5, 0.2, 0.2), (None, None, 0.3)]
)
def test_the_threshold(tmp_path: Path, min_score: float | None, threshold: float | None, used: float) -> None:
    split(tmp_path, "val", [1, 2, 3, 4], TRUE)
    workspace = predictions(tmp_path, FOUND, min_score)
    images = ValImages(workspace, CONFIG.model_copy(update={"score_threshold": threshold}))
    assert images.min_scores == {"student": used, "teacher": used}
    assert len(images.student[1].detections) == (5 if used == 0.5 else 6)


def test_a_found_object_has_the_colour_of_its_detection(tmp_path: Path) -> None:
    images = val(tmp_path)
    row = val_gallery(images, 5).rows[0]
    panels = dict(row.panels)
    (colour,) = re.findall(r'class="mask" fill="(#\w+)"', panels["student"])
    assert f'fill="{colour}"' in panels["true masks"]
    assert panels["student"].count('class="wrong"') == 4 and panels["student"].count('class="miss"') == 2
    assert panels["teacher"].count('class="miss"') == 3 and 'class="mask"' not in panels["teacher"]
    assert "bar, missed, object 12" in panels["student"]
    assert "disc, false alarm, score 0.85, detection 2" in panels["student"]


def test_a_crop_is_a_square_in_the_image_around_the_error(tmp_path: Path) -> None:
    """A box of 20 px at 40, 0 of 80 x 60: the side is 28 + 48, more than the height."""
    images = val(tmp_path)
    errors = [error for error in images.errors() if error.id in (12, 4)]
    wrong, missed = images.crops(errors)
    assert wrong.name == "bar 0.70" and missed.name == "bar"
    assert missed.facts == ["IoU 1.00 with detection 2 (disc)", "object 12", "1.png, id 1"]
    ((_, picture),) = missed.panels
    assert 'viewBox="4 0 76 60"' in picture
    assert picture.count('class="miss"') == 1 and picture.count('class="wrong"') == 1
    assert '<image id="missed-1" x="4" y="0" width="76" height="60"' in missed.definition
    ((_, picture),) = wrong.panels
    assert picture.count('class="wrong"') == 1 and 'class="miss"' not in picture


def test_images_that_are_gone_leave_a_fault(tmp_path: Path) -> None:
    images = val(tmp_path)
    (tmp_path / "images/1.png").unlink()
    (row,) = images.crops(images.errors()[1:2])
    assert row.fault is not None and "no such file" in row.fault and not row.definition
    assert images.page_rows([1], 320)[0].fault is not None
