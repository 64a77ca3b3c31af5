from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from data.points import IMPORTERS, SNIFFED, PointFile, importer_for, read_points
from data.points.folder import read_folder
from tests.data.points.formats import (
    test_imagej,
    test_label_studio_csv,
    test_other_tools,
    test_tables,
    test_yolo_pose,
)


def write(path: Path, *points: tuple[float, float]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": n, "image_id": 1, "category_id": 1, "point": list(xy)} for n, xy in enumerate(points)]
    path.write_text(json.dumps({"images": [], "categories": [], "annotations": rows}))
    return path


def test_files_and_folders_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "in" / "deep" / "a.json", (1, 1))
    write(tmp_path / "in" / "c.json", (3, 3))
    single = write(tmp_path / "b.json", (2, 2), (2, 3))
    records = read_points([str(single), str(tmp_path / "in")])
    assert [(r.source_file, r.x) for r in records] == [
        ("b.json", 2), ("b.json", 2), ("c.json", 3), ("deep/a.json", 1),
    ]  # fmt: skip
    assert read_points(str(tmp_path / "in"), "coco") == [records[2], records[3]]


def test_all_faulty_files_are_reported_together(tmp_path: Path) -> None:
    write(tmp_path / "x" / "same.json", (1, 1))
    write(tmp_path / "y" / "same.json", (2, 2))
    (tmp_path / "none").mkdir()
    (tmp_path / "notes.txt").write_text("dear diary")
    paths = [str(tmp_path / name) for name in ("x", "y", "none", "notes.txt", "absent.json")]
    with pytest.raises(DataError) as caught:
        read_points(paths)
    assert {(Path(fault.file).name, fault.found) for fault in caught.value.faults} == {
        ("same.json", f"the same name as {tmp_path}/x/same.json"),
        ("none", "no file"),
        ("notes.txt", "text that begins with 'dear diary': content of no known format"),
        ("absent.json", "no such file"),
    }
    assert "move it out of the folder" in str(caught.value)


MIXED: dict[str, str | bytes | Any] = {
    "a.roi": test_imagej.roi([[3, 4]]),
    "b/RoiSet.zip": test_imagej.archive(**{"1.roi": test_imagej.roi([[3, 4]])}),
    "Results.csv": test_imagej.RESULTS,
    "CellCounter.xml": test_imagej.markers(("bolt", [(3, 4, 1)])),
    "c.geojson": test_other_tools.QUPATH,
    "survey.pnt": test_other_tools.goose(**{"a.png": {"bolt": [{"x": 3, "y": 4}]}}),
    "classifications.csv": test_other_tools.export({"annotations": [], "subject_data": {}}),
    "napari.csv": test_other_tools.NAPARI,
    "studio.csv": test_label_studio_csv.CSV,
    "studio.tsv": test_label_studio_csv.tabs(test_label_studio_csv.CSV),
    "labels/a.txt": test_yolo_pose.LABELS["labels/a.txt"],
    "data.yaml": test_yolo_pose.YAML,
    "points.parquet": test_tables.parquet(x=[1], y=[2]),
    "table.csv": "image;x;y\na.png;1,5;2\n",
}
"""Files by name; with what is no text or bytes as JSON."""


def test_each_file_of_a_mixed_folder_is_read_by_its_own_reader(tmp_path: Path) -> None:
    for name, content in MIXED.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_folder(tmp_path, "auto", SNIFFED)
    assert not found.faults
    assert {file.name: (file.format, file.records) for file in found.files} == {
        "a.roi": ("imagej_roi", 1), "b/RoiSet.zip": ("imagej_roi", 1), "Results.csv": ("imagej_results", 2),
        "CellCounter.xml": ("cell_counter", 1), "c.geojson": ("geojson", 5), "survey.pnt": ("dotdotgoose", 1),
        "classifications.csv": ("zooniverse", 0), "napari.csv": ("csv", 3), "studio.csv": ("label_studio_csv", 4),
        "studio.tsv": ("label_studio_csv", 4), "labels/a.txt": ("yolo_pose", 2), "data.yaml": ("yolo_pose", 0),
        "points.parquet": ("parquet", 1), "table.csv": ("csv", 1),
    }  # fmt: skip


def test_lines_of_json_are_no_broken_json(tmp_path: Path) -> None:
    (tmp_path / "tasks.ndjson").write_text('{"id": 1}\n{"id": 2}\n')
    with pytest.raises(DataError, match=r"a JSON value on each line \(NDJSON\): content of no known format"):
        importer_for(PointFile(tmp_path / "tasks.ndjson"))


def test_unknown_formats_name_the_known_ones(tmp_path: Path) -> None:
    file = PointFile(write(tmp_path / "a.json"))
    assert importer_for(file) is importer_for(file, "coco") is IMPORTERS["coco"]
    with pytest.raises(
        DataError,
        match="auto, cell_counter, coco, csv, cvat, dotdotgoose, geojson, imagej_results, imagej_roi, label_studio, "
        "label_studio_csv, labelme, parquet, via, via3, via_csv, yolo_pose, zooniverse",
    ):
        importer_for(file, "cooc")
