"""Each bad file of masks or results ends in a clear report: all faults with their five parts, nothing half-written."""

from __future__ import annotations

import shutil
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from data.errors import DataError
from flows.cli.main import app
from tasks import ingest
from tasks.common.config import Params, load_params
from tasks.common.stage_main import stage_main
from tasks.tools.export_labels import ExportRequest, export_labels
from tests.bad_inputs.masks import (
    BITMASK_CASES,
    COCO_CASES,
    HEIGHT,
    MASK_CASES,
    RESULT_CASES,
    SCALABEL_CASES,
    WIDTH,
    Bad,
    annotation,
    coco,
    encoded,
    image,
)
from tests.tasks.conftest import ROOT

MEMORY = (
    250_000_000  # bytes that reading a bad file may take; what it claims would take a thousand times as much
)


@pytest.fixture(scope="session")
def demo() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture
def params(tmp_path: Path, demo: Params, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project with a strong and a val image."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    for n in (1, 2):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((HEIGHT, WIDTH, 3), n, dtype=np.uint8))
    labels = tmp_path / "labels"
    labels.mkdir()
    val = coco(images=[image(id=2, file_name="2.png")], annotations=[annotation(image_id=2)])
    (labels / "val.json").write_bytes(encoded(val))
    section = demo.ingest.model_copy(
        update={"images": "images", "annotations": "labels", "weak": None, "kept_aside": None}
    )
    return demo.model_copy(update={"ingest": section})


def put(bad: Bad, folder: Path) -> Path:
    for name, content in bad.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / bad.name


def check(error: DataError, bad: Bad) -> None:
    for fault in error.faults:
        assert all((fault.file, fault.record, fault.found, fault.expected, fault.next_step))
        assert len(str(fault)) < 2000
    assert len(error.faults) == bad.faults
    for part in bad.said:
        assert part in str(error)


def test_there_are_enough_and_they_differ() -> None:
    cases = [bad.case for bad in (*MASK_CASES, *RESULT_CASES)]
    assert len(cases) == len(set(cases)) >= 60


@pytest.mark.parametrize("bad", MASK_CASES, ids=lambda bad: bad.case)
def test_ingest_lists_all_and_writes_nothing(params: Params, bad: Bad, tmp_path: Path) -> None:
    put(bad, tmp_path / "labels")
    section = params.ingest.model_copy(update={"strong": bad.name})
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        ingest.run(params.model_copy(update={"ingest": section}), Path("workspace"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    check(caught.value, bad)
    assert peak < MEMORY
    assert not (tmp_path / "workspace").exists()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("bad", MASK_CASES[::5], ids=lambda bad: bad.case)
def test_export_leaves_nothing_behind(bad: Bad, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    path = put(bad, tmp_path / "labels")
    request = ExportRequest("file", "coco", annotations=path, images=tmp_path / "images")
    with pytest.raises(DataError):
        export_labels(request, tmp_path / "out", tmp_path / "workspace")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "labels"]


@pytest.mark.parametrize("bad", RESULT_CASES, ids=lambda bad: bad.case)
def test_evaluate_lists_all(bad: Bad, tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    truth.write_bytes(encoded(coco()))
    results = put(bad, tmp_path)
    done = CliRunner().invoke(
        app, ["evaluate", "--ground-truth", str(truth), "--results", str(results), "--json"]
    )
    assert (done.exit_code, done.stdout) == (1, "")
    for part in (*bad.said, str(results), "Next: "):
        assert part in done.stderr


@pytest.mark.parametrize(
    "bad", [cases[1] for cases in (COCO_CASES, SCALABEL_CASES, BITMASK_CASES)], ids=lambda bad: bad.case
)
def test_the_step_ends_with_exit_code_1_and_the_next_step(
    params: Params,
    bad: Bad,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(bad, tmp_path / "labels")
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for key, value in {
        "images": "images", "annotations": "labels", "strong": bad.name, "weak": "null", "kept_aside": "null",
    }.items():  # fmt: skip
        start = text.index(f"\n  {key}: ", text.index("\ningest:"))
        text = text[:start] + f"\n  {key}: {value}" + text[text.index("\n", start + 1) :]
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["ingest"])
    with pytest.raises(SystemExit, match="1"):
        stage_main("ingest", ingest.run)
    said = capsys.readouterr().err
    assert "Next: " in said and "expected" in said
    shutil.rmtree(
        tmp_path / "workspace" / "runs", ignore_errors=True
    )  # what tells of the run, not its output
    assert not (tmp_path / "workspace" / "dataset").exists()
