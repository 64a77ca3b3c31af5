from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from data.tables import Split
from tasks.common.config import Params, PointsConfig
from tasks.inbox.check import CheckResult, check_files


@dataclass
class Place:
    """A folder `points` with clicks.json, a folder `new`, and the weak images that they are about."""

    config: PointsConfig
    weak: Split
    content: dict[str, Any]

    def put(self, name: str, rows: list[dict[str, Any]], folder: str = "new") -> None:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.content | {"annotations": rows}))

    def rows(self, *numbers: int, first_id: int = 10**6) -> list[dict[str, Any]]:
        """New points: those of the line, moved to where none is."""
        all_rows = self.content["annotations"]
        return [
            all_rows[n] | {"id": first_id + n, "point": [1.25 + n, 1.75], "bbox": [0, 0, 1, 1]}
            for n in numbers
        ]

    def check(self, weak: Split | None = None, **config: Any) -> CheckResult:
        new = {path.relative_to("new").as_posix(): path for path in sorted(Path("new").rglob("*.*"))}
        return check_files(self.config.model_copy(update=config), new, Path("points"), weak or self.weak)


@pytest.fixture
def place(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    folder, params = line
    shutil.copytree(folder / "workspace/dataset", tmp_path / "workspace/dataset")
    shutil.copytree(folder / "workspace/demo/points", tmp_path / "points")
    monkeypatch.chdir(tmp_path)
    content = json.loads(Path("points/clicks.json").read_text())
    config = params.points.model_copy(update={"files": "points"})
    return Place(config, Split.open(Path("workspace/dataset/weak")), content)


@pytest.mark.parametrize("on_reject", ["stop", "report"])
def test_good_files_are_counted_by_what_changes(place: Place, on_reject: str) -> None:
    place.put("a.json", place.rows(0, 1))
    place.put("june/b.json", place.rows(2))
    moved = place.content["annotations"]
    place.put("clicks.json", [moved[0] | {"point": [2.5, 2.5]}, *moved[2:]])  # one moved, one taken out
    before = sorted(Path().rglob("*"))
    assert place.check(on_reject=on_reject) == CheckResult(
        {"a.json": 2, "clicks.json": len(moved) - 1, "june/b.json": 1}, {}, {}, 4, {}
    )
    assert sorted(Path().rglob("*")) == before


def test_points_that_a_new_version_takes_out_are_counted(place: Place) -> None:
    place.put("clicks.json", place.content["annotations"][3:])
    assert place.check(on_reject="report").points == 3


@pytest.mark.parametrize("on_reject", ["stop", "report"])
def test_a_corrupt_file_is_rejected_and_the_rest_is_good(place: Place, on_reject: str) -> None:
    place.put("a.json", place.rows(0))
    Path("new/broken.json").write_text("{")
    Path("new/picture.png").write_bytes(b"\x89PNG\r\n")
    result = place.check(on_reject=on_reject)
    assert (result.good, result.points) == ({"a.json": 1}, 1)
    assert result.rejected.keys() == {"broken.json", "picture.png"}
    assert result.rejected["broken.json"].startswith("file: found broken JSON")
    assert "an image (PNG)" in result.rejected["picture.png"]


def test_a_record_that_would_stop_the_import_sets_its_file_aside(place: Place) -> None:
    place.put("good.json", place.rows(0))
    place.put("bad.json", [*place.rows(1), *[row | {"point": [-1, 2]} for row in place.rows(2, 3, 4, 5)]])
    stop, report = place.check(on_reject="stop"), place.check(on_reject="report")
    assert stop.good == {"good.json": 1} and stop.points == 1
    assert "outside_image" in stop.rejected["bad.json"] and "And 1 more" in stop.rejected["bad.json"]
    assert report.good == {"bad.json": 1, "good.json": 1} and report.rejected == {}
    assert report.left_out == {"outside_image": 4}


def test_faults_that_are_there_already_are_not_the_new_files(place: Place) -> None:
    place.put("old.json", [row | {"point": [-1, 2]} for row in place.rows(7)], folder="points")
    place.put("good.json", place.rows(0))
    assert place.check(on_reject="stop").good == {"good.json": 1}


def test_a_fault_that_is_told_of_an_old_file_sets_the_new_one_aside(place: Place) -> None:
    """Of two clicks of one kind in one pixel the later file's is at fault, by its name: here the old one's."""
    row = place.rows(0)[0]
    place.put("z.json", [row | {"annotator": "ann"}], folder="points")
    place.put("a.json", [row | {"id": 5, "annotator": "ann", "point": [1.3, 1.8]}])
    place.put("b.json", place.rows(1))
    result = place.check(on_reject="stop")
    assert result.good == {"b.json": 1}
    assert "duplicate" in result.rejected["a.json"]


@pytest.mark.parametrize("name", ["copy of clicks.json", "c.json"])
def test_a_copy_says_nothing_new_whichever_name_is_shorter(place: Place, name: str) -> None:
    Path("new").mkdir()
    shutil.copy("points/clicks.json", Path("new", name))
    assert place.check() == CheckResult({}, {name: "clicks.json"}, {}, 0, {})


def test_of_two_new_copies_one_is_taken(place: Place) -> None:
    place.put("a.json", place.rows(0))
    place.put("copy.json", place.rows(0))
    assert place.check() == CheckResult({"a.json": 1}, {"copy.json": "a.json"}, {}, 1, {})


def test_equal_bytes_about_two_images_are_two_files(place: Place) -> None:
    names = [Path(name).stem for name in place.weak.images["file_name"].to_pylist()[:2]]
    category = place.content["categories"][0]["name"]
    Path("new").mkdir()
    for name in names:
        Path("new", f"{name}.csv").write_text(f"x,y,class\n3.5,4.5,{category}\n")
    assert place.check().good == {f"{name}.csv": 1 for name in names}


def test_a_replaced_file_that_becomes_a_copy_is_taken_in(place: Place) -> None:
    """Its former points must go."""
    place.put("old.json", place.rows(0), folder="points")
    Path("new").mkdir()
    shutil.copy("points/clicks.json", "new/old.json")
    result = place.check()
    assert result.same == {} and "old.json" in result.good and result.points == 1


def test_before_any_ingest_files_are_only_read(place: Place) -> None:
    place.put("a.json", place.rows(0, 1))
    Path("new/broken.json").write_text("{")
    new = {name: Path("new", name) for name in ("a.json", "broken.json")}
    result = check_files(place.config, new, Path("absent"), None)
    assert (result.good, result.points, list(result.rejected)) == ({"a.json": 2}, 2, ["broken.json"])


def test_the_first_file_of_an_empty_folder(place: Place) -> None:
    place.put("a.json", place.rows(0))
    shutil.rmtree("points")
    assert place.check(on_reject="stop") == CheckResult({"a.json": 1}, {}, {}, 1, {})


def test_a_fault_in_the_classes_is_nobodys_but_their_own(place: Place) -> None:
    place.put("a.json", place.rows(0))
    Path("points/classes.yaml").write_text("a: [1]\n")
    with pytest.raises(DataError, match=r"classes\.yaml"):
        place.check(classes="classes.yaml")
    Path("points/classes.yaml").write_text("other: null\n")
    place.put("classes.yaml", [])
    result = place.check(classes="classes.yaml")
    assert result.good == {"a.json": 1} and "name of points.classes" in result.rejected["classes.yaml"]


@pytest.mark.parametrize("before", [True, False])
def test_labels_of_yolo_are_read_with_their_data_yaml(place: Place, before: bool) -> None:
    """It may be there already, or arrive with them."""
    name = place.weak.images["file_name"].to_pylist()[0].rpartition(".")[0]
    classes = [category.name for category in place.weak.categories]
    labels = Path("new/labels", f"{name}.txt")
    labels.parent.mkdir(parents=True)
    labels.write_text("0 .5 .5 .1 .1 .031 .017 2\n")
    assert "without a data.yaml" in place.check().rejected[f"labels/{name}.txt"]
    setup = Path("points/data.yaml" if before else "new/data.yaml")
    setup.write_text(f"names: [{', '.join(classes)}]\nkpt_shape: [1, 3]\n")
    found = place.check()
    assert not found.rejected
    assert found.good[f"labels/{name}.txt"] == 1
