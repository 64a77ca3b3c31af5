"""Masks with the decisions made so far, out of a workspace whose tables were written by hand."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from data.annotations.coco.file import read_coco
from data.decisions.record import Mask
from data.decisions.store import DecisionLog, read_decisions
from data.tables import POINTS, PSEUDO, SENT, Split, read_parquet, write_parquet
from flows.cli.main import app
from tasks.review.present import present_objects
from tasks.tools.export_labels import SENT_FILE, ExportRequest, export_labels, read_pseudo
from tests.tasks.review.project import (
    HEIGHT,
    ROWS,
    WIDTH,
    point,
    pseudo,
    rle,
    write_points,
    write_project,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return write_project(tmp_path)


def present(workspace: Path, min_score: float = 0.0) -> dict[str, tuple[int, int, bytes, float | None]]:
    found = present_objects(
        read_pseudo(workspace),
        read_parquet(workspace / "points/points.parquet", POINTS),
        Split.open(workspace / "dataset/weak"),
        read_decisions(workspace.parent / "decisions").decisions,
        min_score=min_score,
    )
    assert found == sorted(found, key=lambda one: (one.image_id, one.object))
    return {one.object: one[1:5] for one in found}


def log(workspace: Path, name: str = "anna") -> DecisionLog:
    return DecisionLog(workspace.parent / "decisions", name)


def test_without_decisions_all_usable_pseudo_masks(workspace: Path) -> None:
    assert present(workspace) == {
        "aa": (7, 4, rle(1, 1, 5), 0.7),
        "bb": (7, 4, rle(8, 3, 5), 0.9),
        "cc": (8, 9, rle(1, 1, 4), 0.2),
    }
    assert present(workspace, 0.7).keys() == {"aa", "bb"}


def test_each_decision_has_its_effect(workspace: Path) -> None:
    anna = log(workspace)
    drawn = Mask(HEIGHT, WIDTH, rle(0, 0, 3))
    anna.append("reject", image="7.png", object="aa")
    anna.append("mask", image="7.png", object="bb", mask=drawn, source="brush")
    anna.append("class", image="7.png", object="bb", category="ring")
    anna.append("mask", image="9.png", object="dd", mask=drawn, source="polygon")
    anna.append("add", image="8.png", object="new", category="disc", mask=drawn, source="brush")
    anna.append("add", image="8.png", object="click", category="disc", point=(3.0, 3.0))
    found = present(workspace, 0.95)
    assert found == {
        "bb": (7, 9, rle(0, 0, 3), None), "dd": (9, 4, rle(0, 0, 3), None), "new": (8, 4, rle(0, 0, 3), None)
    }  # fmt: skip


def test_undone_contradicted_and_impossible_decisions_have_none(workspace: Path) -> None:
    before = present(workspace)
    anna, bert = log(workspace), log(workspace, "bert")
    anna.append("undo", undoes=anna.append("reject", image="7.png", object="aa").id)
    anna.append("reject", image="7.png", object="bb")
    bert.append("accept", image="7.png", object="bb", mask=Mask(HEIGHT, WIDTH, rle(8, 3, 5)))
    anna.append("mask", image="8.png", object="cc", mask=Mask(4, 4, b"1?"), source="brush")
    anna.append("class", image="8.png", object="cc", category="unknown")
    anna.append("add", image="?.png", object="new", category="disc", mask=Mask(HEIGHT, WIDTH, rle(0, 0, 3)),
                source="brush")  # fmt: skip
    assert present(workspace) == before


def test_what_cant_be_honoured_contradicts_nothing(workspace: Path) -> None:
    """As import_points: first the decisions that can't be honoured are left out, then who contradicts whom is found."""
    anna, bert = log(workspace), log(workspace, "bert")
    anna.append("mask", image="7.png", object="bb", mask=Mask(4, 4, b"1?"), source="brush")
    bert.append("mask", image="7.png", object="bb", mask=Mask(HEIGHT, WIDTH, rle(0, 0, 3)), source="brush")
    assert present(workspace)["bb"] == (7, 4, rle(0, 0, 3), None)


def test_an_object_that_a_run_took_in_stays_as_long_as_it_is_added(workspace: Path) -> None:
    anna = log(workspace)
    on = {"image": "8.png", "object": "new"}
    made = anna.append("add", category="disc", point=(3.0, 3.0), **on)
    row = pseudo("new", 8)
    source = {"annotator": "anna", "source_file": "anna.jsonl", "source_record": made.id}
    write_parquet(pa.Table.from_pylist([row], schema=PSEUDO), workspace / "pseudo/part-0009.parquet")
    write_points(workspace, [*map(point, ROWS), point(row, **source)])
    assert present(workspace)["new"] == (8, 4, rle(1, 1, 5), 0.7)
    anna.append("mask", mask=Mask(HEIGHT, WIDTH, rle(0, 0, 3)), source="brush", **on)
    assert present(workspace)["new"] == (8, 4, rle(0, 0, 3), None)
    anna.append("undo", undoes=made.id)
    assert "new" not in present(workspace)


def test_the_export_has_all_images_with_clicks_and_what_was_sent(workspace: Path, tmp_path: Path) -> None:
    log(workspace).append("reject", image="7.png", object="aa")
    request = ExportRequest("pseudo", "coco", decisions=tmp_path / "decisions")
    summary = export_labels(request, tmp_path / "out", workspace)
    assert summary["parts"] == {"pseudo": {"images": 3, "labels": 2}}
    coco = read_coco(tmp_path / "out/pseudo.json")
    assert [row["point_id"] for row in coco.annotations] == ["bb", "cc"]
    assert [row["file_name"] for row in coco.images] == ["7.png", "8.png", "9.png"]
    sent = read_parquet(tmp_path / "out" / SENT_FILE, SENT).to_pylist()
    assert [(row["object_id"], row["image"], row["category"]) for row in sent] == [
        ("bb", "7.png", "disc"), ("cc", "8.png", "ring")
    ]  # fmt: skip
    assert sent[0]["rle_counts"] == rle(8, 3, 5) and (sent[0]["height"], sent[0]["width"]) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("tool", ["cvat", "label-studio", "coco", "yolo-seg"])
def test_the_command(workspace: Path, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", "--to", tool, "--out", "out"])
    assert done.exit_code == 0, done.output
    assert "3 masks on 3 images" in done.output and "--sent out" in done.output
    assert (tmp_path / "out" / SENT_FILE).is_file() and (tmp_path / "out/labels.json").exists() == (
        tool == "cvat"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "one of --format"),
        (["--to", "cvat", "--format", "cvat"], "one of --format"),
        (["--to", "cvat", "--what", "dataset"], "--to: found --what dataset"),
    ],
)
def test_impossible_options(
    workspace: Path, options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", "--out", "out", *options])
    assert done.exit_code == 1 and said in done.output and not (tmp_path / "out").exists()
