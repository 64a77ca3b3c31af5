from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.tables import POINTS, REJECTED, DataError, Split, read_parquet, write_parquet, write_split
from tasks.common.config import Params
from tasks.import_points import run
from tasks.intake.rejected import REJECTED_IMAGES
from tests.conftest import Bucket


@pytest.fixture
def place(
    line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Params, dict[str, Any]]:
    """A copy of the line's data set, the params, and the content of its point file."""
    folder, params = line
    shutil.copytree(folder / "workspace" / "dataset", tmp_path / "workspace" / "dataset")
    shutil.copytree(folder / "workspace" / "demo" / "points", tmp_path / "workspace" / "demo" / "points")
    monkeypatch.chdir(tmp_path)
    content = json.loads((tmp_path / "workspace/demo/points/clicks.json").read_text())
    return Path("workspace"), params, content


def rewrite(content: dict[str, Any]) -> None:
    Path("workspace/demo/points/clicks.json").write_text(json.dumps(content), encoding="utf-8")


def test_all_points_come_in(place: tuple[Path, Params, dict[str, Any]]) -> None:
    workspace, params, content = place
    run(params, workspace)
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    found = sorted(zip(points["image_id"].to_pylist(), points["category_id"].to_pylist(), strict=True))
    assert found == sorted((row["image_id"], row["category_id"]) for row in content["annotations"])
    assert len(set(points["point_id"].to_pylist())) == len(points)


