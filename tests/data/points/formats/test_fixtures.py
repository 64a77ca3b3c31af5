"""Files that CVAT and Label Studio wrote, with counts that were taken by hand (by looking at the files)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data.points import SNIFFED, PointFile, PointRecord, importer_for
from data.points.record import Unit

# file: (format, points, set aside by reason, records by class, images, units)
BY_HAND = {
    # 19 images with one <points> element of 5 coordinates each: 95, all "estop", of one job.
    "cvat/job_points_5_per_element.xml": ("cvat", 95, {}, {"estop": 95}, 19, 19),
    # Two images: one with a box and a polyline, one with a polygon and <points> of 3 coordinates. No task id: no units.
    "cvat/datumaro_for_images_export_task_train.xml": (
        "cvat", 3, {"not_a_point": 3}, {"label1": 1, "label2": 3, None: 2}, 2, 0,
    ),
    # The same two images in each of three subsets.
    "cvat/datumaro_for_images_export_project_annotations.xml": (
        "cvat", 9, {"not_a_point": 9}, {"label1": 6, "label2": 12}, 6, 6,
    ),
    # Track 0: three boxes; track 1: <points> of 3 coordinates in frame 10 and outside in frame 13; track 2: two
    # polylines. The frames are 10, 13 and 16.
    "cvat/datumaro_for_video_annotations.xml": (
        "cvat", 3, {"not_a_point": 5, "outside_frame": 1}, {"II": 5, "klhg": 4}, 3, 1,
    ),
    # One task: three keypoints, one rectangle, five relations (which are no regions).
    "label_studio/keypoints.json": (
        "label_studio", 3, {"not_a_point": 1}, {"nose": 1, "left_eye": 1, "right_eye": 1, None: 1}, 1, 1,
    ),
    # One task: a rectangle, a polygon, two keypoints.
    "label_studio/keypoint_rectangle_polygon.json": (
        "label_studio", 2, {"not_a_point": 2}, {"keypoint_label1": 1, "keypoint_label2": 1, None: 2}, 1, 1,
    ),
}  # fmt: skip


def read(path: Path) -> tuple[str, list[PointRecord], int]:
    file = PointFile(path)
    importer = importer_for(file)
    items = list(importer.read(file, SNIFFED))
    return (
        importer.name,
        [i for i in items if isinstance(i, PointRecord)],
        sum(isinstance(i, Unit) for i in items),
    )


@pytest.mark.parametrize("name", BY_HAND)
def test_counts_by_hand(shared_dir: Path, name: str) -> None:
    importer, records, units = read(shared_dir / "fixtures" / name)
    aside = Counter(record.problem.reason for record in records if record.problem)
    found = (
        importer,
        sum(record.problem is None for record in records),
        dict(aside),
        dict(Counter(record.category for record in records)),
        len({record.image for record in records}),
        units,
    )
    assert found == BY_HAND[name]


def test_no_fixture_is_left_out(shared_dir: Path) -> None:
    folders = [shared_dir / "fixtures" / name for name in ("cvat", "label_studio")]
    files = {f"{path.parent.name}/{path.name}" for folder in folders for path in folder.iterdir()}
    # Label Studio's labelling configs are no point files.
    assert {name for name in files if not name.endswith("_config.xml")} == set(BY_HAND)


def test_places_by_hand(shared_dir: Path) -> None:
    _, records, _ = read(shared_dir / "fixtures/cvat/job_points_5_per_element.xml")
    last = records[-1]  # "508.20,27.00" of the last image
    assert (last.image, last.x, last.y, last.size) == (
        "Clipped_image_20231015_123848.png", 508.2, 27.0, (1036, 1256),
    )  # fmt: skip
    _, records, _ = read(shared_dir / "fixtures/cvat/datumaro_for_video_annotations.xml")
    points = [(record.image, record.x, record.y) for record in records if record.problem is None]
    assert points == [
        ("frame_000010", 21.95, 8.0),
        ("frame_000010", 2.55, 15.09),
        ("frame_000010", 2.23, 3.16),
    ]
    _, records, _ = read(shared_dir / "fixtures/label_studio/keypoints.json")
    nose = records[0]  # 64.444...% of 216, 39.2907...% of 174
    assert (nose.x, nose.y) == pytest.approx((139.2, 68.3660), abs=1e-4)
    assert (nose.image, nose.also, nose.annotator) == (
        "data/upload/18/image1.jpg", ("image1.jpg",), "annotator@example.test",
    )  # fmt: skip
