"""YOLO pose: labels that Ultralytics' converter writes from COCO keypoints; fractions become pixels of the images."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import DataError
from data.points import SNIFFED, importer_for
from data.points.file import PointFile
from data.points.folder import read_folder
from data.points.merge import resolve
from data.tables import Split

# Written by ultralytics 8.4.190 (convert_coco with use_keypoints): keypoints (6, 6) and (25.5, 9) of an image of
# 40 x 24 pixels, and (3, 2) of one of 8 x 8.
LABELS = {
    "labels/a.txt": "0 0.15 0.25 0.2 0.333333 0.15 0.25 2\n1 0.625 0.375 0.25 0.416667 0.6375 0.375 1\n",
    "labels/night/c.txt": "0 0.375 0.375 0.5 0.5 0.375 0.25 2\n",
}
YAML = (
    "path: .\ntrain: images\nval: images\nkpt_shape: [1, 3]\nflip_idx: [0]\nnames:\n  0: bolt\n  1: washer\n"
)


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_folder_of_labels(tmp_path: Path, weak: Split) -> None:
    root = put(tmp_path / "in", {**LABELS, "data.yaml": YAML, "labels/day/b.txt": ""})
    found = read_folder(root, "auto", SNIFFED, weak=weak)
    assert not found.faults and {file.format for file in found.files} == {"yolo_pose"}
    kept, rejected = resolve(found.records, weak, scale=(3.0, 3.0))  # the scale is not that of shares
    assert not len(rejected)
    rows = zip(*(kept[name].to_pylist() for name in ("image_id", "category_id", "x", "y")), strict=True)
    assert sorted((i, c, round(x, 4), round(y, 4)) for i, c, x, y in rows) == [
        (1, 5, 6.0, 6.0), (1, 9, 25.5, 9.0), (4, 5, 3.0, 2.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("yaml", "row", "expected"),
    [
        ("names: [bolt]\nkpt_shape: [1, 2]\n", "0 .5 .5 .1 .1 .25 .75", (0.25, 0.75)),
        ("names: [bolt]\nkpt_shape: [3, 3]\n", "0 .5 .5 .1 .1 0 0 0 .25 .75 1 .1 .1 0", (0.25, 0.75)),
        ("names: [bolt]\nkpt_shape: [2, 2]\n", "0 .5 .5 .1 .1 0 0 .25 .75", (0.25, 0.75)),
        ("names: [bolt]\nkpt_shape: [2, 3]\n", "0 .5 .5 .1 .1 .2 .2 1 .25 .75 1", "bad_point"),
        ("names: [bolt]\nkpt_shape: [1, 3]\n", "0 .5 .5 .1 .1 .2 .2 0", "bad_point"),
        ("names: [bolt]\nkpt_shape: [1, 3]\n", "0 .5 .5 .1 .1 .2 .2", "bad_record"),
        ("names: [bolt]\nkpt_shape: [1, 3]\n", "0 .5 .5 .1 .1 .2 .2 2 0.9", "bad_record"),
        ("names: [bolt]\nkpt_shape: [1, 3]\n", "7 .5 .5 .1 .1 .2 .2 2", "unknown_category"),
    ],
)
def test_one_visible_keypoint(tmp_path: Path, yaml: str, row: str, expected: object) -> None:
    root = put(tmp_path / "in", {"a.txt": f"{row}\n", "data.yaml": yaml})
    (record,) = read_folder(root, "auto", SNIFFED).records
    assert (record.problem.reason if record.problem else (record.x, record.y)) == expected
    assert (record.image, record.category) == (
        "a",
        None if expected in ("unknown_category", "bad_record") else "bolt",
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": "0 .5 .5 .1 .1\n1 .2 .2 .1 .1\n"}, "2 rows of YOLO boxes without a data.yaml"),
        (
            {"a.txt": "0 .1 .1 .2 .1 .2 .2 .1 .2\n"},
            "1 rows of YOLO polygons, or keypoints, without a data.yaml",
        ),
        (
            {"a.txt": "0 .5 .5 .1 .1 .2 .2 2\n", "data.yaml": "names: [bolt]\ntrain: x\n"},
            "without a data.yaml",
        ),
        ({"data.yaml": "names: [bolt]\nkpt_shape: 17\n"}, "kpt_shape 17"),
        ({"data.yaml": "names: bolt\nkpt_shape: [1, 3]\n"}, "names 'bolt'"),
        ({"data.yaml": "names: {a: bolt}\nkpt_shape: [1, 3]\n"}, "names {'a': 'bolt'}"),
        ({"data.yaml": "names: [a\nkpt_shape: [1, 3]\n"}, "unreadable (line 2"),
        (
            {"a.txt": "0 .5 .5 .1 .1 .2 .2 2\n", "pose.yml": "names: 3\nkpt_shape: [1, 3]\n"},
            "pose.yml: names 3",
        ),
    ],
)
def test_labels_without_what_they_need(tmp_path: Path, files: dict[str, str], message: str) -> None:
    found = read_folder(put(tmp_path / "in", files), "auto", SNIFFED)
    assert any(message in fault.found for fault in found.faults), found.faults
    assert not found.records


def test_the_nearest_yaml_counts_and_none_outside_of_the_folder(tmp_path: Path) -> None:
    root = put(tmp_path, {
        "data.yaml": "names: [outside]\nkpt_shape: [1, 3]\n",
        "in/data.yaml": "names: [far]\nkpt_shape: [1, 3]\n", "in/x/pose.yaml": "names: [near]\nkpt_shape: [1, 3]\n",
        "in/x/a.txt": "0 .5 .5 .1 .1 .2 .2 2\n", "in/y/b.txt": "0 .5 .5 .1 .1 .3 .2 2\n",
    }) / "in"  # fmt: skip
    assert [record.category for record in read_folder(root, "auto", SNIFFED).records] == ["near", "far"]
    (root / "data.yaml").write_text("names: [changed]\nkpt_shape: [1, 3]\n")
    assert [record.category for record in read_folder(root, "auto", SNIFFED).records] == ["near", "changed"]
    (root / "data.yaml").unlink()
    (fault,) = read_folder(root, "auto", SNIFFED).faults
    assert Path(fault.file).name == "b.txt"


@pytest.mark.parametrize("text", ["dear diary\n", "1 2\n3 4\n", "0.5 .5 .5 .1 .1\n", "", "a: 1\n"])
def test_other_texts_are_no_labels(tmp_path: Path, text: str) -> None:
    path = put(tmp_path, {"notes.txt": text}) / "notes.txt"
    with pytest.raises(DataError, match="content of no known format"):
        importer_for(PointFile(path))
