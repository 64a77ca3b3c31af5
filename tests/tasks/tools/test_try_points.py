from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.tables import DataError
from tasks.common.config import Params, load_params
from tasks.tools.try_points import try_points
from tests.conftest import Bucket
from tests.tasks.conftest import ROOT


@pytest.fixture
def place(
    line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Params, dict[str, Any]]:
    """A copy of the line's data set and clicks; the params and the content of its point file."""
    folder, params = line
    for name in ("dataset", "demo/points"):
        shutil.copytree(folder / "workspace" / name, tmp_path / "workspace" / name)
    monkeypatch.chdir(tmp_path)
    return params, json.loads(Path("workspace/demo/points/clicks.json").read_text())


def test_new_changed_removed_and_same(place: tuple[Params, dict[str, Any]]) -> None:
    params, content = place
    rows = content["annotations"]
    count = len(rows)
    rows[0]["point"] = [rows[0]["point"][0] / 2 + 0.125, rows[0]["point"][1] / 2 + 0.125]
    del rows[1]
    rows.append(rows[1] | {"id": 10**6, "point": [1.25, 1.25]})
    Path("new").mkdir()
    Path("new/clicks.json").write_text(json.dumps(content))
    before = sorted(Path().rglob("*"))
    trial = try_points(params.points, [Path("new/clicks.json")])
    assert trial.counts == {
        "points": count, "images": trial.counts["images"], "rejected": 0, "set_aside": 0,
        "files_rejected": 0, "further_inside": 0, "further_outside": 0,
        "new": 1, "changed": 1, "removed": 1, "same": count - 2,
    }  # fmt: skip
    assert sorted(Path().rglob("*")) == before


def test_a_copy_changes_nothing(place: tuple[Params, dict[str, Any]]) -> None:
    params, content = place
    shutil.copy("workspace/demo/points/clicks.json", "copy of clicks.json")
    counts = try_points(params.points, [Path("copy of clicks.json")]).counts
    assert (counts["new"], counts["changed"], counts["removed"]) == (0, 0, 0)
    assert counts["same"] == len(content["annotations"])


def test_faults_are_told_and_nothing_is_raised(place: tuple[Params, dict[str, Any]]) -> None:
    params, content = place
    content["annotations"] = [row | {"point": [-1, 2]} for row in content["annotations"][:3]]
    Path("bad.json").write_text(json.dumps(content))
    Path("broken.json").write_text("{")
    trial = try_points(params.points, [Path("bad.json"), Path("broken.json")])
    assert trial.reasons == {"bad_file": 1, "outside_image": 3}
    assert len(trial.faults) == 4 and trial.counts["new"] == 0
    with pytest.raises(DataError, match="broken JSON"):
        try_points(params.points, [Path("broken.json")])


def test_files_of_the_folder_itself_change_nothing(place: tuple[Params, dict[str, Any]]) -> None:
    """Also those in a folder inside of it, named by that folder or one by one."""
    params, content = place
    inside = Path("workspace/demo/points/annotator")
    inside.mkdir()
    Path("workspace/demo/points/clicks.json").rename(inside / "clicks.json")
    for given in (inside, inside / "clicks.json", inside.resolve()):
        counts = try_points(params.points, [given]).counts
        assert (counts["new"], counts["changed"], counts["removed"]) == (0, 0, 0)
        assert counts["same"] == len(content["annotations"])


@pytest.mark.parametrize("ingested", [True, False])
def test_what_is_not_there(place: tuple[Params, dict[str, Any]], ingested: bool) -> None:
    if not ingested:
        shutil.rmtree("workspace/dataset")
    with pytest.raises(DataError, match=re.escape("no.json: file: found no such file")):
        try_points(place[0].points, [Path("no.json")])


def test_before_the_first_ingest_the_files_own_content_is_shown(tmp_path: Path) -> None:
    rows = ["image,x,y,class", "a.png,1.5,2,bolt", "a.png,3,4,bolt", "b.png,5,6,washer", "b.png,nan,6,bolt"]
    (tmp_path / "clicks.csv").write_text("\n".join(rows))
    (tmp_path / "copy of clicks.csv").write_text("\n".join(rows))
    (tmp_path / "notes.txt").write_text("dear diary")
    points = load_params(ROOT / "params.yaml").points
    trial = try_points(points, [tmp_path], tmp_path / "workspace")
    assert trial.unchecked is not None and "points2model run --target ingest" in trial.unchecked
    assert trial.counts == {"points": 3, "images": 2, "rejected": 1, "set_aside": 0, "files_rejected": 1}
    assert trial.reasons == {"bad_file": 1, "bad_point": 1}
    assert trial.files["clicks.csv"] == {
        "format": "csv", "records": 4, "points": 3, "classes": {"bolt": 2, "washer": 1}, "images": 2,
        "first_images": ["a.png", "b.png"],
        "first_points": [
            {"image": "a.png", "class": "bolt", "x": 1.5, "y": 2.0, "shares": False},
            {"image": "a.png", "class": "bolt", "x": 3.0, "y": 4.0, "shares": False},
            {"image": "b.png", "class": "washer", "x": 5.0, "y": 6.0, "shares": False},
        ],
    }  # fmt: skip
    assert trial.files["copy of clicks.csv"] == {"same_as": "clicks.csv"}
    assert [Path(fault.file).name for fault in trial.faults] == ["notes.txt", "clicks.csv"]
    assert trial.rejected["reason"].to_pylist() == ["bad_file", "bad_point"]
    assert not (tmp_path / "workspace").exists()


def test_files_in_s3(place: tuple[Params, dict[str, Any]], bucket: Bucket) -> None:
    params, content = place
    bucket.fill({"june/clicks.json": Path("workspace/demo/points/clicks.json").read_bytes()})
    counts = try_points(params.points, [f"s3://{bucket.name}/june"]).counts
    assert (counts["points"], counts["same"]) == (len(content["annotations"]),) * 2
