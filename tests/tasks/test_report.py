"""The report's parts: words, axes, paths around masks, the choice of images, the table on the terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console

from tasks.report import OPTIONAL, fairness
from tasks.reporting.charts import Axis, Series, dumbbell, histogram, line_chart, nice_step, smooth
from tasks.reporting.figures import difference, figure, summary_table
from tasks.reporting.gallery import mask_path, spread
from tasks.reporting.graph import pipeline_graph
from tasks.reporting.pipeline import picture, steps_of
from tests.tasks.conftest import ROOT


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (10.0, 12.34, "+2.3"),
        (12.34, 10.0, "−2.3"),
        (10.04, 10.0, "0.0"),
        (10.04, 10.05, "+0.1"),  # the figures shown are 10.0 and 10.1 (10.05 rounds up in binary)
        (None, 3.0, "–"),
        (3.0, None, "–"),
        (None, None, "–"),
    ],
)
def test_difference(before: float | None, after: float | None, shown: str) -> None:
    assert difference(before, after) == shown


def test_figure() -> None:
    assert (figure(12.345), figure(0), figure(None)) == ("12.3", "0.0", "–")


def metrics(**changed: float | None) -> dict[str, dict[str, float | None]]:
    scores = {"AP": 10.0, "AP50": 30.0, "AP75": 5.0, "APs": 1.0, "APm": 9.0, "APl": None}
    pseudo = {"points": 1200, "masks": 1190, "rough_iou": 40.0, "refined_iou": 52.5} | {
        "refined_over_50": 60.0,
        "refined_over_75": 20.0,
    }
    return {"teacher": scores, "student": {**scores, "AP": 14.0}, "pseudo": pseudo | changed}


def rendered(content: Any) -> str:
    console = Console(width=90, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(content)
    return console.export_text()


def test_summary_table_shows_both_models_and_both_masks() -> None:
    text = rendered(summary_table(metrics()))
    lines = [re.findall(r"[^\s│┃|]+", line) for line in text.splitlines()]
    assert ["AP", "10.0", "14.0", "+4.0"] in lines
    assert ["AP", "large", "–", "–", "–"] in lines
    assert ["mean", "IoU", "40.0", "52.5", "+12.5"] in lines
    assert "1,190 of 1,200 points became masks" in text


def test_summary_table_without_measured_masks() -> None:
    gone: dict[str, float | None] = dict.fromkeys(
        ("rough_iou", "refined_iou", "refined_over_50", "refined_over_75")
    )
    lines = [re.findall(r"[^\s│┃|]+", line) for line in rendered(summary_table(metrics(**gone))).splitlines()]
    assert ["mean", "IoU", "–", "–", "–"] in lines


def meta(**training: Any) -> dict[str, Any]:
    return {"config": {"width": 1}, "training": {"stage": "a", "seed": 0, "steps": 9, "lr": 0.1, **training}}


@pytest.mark.parametrize(
    ("student", "unlike"),
    [
        (meta(stage="b", masks="refined", log_every=3, strong_share=0.5, start="scratch"), []),
        (meta(start="teacher"), ["start"]),
        (meta(steps=18), ["steps"]),
        (meta(lr=0.01, seed=1), ["lr", "seed"]),
        ({**meta(), "config": {"width": 2}}, ["network"]),
    ],
)
def test_fairness(student: dict[str, Any], unlike: list[str]) -> None:
    found = fairness(meta(milestones=[4]), student, first=False)
    assert found["unlike"] == unlike
    assert found["equal"] == (not unlike)


@pytest.mark.parametrize(("first", "unlike"), [(True, []), (False, ["start"])])
def test_the_first_student_has_no_promoted_model_to_start_from(first: bool, unlike: list[str]) -> None:
    assert fairness(meta(), meta(start="promoted"), first)["unlike"] == unlike


@pytest.mark.parametrize(
    ("rough", "step"), [(1, 1), (0.9, 1), (1.1, 2), (2.1, 2.5), (3, 5), (7, 10), (0.03, 0.05), (230, 250)]
)
def test_nice_step(rough: float, step: float) -> None:
    assert nice_step(rough) == pytest.approx(step)


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_an_axis_holds_its_values_and_zero(values: list[float]) -> None:
    axis = Axis.over("", values)
    assert axis.low < axis.high
    span = axis.high - axis.low
    assert all(axis.low - 1e-6 * span <= value <= axis.high + 1e-6 * span for value in [0.0, *values])
    assert 2 <= len(axis.ticks) <= 9


def test_smoothing_keeps_a_constant_and_starts_at_the_first_value() -> None:
    assert smooth([3.0] * 5, 0.6) == pytest.approx([3.0] * 5)
    assert smooth([8.0, 0.0], 0.5) == pytest.approx([8.0, 8.0 / 3])
    assert smooth([], 0.6) == []


def test_charts_escape_what_they_are_told() -> None:
    bad = "<script>&"
    axis = Axis.over(bad, [1.0])
    pictures = [
        line_chart([Series(bad, bad, [0, 1], [1, 0])], axis, axis, bad),
        histogram([0, 0.5, 1], [(bad, "s", [1, 2])], bad, bad, bad),
        dumbbell(1, None, 10, bad),
    ]
    assert all("<script" not in picture for picture in pictures)


def test_dumbbell_draws_only_figures_that_exist() -> None:
    counts = [
        (
            dumbbell(before, after, 10, "x").count("<circle"),
            dumbbell(before, after, 10, "x").count('class="way"'),
        )
        for before, after in ((1, 2), (None, 2), (1, None), (None, None))
    ]
    assert counts == [(2, 1), (1, 0), (1, 0), (0, 0)]


def fill(path: str, height: int, width: int, scale: int) -> np.ndarray:
    """The area that an SVG path encloses (evenodd), on a map `scale` times finer."""
    rings = [
        np.array([[float(v) for v in pair.split()] for pair in ring.strip("Z").split("L")])
        for ring in path.split("M")[1:]
    ]
    canvas = np.zeros((height * scale, width * scale), dtype=np.uint8)
    # Pixel centres of the fine map are at (i + 0.5) / scale.
    whole = [np.round(ring * scale - 0.5).astype(np.int32) for ring in rings]
    cv2.fillPoly(canvas, whole, 1)
    return canvas.astype(bool)


@pytest.mark.parametrize("name", ["box", "ring", "two parts", "one pixel", "whole image", "thin line"])
def test_a_path_follows_its_mask(name: str) -> None:
    mask = np.zeros((40, 50), dtype=bool)
    yy, xx = np.mgrid[:40, :50]
    distance = np.hypot(yy - 20, xx - 25)
    shapes = {
        "box": (slice(5, 30), slice(10, 33)),
        "ring": (distance < 17) & (distance > 8),
        "two parts": ((xx < 12) & (yy < 9)) | (distance < 7),
        "one pixel": (slice(7, 8), slice(3, 4)),
        "whole image": (slice(None), slice(None)),
        "thin line": (slice(11, 12), slice(4, 44)),
    }
    mask[shapes[name]] = True
    scale = 8
    drawn = fill(mask_path(mask), 40, 50, scale)
    true = np.kron(mask, np.ones((scale, scale), dtype=bool))
    iou = (drawn & true).sum() / (drawn | true).sum()
    assert iou > (0.8 if mask.sum() < 50 else 0.94)


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_mask_has_a_path_within_its_box(mask: np.ndarray) -> None:
    path = mask_path(mask)
    assert bool(path) == mask.any()
    numbers = [float(number) for number in re.findall(r"[\d.]+", path)]
    if numbers:
        rows, columns = np.nonzero(mask)
        assert min(numbers[::2]) >= columns.min()
        assert max(numbers[::2]) <= columns.max() + 1
        assert min(numbers[1::2]) >= rows.min()
        assert max(numbers[1::2]) <= rows.max() + 1


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [
        (10, 3, [0, 4, 9]),
        (9, 3, [0, 4, 8]),
        (3, 5, [0, 1, 2]),
        (0, 4, []),
        (7, 1, [0]),
        (7, 0, []),
        (2, 2, [0, 1]),
    ],
)
def test_spread(count: int, wanted: int, chosen: list[int]) -> None:
    assert spread(count, wanted) == chosen


def test_the_picture_is_dvc_yamls_graph(tmp_path: Path) -> None:
    """A box a stage above the report, an arrow where results flow and no other stage is between."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    idle = [*OPTIONAL]
    demo = steps_of(
        pipeline_graph(ROOT, params, "report", idle), tmp_path,
        {"points": {"points": 3, "rejected": 1, "files_rejected": 2}, "comparison": {"draws": 1}},
    )  # fmt: skip
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    drawn = [name for name in stages if name not in ("code", "report", *idle)]
    assert [step.stage.name for step in demo] == drawn
    after = {step.stage.name: step.stage.after for step in demo}
    assert after["ingest"] == ("make_demo",) and after["import_points"] == after["train_teacher"] == (
        "ingest",
    )
    assert after["pseudo_label"] == ("import_points", "train_refiner")
    params["ingest"] |= {"images": "photos", "annotations": "labels"}
    params["points"]["files"] = "clicks"
    own = steps_of(pipeline_graph(ROOT, params, "report", idle), tmp_path, {})
    assert [step.stage.name for step in own] == [name for name in after if name != "make_demo"]
    whole = steps_of(pipeline_graph(ROOT, params, "report"), tmp_path, {})
    assert {step.stage.name for step in whole} - {step.stage.name for step in own} == {*OPTIONAL}
    for steps, arrows in ((demo, 9), (own, 8)):
        svg = picture(steps)
        assert svg.count('class="box"') == len(steps)
        assert svg.count('class="arrow"') == arrows
        assert len({(step.stage.column, step.stage.row) for step in steps}) == len(steps)
    assert (
        "3 points" in picture(demo) and "1 + 2 files rejected" in picture(demo) and "1 draw<" in picture(demo)
    )
    assert "from the cache" in picture(demo)  # nothing ran here