def test_further_clicks_come_in_and_are_counted(
    place: tuple[Path, Params, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    workspace, params, content = place
    row = content["annotations"][0]
    xy = row.pop("point")
    row |= {"point_coords": [xy, [1.5, 2.5], [3.5, 4.5]], "point_labels": [1, 0, 1]}
    rewrite(content)
    with caplog.at_level(logging.INFO):
        run(params, workspace)
    points = read_parquet(workspace / "points" / "points.parquet", POINTS).to_pylist()
    assert len(points) == len(content["annotations"])
    (found,) = [one["further"] for one in points if one["further"]]
    assert found == [{"x": 3.5, "y": 4.5, "inside": True}, {"x": 1.5, "y": 2.5, "inside": False}]
    counts = json.loads((workspace / "points" / "manifest.json").read_text())["counts"]
    assert (counts["further_inside"], counts["further_outside"]) == (1, 1)
    assert "with 1 further clicks inside their objects and 1 outside" in caplog.text


def test_clicks_that_contradict_stop_the_step(place: tuple[Path, Params, dict[str, Any]]) -> None:
    workspace, params, content = place
    rows = content["annotations"]
    for row in rows[:2]:
        row |= {"point_coords": [row.pop("point"), [1.5, 2.5]], "point_labels": [0, 0]}
    rows[2] |= {"point_coords": [rows[2].pop("point"), [64.5, 3.0]]}
    rewrite(content)
    with pytest.raises(DataError) as caught:
        run(params, workspace)
    text = str(caught.value)
    assert len(caught.value.faults) == 3
    assert "2 records, the first: annotation" in text and "no usable one inside (no_click_inside)" in text
    assert "give it the object of a click inside" in text and "(outside_image)" in text


def test_bad_points_stop_the_step_and_all_are_listed(place: tuple[Path, Params, dict[str, Any]]) -> None:
    workspace, params, content = place
    rows = content["annotations"]
    rows[0]["point"] = [64.5, 3.0]
    rows[1]["category_id"] = 77
    rows[2]["image_id"] = 10**6
    rewrite(content)
    with pytest.raises(DataError) as caught:
        run(params, workspace)
    text = str(caught.value)
    assert len(caught.value.faults) == 3
    assert all(word in text for word in ("outside_image", "unknown_category", "unknown_image", "clicks.json"))
    assert "points.on_reject: report" in text
    assert not (workspace / "points").exists()


def test_bad_points_can_be_reported_instead(place: tuple[Path, Params, dict[str, Any]]) -> None:
    workspace, params, content = place
    content["annotations"][0]["point"] = [-0.5, 3.0]
    rewrite(content)
    run(
        params.model_copy(update={"points": params.points.model_copy(update={"on_reject": "report"})}),
        workspace,
    )
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    rejected = read_parquet(workspace / "points" / "rejected.parquet", REJECTED)
    assert len(points) == len(content["annotations"]) - 1
    assert rejected["reason"].to_pylist() == ["outside_image"]
    manifest = json.loads((workspace / "points" / "manifest.json").read_text())
    assert manifest["counts"]["rejected"] == 1
    assert manifest["rejected_because"] == {"outside_image": 1}


def test_importing_twice_gives_the_same_bytes(place: tuple[Path, Params, dict[str, Any]]) -> None:
    workspace, params, _ = place
    run(params, workspace)
    first = {path.name: path.read_bytes() for path in (workspace / "points").iterdir()}
    run(params, workspace)
    assert first == {path.name: path.read_bytes() for path in (workspace / "points").iterdir()}


def test_point_files_in_s3_give_the_same_points(
    place: tuple[Path, Params, dict[str, Any]], bucket: Bucket
) -> None:
    workspace, params, _ = place
    run(params, workspace)
    first = {path.name: path.read_bytes() for path in (workspace / "points").iterdir()}
    bucket.fill({"june/clicks.json": Path("workspace/demo/points/clicks.json").read_bytes()})
    points = params.points.model_copy(update={"files": f"s3://{bucket.name}/june"})
    run(params.model_copy(update={"points": points}), workspace)
    assert first == {path.name: path.read_bytes() for path in (workspace / "points").iterdir()}


def changed(params: Params, **section: Any) -> Params:
    return params.model_copy(update={"points": params.points.model_copy(update=section)})


def test_boxes_beside_points_do_not_stop_the_step(
    place: tuple[Path, Params, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    workspace, params, _ = place
    weak = Split.open(workspace / "dataset" / "weak").image(0)
    shapes = [
        {"label": "box", "shape_type": "rectangle", "points": [[1, 1], [2, 2]]},
        {"label": "Apple!", "shape_type": "point", "points": [[1.25, 1.5]]},
        {"label": "dirt", "shape_type": "point", "points": [[9.25, 9.5]]},
    ]
    document = {"imagePath": weak["file_name"], "imageWidth": weak["width"], "shapes": shapes}
    Path("workspace/demo/points/one.json").write_text(json.dumps(document))
    Path("workspace/demo/points/classes.yaml").write_text("Apple!: apple\ndirt:\n")
    with caplog.at_level(logging.INFO):
        run(changed(params, classes="classes.yaml"), workspace)
    assert "0 rejected, 2 left out (ignored class 1, not a point 1)" in caplog.messages[-1]
    manifest = json.loads((workspace / "points" / "manifest.json").read_text())
    assert manifest["counts"]["set_aside"] == 2 and manifest["counts"]["rejected"] == 0
    assert manifest["rejected_because"] == {"ignored_class": 1, "not_a_point": 1}
    assert manifest["files"]["one.json"] == {"format": "labelme", "records": 3}
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    assert "shape #1" in points["source_record"].to_pylist()


def test_the_same_file_twice_gives_the_same_points(place: tuple[Path, Params, dict[str, Any]]) -> None:
    workspace, params, _ = place
    run(params, workspace)
    before = (workspace / "points" / "points.parquet").read_bytes()
    shutil.copy("workspace/demo/points/clicks.json", "workspace/demo/points/again.json.json")
    run(params, workspace)
    assert (workspace / "points" / "points.parquet").read_bytes() == before
    manifest = json.loads((workspace / "points" / "manifest.json").read_text())
    assert manifest["files"]["again.json.json"] == {"same_as": "clicks.json"}


def test_the_mapping_stays_in_the_folder(place: tuple[Path, Params, dict[str, Any]]) -> None:
    workspace, params, _ = place
    with pytest.raises(DataError, match="leaves"):
        run(changed(params, classes="../../../classes.yaml"), workspace)
    with pytest.raises(DataError, match="no such file"):
        run(changed(params, classes="classes.yaml"), workspace)


def test_columns_and_radius_are_used(place: tuple[Path, Params, dict[str, Any]]) -> None:
    workspace, params, _ = place
    name = Split.open(workspace / "dataset" / "weak").image(0)["file_name"]
    Path("mine").mkdir()
    rows = ["who;picture;col;row;what"]
    rows += [f"{who};{name};{x};11;apple" for who, x in (("ann", "10,5"), ("bob", "12,5"), ("bob", "30,5"))]
    Path("mine/clicks.csv").write_text("\n".join(rows))
    columns = {"x": "col", "y": "row", "image": "picture", "category": "what", "annotator": "who"}
    run(changed(params, files="mine", columns=columns, duplicate_radius=3.0), workspace)
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    assert sorted(points["x"].to_pylist()) == [10.5, 30.5]
    rejected = read_parquet(workspace / "points" / "rejected.parquet", REJECTED).to_pylist()
    assert [(row["reason"], row["record"]) for row in rejected] == [("duplicate_annotator", "line 3")]


def report(params: Params) -> Params:
    return changed(params, on_reject="report")


def test_what_one_name_explains_is_one_fault(
    place: tuple[Path, Params, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    workspace, params, content = place
    rows = content["annotations"]
    for row in rows[:20]:
        row["image_id"] = 10**6
    for row in rows[20:23]:
        row["category_id"] = "aple"
    rows[23]["point"] = [-1, 3]
    rows[24]["point"] = [-1, 4]
    rewrite(content)
    with pytest.raises(DataError) as caught:
        run(params, workspace)
    many, classes, *singles = caught.value.faults
    assert many.record == f"20 records, the first: annotation {rows[0]['id']}"
    assert many.found == f"image {10**6} (unknown_image)"
    assert many.next_step == (
        "correct the image's name, or set points.on_reject: report to leave out what can't be used"
    )
    assert classes.record.startswith("3 records") and "nearest: apple" in classes.expected
    assert classes.next_step.startswith("map the name in points.classes")
    assert [one.record for one in singles] == [f"annotation {row['id']}" for row in rows[23:25]]
    run(report(params), workspace)
    told = [line for line in caplog.messages if "import_points: rejected" in line]
    assert len(told) == 4 and all("left out until then (points.on_reject: report)" in line for line in told)
    rejected = read_parquet(workspace / "points" / "rejected.parquet", REJECTED)
    assert len(rejected) == 25  # each of them


def test_many_faults_of_one_cause_are_one_line(
    place: tuple[Path, Params, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    workspace, params, content = place
    rows = content["annotations"]
    for n, row in enumerate(rows[:12]):
        row["point"] = [-1 - n, 3]
    for n, row in enumerate(rows[12:18]):
        row["image_id"] = 10**6 + n // 2
    rewrite(content)
    for n in range(5):
        Path(f"workspace/demo/points/{n}.json").write_text("{" * (n + 1))
    with pytest.raises(DataError) as caught:
        run(params, workspace)
    ids = [row["id"] for row in rows[:18]]
    outside, files, *unknown = caught.value.faults
    assert (
        outside.record
        == f"12 records, the first: annotation {ids[0]}, annotation {ids[1]}, annotation {ids[2]}"
    )
    assert outside.found.startswith("point (-1.0, 3.0) (outside_image) on image ")
    assert "; point (-3.0, 3.0) (outside_image) on image " in outside.found
    assert outside.found.endswith("; and 9 more")
    assert files.record == "5 files, the first: 0.json, 1.json, 2.json"
    assert [one.record.split(",")[0] for one in unknown] == ["2 records"] * 3  # as many as there are examples
    run(report(params), workspace)
    assert len([line for line in caplog.messages if "import_points: rejected" in line]) == 5
    rejected = read_parquet(workspace / "points" / "rejected.parquet", REJECTED)
    assert len(rejected) == 23  # each of them


def test_a_whole_file_is_no_record(
    place: tuple[Path, Params, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    workspace, params, _ = place
    Path("workspace/demo/points/more.csv").write_text("Bild;Pos_X [px];Pos_Y [px]\na.png;1,5;2\n")
    with caplog.at_level("INFO"):
        run(report(params), workspace)
    manifest = json.loads((workspace / "points" / "manifest.json").read_text())
    assert (manifest["counts"]["rejected"], manifest["counts"]["files_rejected"]) == (0, 1)
    assert "0 rejected; whole files not read: 1" in caplog.text
    assert "name the columns in points.columns" in caplog.text


def test_clicks_on_images_that_take_none_are_one_fault_an_image(
    place: tuple[Path, Params, dict[str, Any]],
) -> None:
    workspace, params, content = place
    run(params, workspace)
    before = read_parquet(workspace / "points" / "points.parquet", POINTS)
    rows = content["annotations"]
    image = Split.open(workspace / "dataset" / "val").image(0)
    content["images"].append({"id": image["image_id"], "file_name": image["file_name"]})
    rows += [rows[0] | {"id": 10**6 + n, "image_id": image["image_id"], "point": [n, 1]} for n in range(7)]
    rewrite(content)
    weak = workspace / "dataset" / "weak"
    split = Split.open(weak)
    lost = split.image(0)
    record = dict.fromkeys(REJECTED_IMAGES.names, "said") | {
        "reason": "truncated", "image_id": lost["image_id"], "file_name": lost["file_name"], "annotations": 0,
    }  # fmt: skip
    write_split(weak, split.images.slice(1), split.instances, split.categories, split.image_root)
    write_parquet(pa.Table.from_pylist([record], schema=REJECTED_IMAGES), weak / "rejected.parquet")
    clicks = sum(row["image_id"] == lost["image_id"] for row in rows)
    with pytest.raises(DataError) as caught:
        run(params, workspace)
    told = {fault.found: fault for fault in caught.value.faults}
    one = told[f"image '{image['file_name']}', which is in val (other_split)"]
    assert one.record.startswith("7 records, ") and one.next_step.startswith("take these clicks out")
    two = told[f"image '{lost['file_name']}', which ingest rejected (truncated) (rejected_image)"]
    assert two.record.startswith(f"{clicks} records, ") and two.next_step.startswith("restore the image")
    assert len(told) == 2
    run(report(params), workspace)
    after = read_parquet(workspace / "points" / "points.parquet", POINTS)
    kept = [i != lost["image_id"] for i in before["image_id"].to_pylist()]
    assert after == before.filter(pa.array(kept))


def test_the_usual_columns_beside_named_ones(place: tuple[Path, Params, dict[str, Any]]) -> None:
    workspace, params, _ = place
    name = Split.open(workspace / "dataset" / "weak").image(0)["file_name"]
    Path("mine").mkdir()
    Path("mine/maria.csv").write_text(f"Bild;Pos_X [px];Pos_Y [px];Typ\n{name};10,5;11;apple\n")
    Path("mine/usual.csv").write_text(f"image,x,y,class\n{name},20.5,11,banana\n")
    columns = {"x": "Pos_X [px]", "y": "Pos_Y [px]", "image": "Bild", "category": "Typ"}
    run(changed(params, files="mine", columns=columns), workspace)
    points = read_parquet(workspace / "points" / "points.parquet", POINTS)
    assert sorted(points["x"].to_pylist()) == [10.5, 20.5]
