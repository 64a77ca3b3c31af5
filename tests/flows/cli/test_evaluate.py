"""`points2model evaluate`: COCO's figures, limits beyond COCO's, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data.annotations.frames import name_id
from data.errors import DataError
from data.masks import rle
from flows.cli.main import app
from tasks.common.errors import TaskError
from tasks.tools.evaluate_files import evaluate_files

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
SIDE = 64


def _rle(x: int, y: int, side: int) -> dict[str, Any]:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[y : y + side, x : x + side] = True
    return {"size": [SIDE, SIDE], "counts": rle.encode(mask).decode()}


def _grid(folder: Path, objects: int) -> tuple[Path, Path]:
    """A data set of one image with squares on a grid, all found exactly."""
    places = [(4 * (n % 16), 4 * (n // 16)) for n in range(objects)]
    truth = {
        "images": [{"id": 1, "file_name": "1.png", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 7, "name": "cell"}],
        "annotations": [
            {"id": n + 1, "image_id": 1, "category_id": 7, "segmentation": _rle(x, y, 3)}
            for n, (x, y) in enumerate(places)
        ],
    }
    results = [
        {"image_id": 1, "category_id": 7, "score": 0.9 - n / 1000, "segmentation": _rle(x, y, 3)}
        for n, (x, y) in enumerate(places)
    ]
    files = folder / "truth.json", folder / "results.json"
    for path, value in zip(files, (truth, results), strict=True):
        path.write_text(json.dumps(value))
    return files


def _run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_figures_are_the_official_evaluators(shared_dir: Path) -> None:
    folder = shared_dir / "fixtures/coco_golden"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    segm = (folder / "expected.txt").read_text().split("type=bbox")[0]
    expected = [float(figure) for figure in re.findall(r"\] = (-?[\d.]+)", segm)]
    done = _run(
        "--ground-truth", folder / "instances_val2014_100.json",
        "--results", folder / "instances_val2014_fakesegm100_results.json",
        "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    assert [round(scores[key] / 100, 3) for key in KEYS] == expected
    assert [round(scores[key] / 100, 3) for key in KEYS[:3]] == [0.320, 0.562, 0.299]
    assert (scores["images"], scores["objects"], scores["detections"]) == (100, 830, 734)
    assert "per_class" not in scores


def test_a_limit_above_cocos_counts_all_objects(tmp_path: Path) -> None:
    files = _grid(tmp_path, objects=160)
    few = evaluate_files(*files, max_detections=100, size_bounds=(32, 96))
    all_of_them = evaluate_files(*files, max_detections=160, size_bounds=(32, 96))
    # 100 of 160 found, all right: precision 1 up to a recall of 0.625, 63 of 101 recall points.
    assert few["AP"] == pytest.approx(100 * 63 / 101, abs=1e-3)
    assert few["AR100"] == 62.5
    assert (all_of_them["AP"], all_of_them["AR160"]) == (100, 100)
    assert "AR100" not in all_of_them
    done = _run("--ground-truth", files[0], "--results", files[1], "--max-detections", 160, "--per-class")
    assert done.exit_code == 0
    assert "the best 160 detections per image and class count (COCO: 100)" in done.output
    assert "cell" in done.output


def test_bounds_part_the_sizes(tmp_path: Path) -> None:
    files = _grid(tmp_path, objects=4)
    small = evaluate_files(*files, max_detections=100, size_bounds=(32, 96))
    assert (small["APs"], small["APm"]) == (100, None)
    done = _run("--ground-truth", files[0], "--results", files[1], "--size-bounds", 1, 2, "--json")
    scores = json.loads(done.stdout)
    assert (scores["APs"], scores["APl"], scores["size_bounds"]) == (None, 100, [1, 2])


def test_the_other_evaluator(tmp_path: Path) -> None:
    files = _grid(tmp_path, objects=160)
    command = (
        "--ground-truth",
        files[0],
        "--results",
        files[1],
        "--max-detections",
        130,
        "--json",
        "--per-class",
    )
    said = [_run(*command, "--evaluator", name) for name in ("pycocotools", "faster_coco_eval")]
    assert said[0].exit_code == said[1].exit_code == 0
    assert said[0].stdout == said[1].stdout


@pytest.mark.parametrize("bounds", [(96.0, 32.0), (0.0, 32.0), (32.0, 32.0), (1.0, float("nan"))])
def test_wrong_bounds(tmp_path: Path, bounds: tuple[float, float]) -> None:
    files = _grid(tmp_path, objects=1)
    with pytest.raises(TaskError, match="size_bounds"):
        evaluate_files(*files, max_detections=100, size_bounds=bounds)


def test_all_faults_of_a_file_are_shown(tmp_path: Path) -> None:
    truth, results = _grid(tmp_path, objects=3)
    rows = json.loads(results.read_text())
    rows[0]["image_id"], rows[1]["segmentation"]["size"], rows[2]["score"] = 99, [10**9, 10**9], float("nan")
    results.write_text(json.dumps(rows))
    with pytest.raises(DataError) as caught:
        evaluate_files(truth, results, max_detections=100, size_bounds=(32, 96))
    assert [fault.record for fault in caught.value.faults] == ["result #0", "result #1", "result #2"]
    done = _run("--ground-truth", truth, "--results", results, "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    for said in ("3 faults", "image_id 99", "of size [1000000000", "score nan", str(results)):
        assert said in done.stderr
    done = _run("--ground-truth", results, "--results", truth)
    assert done.exit_code == 1


@pytest.mark.parametrize("kind", ["bitmasks", "scalabel"])
def test_sizes_and_names_come_from_the_images(tmp_path: Path, kind: str) -> None:
    """Neither format says all of them."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(tmp_path / "images" / "street.png")
    truth = tmp_path / "truth"
    if kind == "bitmasks":
        truth.mkdir()
        codes = np.zeros((SIDE, SIDE, 4), np.uint8)
        codes[8:24, 8:24] = (3, 0, 0, 1)  # a car
        Image.fromarray(codes).save(truth / "street.png")
    else:
        corners = [[8, 8], [24, 8], [24, 24], [8, 24]]
        outline = {"vertices": corners, "types": "LLLL", "closed": True}
        truth.write_text(
            json.dumps(
                [{"name": "street.png", "labels": [{"id": "1", "category": "car", "poly2d": [outline]}]}]
            )
        )
    results = tmp_path / "results.json"
    found = {
        "image_id": name_id("street.png"),
        "category_id": 3,
        "score": 0.9,
        "segmentation": _rle(8, 8, 16),
    }
    results.write_text(json.dumps([found]))
    arguments = ["--ground-truth", truth, "--results", results, "--json"]
    done = _run(*arguments, "--images", tmp_path / "images")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["AP"] == 100
    assert _run(*arguments).exit_code == 1


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_file_that_is_not_there(tmp_path: Path, command: str) -> None:
    arguments = ["--ground-truth", "nosuch.json", "--results", "r.json"]
    if command == "export":
        arguments = [
            "--what",
            "file",
            "--annotations",
            "nosuch.json",
            "--format",
            "coco",
            "--out",
            str(tmp_path),
        ]
    done = CliRunner().invoke(app, [command, *arguments])
    assert (done.exit_code, "on the command line" in done.output) == (1, True), done.output


