from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.errors import DataError
from data.points import IMPORTERS, PointFile, importer_for, read_points


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


def test_unknown_formats_name_the_known_ones(tmp_path: Path) -> None:
    file = PointFile(write(tmp_path / "a.json"))
    assert importer_for(file) is importer_for(file, "coco") is IMPORTERS["coco"]
    with pytest.raises(
        DataError,
        match="auto, cell_counter, coco, csv, cvat, dotdotgoose, geojson, imagej_results, imagej_roi, label_studio, "
        "label_studio_csv, labelme, parquet, via, via3, via_csv, yolo_pose, zooniverse",
    ):
        importer_for(file, "cooc")