GRAPH = """
stages:
  a: {cmd: x, desc: First, deps: [code.json, "${raw.images}"], outs: [{out/a: {cache: false}}]}
  b: {cmd: x, deps: [out/a/one.txt], outs: [out/b]}
  c: {cmd: x, deps: [out/a, out/b], outs: [out/c]}
  d: {cmd: x, deps: ["${no.such}"], outs: [out/d]}
  side: {cmd: x, deps: [out/a], outs: [out/side]}
  end: {cmd: x, deps: [out/c, out, other], outs: [page]}
"""


def test_a_graph_of_ones_own_is_laid_out(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    found = {stage.name: stage for stage in pipeline_graph(tmp_path, {"raw": {"images": "out/d/x"}}, "end")}
    assert {name: stage.after for name, stage in found.items()} == {
        "a": ("d",), "b": ("a",), "c": ("b",), "d": (), "side": ("a",),
    }  # fmt: skip
    assert [(stage.column, stage.row) for stage in found.values()] == [(1, 0), (2, 0), (3, 0), (0, 0), (2, 1)]
    assert found["a"].description == "First"


@pytest.mark.parametrize(
    "text",
    ["stages: [", "stages: []", "{}", "stages: {end: {deps: [out], outs: [out/x]}, b: {deps: [out/x], outs: [out]}}",
     "stages: {end: {deps: 3}}", "stages: {a: {outs: [x]}}", "stages: {end: {cache: no}}"],
)  # fmt: skip
def test_a_graph_that_cant_be_read_leaves_the_picture_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    assert pipeline_graph(tmp_path, {}, "end") == []
    assert "dvc.yaml: can't be drawn" in caplog.text


def test_without_dvc_yaml_the_graph_is_that_of_this_code(tmp_path: Path) -> None:
    assert pipeline_graph(tmp_path, {}, "report") == pipeline_graph(ROOT, {}, "report")


def test_it_starts_without_torch() -> None:
    """Importing that takes seconds."""
    code = "import sys, tasks.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
