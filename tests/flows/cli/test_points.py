"""`points2model import-points`, as a user calls it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from data.tables import IMAGES, INSTANCES, Category, write_split
from flows.cli.main import app

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one weak image of 40 x 24 pixels, and no points yet."""
    row = dict(zip(IMAGES.names, (1, "a.png", "a.png", 40, 24, "", "weak", "point", "ok"), strict=True))
    images = pa.Table.from_pylist([row], schema=IMAGES)
    weak = tmp_path / "workspace/dataset/weak"
    write_split(weak, images, INSTANCES.empty_table(), [Category(5, "bolt")], "images")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "good.csv").write_text("image,x,y,class\na.png,1.5,2,bolt\n")
    rows = ["image,x,y,class", "a.png,1.5,2,bolt", "a.png,99.5,2,bolt", "=cmd(),1.5,3,bolt"]
    (tmp_path / "mixed.csv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_good_file(project: Path) -> None:
    result = CliRunner().invoke(app, ["import-points", "good.csv", "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["points"], found["new"], found["rejected"], found["faults"]) == (1, 1, 0, [])
    assert found["files"] == {"good.csv": {"format": "csv", "records": 1}}


def test_rejects_are_counted_and_written_with_formulas_neutralised(project: Path) -> None:
    result = CliRunner().invoke(app, ["import-points", "mixed.csv", "--rejects", "out.csv"])
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert "1 point on 1 image" in text and "1 outside_image" in text and "1 unknown_image" in text
    assert "mixed.csv: line 3: found point (99.5, 2.0) (outside_image) on image a.png" in text
    with (project / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["reason"] for row in rows] == ["outside_image", "unknown_image"]
    assert rows[1]["image"] == "'=cmd()"
    assert rows[0]["x"] == "99.5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "no such file"),
        (["good.csv", "--format", "cvta"], "points.format"),
        (["good.csv", "--params", "none.yaml"], "none.yaml"),
        (["params.yaml"], "content of no known format"),
    ],
)
def test_faults_end_with_exit_code_1(project: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["import-points", *arguments])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


def test_before_ingest(project: Path) -> None:
    """The file's own content and faults; what needs the images is named as not checked."""
    shutil.rmtree(project / "workspace")
    result = CliRunner().invoke(app, ["import-points", "good.csv"])
    text = " ".join(result.output.split())
    assert result.exit_code == 0
    for part in (
        "good.csv: bolt (1)", "images: a.png", "(1.5, 2) on a.png: bolt", "1 point on 1 image",
        "not checked before the first ingest", "run `points2model run --target ingest`",
    ):  # fmt: skip
        assert part in text
    assert "in the folder of points.files" not in text
    (project / "bad.csv").write_text("image,x,y,class\na.png,nan,2,bolt\n")
    result = CliRunner().invoke(app, ["import-points", "bad.csv", "--json", "--rejects", "out.csv"])
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (found["points"], found["reasons"], len(found["faults"])) == (0, {"bad_point": 1}, 1)
    assert "--target ingest" in found["unchecked"] and "new" not in found
    assert "bad_point" in (project / "out.csv").read_text()


def test_a_file_of_masks_is_reported_as_that(project: Path) -> None:
    shape = {"label": "bolt", "shape_type": "polygon", "points": [[1, 2], [3, 4], [5, 6]]}
    (project / "masks.json").write_text(json.dumps({"shapes": [shape] * 12, "imagePath": "a.png"}))
    result = CliRunner().invoke(app, ["import-points", "masks.json"])
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "masks.json: file: found 12 polygons and no point" in text and "ingest.strong" in text
