"""Each bad point file ends in a clear report: every fault with its five parts, exit code 1, nothing half-written."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from data.points.record import SET_ASIDE
from data.tables import IMAGES, INSTANCES, POINTS, REJECTED, Category, DataError, read_parquet, write_split
from tasks import import_points
from tasks.common.config import Params, load_params
from tasks.common.stage_main import stage_main
from tasks.intake.lost_points import BAD_FILE
from tests.bad_inputs.bad import Bad
from tests.bad_inputs.coco_xml import COCO_CASES, XML_CASES
from tests.bad_inputs.points import CASES, EMPTY
from tests.bad_inputs.tables_tools import TABLE_CASES, TOOL_CASES
from tests.tasks.conftest import ROOT


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two weak images of 40 x 24 pixels and two classes."""
    rows = [
        dict(zip(IMAGES.names, (i, name, name, 40, 24, "", "weak", "point", "ok"), strict=True))
        for i, name in ((1, "a.png"), (2, "b.png"))
    ]
    images = pa.Table.from_pylist(rows, schema=IMAGES)
    categories = [Category(5, "bolt"), Category(9, "nut")]
    write_split(tmp_path / "workspace/dataset/weak", images, INSTANCES.empty_table(), categories, "images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def params() -> Params:
    """The demo's, of which section `points` alone counts here."""
    return load_params(ROOT / "params.yaml")


def put(place: Path, name: str, content: bytes, params: Params, on_reject: str) -> Params:
    (place / "clicks").mkdir()
    (place / "clicks" / name).write_bytes(content)
    section = params.points.model_copy(update={"files": "clicks", "on_reject": on_reject})
    return params.model_copy(update={"points": section})


def test_there_are_enough() -> None:
    assert len(CASES) >= 40
    assert len({bad.case for bad in CASES}) == len(CASES)


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.case)
def test_stop_lists_all_and_writes_nothing(place: Path, params: Params, bad: Bad) -> None:
    with pytest.raises(DataError) as caught:
        import_points.run(put(place, bad.file, bad.content, params, "stop"), Path("workspace"))
    error = caught.value
    for fault in error.faults:
        assert all((fault.file, fault.record, fault.found, fault.expected, fault.next_step))
        assert bad.file in fault.file or "clicks" in fault.file
        assert len(str(fault)) < 2000
    if bad.refused is None:
        aside = [reason for reason in bad.rejected if reason in SET_ASIDE]
        told = [re.match(r"(\d+) records, ", fault.record) for fault in error.faults]
        assert sum(int(many[1]) if many else 1 for many in told) == len(bad.rejected) - len(aside)
    else:
        assert bad.refused in str(error)
    assert not (place / "workspace" / "points").exists()
    assert not list(place.rglob("*.partial"))


@pytest.mark.parametrize(
    "bad", [cases[0] for cases in (COCO_CASES, XML_CASES, TABLE_CASES, TOOL_CASES)], ids=lambda bad: bad.case
)
def test_the_command_ends_with_exit_code_1_and_the_next_step(
    place: Path, bad: Bad, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "workspace/demo/points").mkdir(parents=True)
    (place / "workspace/demo/points" / bad.file).write_bytes(bad.content)
    shutil.copy(ROOT / "params.yaml", place)
    monkeypatch.setattr(sys, "argv", ["import_points"])
    with pytest.raises(SystemExit, match="1"):
        stage_main("import_points", import_points.run)
    assert "Next: " in capsys.readouterr().err
    assert not (place / "workspace" / "points").exists()


@pytest.mark.parametrize("bad", [bad for bad in CASES if bad.refused is None], ids=lambda bad: bad.case)
def test_report_keeps_what_is_good_and_tells_the_rest(place: Path, params: Params, bad: Bad) -> None:
    import_points.run(put(place, bad.file, bad.content, params, "report"), Path("workspace"))
    rejected = read_parquet(place / "workspace/points/rejected.parquet", REJECTED)
    assert tuple(rejected["reason"].to_pylist()) == bad.rejected
    assert all(
        all((row["file"], row["record"], row["found"], row["expected"])) for row in rejected.to_pylist()
    )
    assert len(read_parquet(place / "workspace/points/points.parquet", POINTS)) == bad.kept


def test_a_bad_file_beside_a_good_one_is_one_row(place: Path, params: Params) -> None:
    bad = next(bad for bad in CASES if bad.case == "truncated JSON")
    params = put(place, bad.file, bad.content, params, "report")
    (place / "clicks" / "good.csv").write_text("image,x,y,class\na.png,1.5,2,bolt\n")
    import_points.run(params, Path("workspace"))
    (row,) = read_parquet(place / "workspace/points/rejected.parquet", REJECTED).to_pylist()
    assert (row["file"], row["record"], row["reason"]) == ("a.json", "file", BAD_FILE)
    assert len(read_parquet(place / "workspace/points/points.parquet", POINTS)) == 1


@pytest.mark.parametrize(("name", "content"), EMPTY, ids=lambda value: str(value)[:10])
def test_files_without_a_record_are_told(
    place: Path, params: Params, name: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    params = put(place, name, content, params, "stop")
    import_points.run(params, Path("workspace"))
    assert len(read_parquet(place / "workspace/points/points.parquet", POINTS)) == 0
    assert f"{name}: has no records" in caplog.text