def test_an_export_to_where_nothing_can_be_written(tmp_path: Path) -> None:
    truth, _ = _grid(tmp_path, 3)
    (tmp_path / "file").write_text("")
    arguments = [
        "--what",
        "file",
        "--annotations",
        truth,
        "--format",
        "coco",
        "--out",
        tmp_path / "file" / "x",
    ]
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert (done.exit_code, "choose another folder with --out" in done.output) == (1, True), done.output


def test_objects_beyond_the_limit_are_told(tmp_path: Path) -> None:
    truth, results = _grid(tmp_path, 120)
    done = _run("--ground-truth", truth, "--results", results)
    assert "20 objects can't be found: some images have more than 100 of a class" in done.output
    assert (
        "can't be found"
        not in _run("--ground-truth", truth, "--results", results, "--max-detections", 120).output
    )


def test_results_of_a_box_detector_are_one_fault(tmp_path: Path) -> None:
    truth, results = _grid(tmp_path, 30)
    rows = [
        {key: row[key] for key in row if key != "segmentation"} for row in json.loads(results.read_text())
    ]
    results.write_text(json.dumps(rows))
    done = _run("--ground-truth", truth, "--results", results)
    assert done.exit_code == 1
    assert "result #0 and 29 more: found no segmentation" in done.output and "result #1" not in done.output
