"""evaluate and report on the tiny line: their files, their determinism, and inputs that lack something."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from data.decisions.record import Mask
from data.decisions.store import DecisionLog
from data.tables import INSTANCES, PSEUDO, Split, read_parquet, write_parquet, write_split
from tasks import evaluate, report
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.common.stage_main import write_manifest
from tasks.inference.predict import Predictions
from tasks.labelling.gate import read_gate
from tasks.labelling.judge import DRAWN_BY, without_rules, write_judge
from tasks.promotion.baseline import folder_hash
from tasks.reporting import pages
from tasks.scoring.pseudo_quality import QUALITY
from tasks.tools.random_sample import open_sample
from tasks.train_student import read_pseudo
from tests.attacks.browser import CHROMIUM, chromium
from tests.tasks.conftest import ROOT, run_step, tiny_recipe

WORKSPACE = Path("workspace")
AP = {"AP", "AP50", "AP75", "APs", "APm", "APl"}
PSEUDO_KEYS = {"points", "masks", "rough_iou", "refined_iou", "refined_over_50", "refined_over_75"}


@pytest.fixture(scope="module")
def whole_line(line: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """The tiny line with its student, evaluated and reported; other tests of the line don't see it."""
    folder = tmp_path_factory.mktemp("whole") / "line"
    shutil.copytree(line[0], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for step in ("train_student", "train_repeats", "evaluate", "compare", "report"):
            run_step(step, line[1], WORKSPACE)
    return folder, line[1]


@pytest.fixture
def params(whole_line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Inside a copy of the whole line, to change."""
    shutil.copytree(whole_line[0], tmp_path / "line")
    monkeypatch.chdir(tmp_path / "line")
    return whole_line[1]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Page(HTMLParser):
    """Collects a page's text and what it would load, and checks that its elements are closed."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.uses: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href") and not (value or "").startswith(("#", "data:")):
                self.loaded.append(str(value))
            if name == "id":
                self.ids.append(str(value))
            if tag == "use" and name == "href":
                self.uses.append(str(value).removeprefix("#"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "pre"):
            self.words.append(data)


LINK = re.compile(r"(report/|\.\./)?(weak|val|errors|report)(-\d{3})?\.(html|csv)(#i\d+)?")
"""Links to the report's own files."""


def check_page(html: str) -> Page:
    page = Page(html)
    assert page.open == []
    assert all(LINK.fullmatch(address) for address in page.loaded)
    assert "<script" not in html and " src=" not in html
    assert "url(" not in re.sub(r"url\(#\w+\)", "", html)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.uses) <= set(page.ids)
    assert not re.search(r"\b(None|nan|Undefined)\b", page.text)
    return page


def test_metrics_have_their_keys_and_agree_with_the_details(params: Params) -> None:
    metrics = json.loads((WORKSPACE / "evaluation/metrics.json").read_text())
    details = json.loads((WORKSPACE / "evaluation/details.json").read_text())
    assert {name: set(part) for name, part in metrics.items()} == {
        "student": AP | {"F1", "min_score"},
        "teacher": AP | {"F1", "min_score"},
        "pseudo": PSEUDO_KEYS,
    }
    for name in ("student", "teacher"):
        assert {key: metrics[name][key] for key in AP} == {key: details[name]["scores"][key] for key in AP}
        assert details[name]["model"] == folder_hash(WORKSPACE / name)
    quality = read_parquet(WORKSPACE / "evaluation/pseudo_quality.parquet", QUALITY)
    assert metrics["pseudo"]["points"] == len(quality) == details["pseudo"]["measured"]
    mean = sum(quality["refined_iou"].to_pylist()) / len(quality)
    assert metrics["pseudo"]["refined_iou"] == pytest.approx(100 * mean, abs=1e-3)
    # The demo's clicks lie on visible pixels of their object, so all of them match.
    assert details["pseudo"]["unmatched"] == 0
    assert sum(group["points"] for group in details["pseudo"]["by_size"].values()) == len(quality)
    assert sum(group["points"] for group in details["pseudo"]["by_class"].values()) == len(quality)


def test_plots_are_tables_without_gaps(params: Params) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        with (WORKSPACE / f"evaluation/plots/{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    curve = rows("precision_recall")
    assert [float(row["recall"]) for row in curve] == [i / 100 for i in range(101)]
    assert all(0 <= float(row[name]) <= 1 for row in curve for name in ("teacher", "student"))
    bars = rows("class_ap")
    assert [row["class"] for row in bars[:2]] == ["apple (student)", "apple (teacher)"]
    assert len({row["class"] for row in bars}) == len(bars) == 2 * len(params.demo.classes)
    points = len(read_parquet(WORKSPACE / "evaluation/pseudo_quality.parquet", QUALITY))
    for kind in ("rough", "refined"):
        assert sum(int(row[kind]) for row in rows("pseudo_iou")) == points


def test_the_same_inputs_give_the_same_bytes(params: Params) -> None:
    before = files_of(WORKSPACE / "evaluation"), (WORKSPACE / "report.html").read_bytes()
    evaluate.run(params, WORKSPACE)
    report.run(params, WORKSPACE)
    assert (files_of(WORKSPACE / "evaluation"), (WORKSPACE / "report.html").read_bytes()) == before


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(params: Params) -> None:
    """By `runtime.processes`, as a user asks for them: real ones, that meet by Gloo."""
    before = files_of(WORKSPACE / "evaluation")
    assert len(Predictions.plan(Path(), Split.open(WORKSPACE / "dataset/val"), 2).rows) == 3
    shutil.rmtree(WORKSPACE / "evaluation")
    recipe = tiny_recipe()
    recipe["runtime"]["processes"] = 2
    done = start_evaluate(recipe)
    assert done.wait(timeout=280) == 0, Path("log").read_text()
    assert files_of(WORKSPACE / "evaluation") == before
    assert json.loads((WORKSPACE / "runs/evaluate/run.json").read_text())["processes"] == 2
    assert not list((WORKSPACE / "runs/evaluate").glob("predictions-*"))


@pytest.mark.slow
def test_two_processes_name_the_images_of_both(params: Params) -> None:
    val = Split.open(WORKSPACE / "dataset/val")
    lost = [val.image_path(row) for row in range(0, len(val), 2)]
    for path in lost:
        path.unlink()
    recipe = tiny_recipe()
    recipe["runtime"]["processes"] = 2
    assert start_evaluate(recipe).wait(timeout=280) != 0
    log = Path("log").read_text()
    assert "evaluate: " in log and "3 images can't be predicted" in log
    assert all(log.count(f"- {path}") == 1 for path in lost), log


def start_evaluate(recipe: dict[str, Any]) -> subprocess.Popen[bytes]:
    """`python -m tasks.evaluate` in a process group of its own."""
    Path("params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    taken = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    environment = {name: value for name, value in os.environ.items() if name not in taken}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.evaluate"],
        env=environment, stdout=Path("log").open("ab"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", [1, 2])
def test_killed_at_any_moment_a_rerun_ends_with_the_same_bytes(params: Params, kind: int) -> None:
    """Kill -9 at random moments of one process, or of two; the rerun goes on after the parts that are there."""
    before = files_of(WORKSPACE / "evaluation")
    shutil.rmtree(WORKSPACE / "evaluation")
    recipe = tiny_recipe()
    recipe["evaluate"]["part_images"] = 2
    recipe["runtime"]["processes"] = kind
    scratch = WORKSPACE / "runs/evaluate"
    random = np.random.default_rng(kind)
    parts: list[int] = []
    for _ in range(6):
        step = start_evaluate(recipe)
        # From the first part on: before that there is nothing that could break.
        wanted = int(random.integers(len(parts) + 2))
        while step.poll() is None and len(list(scratch.glob("predictions-*/part-*.parquet"))) < wanted:
            time.sleep(0.01)
        time.sleep(float(random.random()) / 5)
        os.killpg(step.pid, signal.SIGKILL)
        step.wait()
        if (WORKSPACE / "evaluation").exists():
            break
        parts.append(len(list(scratch.glob("predictions-*/part-*.parquet"))))
        assert parts == sorted(parts)
    assert any(parts), "no kill came between two parts"
    if not (WORKSPACE / "evaluation").exists():
        step = start_evaluate(recipe)
        assert step.wait(timeout=280) == 0, Path("log").read_text()
    assert files_of(WORKSPACE / "evaluation") == before


def test_the_other_evaluator_gives_the_same_figures(params: Params) -> None:
    before = files_of(WORKSPACE / "evaluation")
    config = params.evaluate.model_copy(update={"evaluator": "faster_coco_eval"})
    evaluate.run(params.model_copy(update={"evaluate": config}), WORKSPACE)
    assert files_of(WORKSPACE / "evaluation") == before


def test_the_page_stands_alone_and_says_the_figures(params: Params) -> None:
    page = check_page((WORKSPACE / "report.html").read_text(encoding="utf-8"))
    metrics = json.loads((WORKSPACE / "evaluation/metrics.json").read_text())
    for part, key in (
        ("student", "AP"),
        ("teacher", "AP"),
        ("pseudo", "refined_iou"),
        ("pseudo", "rough_iou"),
    ):
        assert report.figure(metrics[part][key]) in page.text
    assert "with the same settings from the same initial weights" in page.text
    assert "On 1 image held out from training, refining changes the mean IoU of 3 objects" in page.text
    assert "AP is measured on 6 images with" in page.text  # of the verdict
    errors = [row["kind"] for row in errors_table()]
    crops = sum(min(errors.count(kind), report.CROPS) for kind in ("false alarm", "missed"))
    shown = min(params.report.gallery_images, 14) + 2 * min(params.report.gallery_images, 6)
    assert len(page.ids) == shown + crops + 1  # and the arrow's tip
    assert len(page.uses) == 4 * shown + crops


def errors_table() -> list[dict[str, str]]:
    with (WORKSPACE / "report/errors.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_pages_have_all_images(params: Params) -> None:
    """14 weak images in pages of 48, the lowest score first; their figures are those of the pseudo masks' table."""
    parts = sorted((WORKSPACE / "pseudo").glob("part-*.parquet"))
    pseudo = pa.concat_tables([read_parquet(part, PSEUDO) for part in parts]).to_pylist()
    with (WORKSPACE / "report/weak.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14 == len({row["image_id"] for row in pseudo})
    for row in rows:
        own = [one for one in pseudo if one["image_id"] == int(row["image_id"])]
        scores = [one["score"] or 0.0 for one in own]
        assert int(row["clicks"]) == len(own)
        assert int(row["without_a_mask"]) == sum(one["rough_rle"] is None for one in own)
        assert float(row["mean_score"]) == pytest.approx(sum(scores) / len(scores), abs=1e-4)
        assert float(row["lowest_score"]) == pytest.approx(min(scores), abs=1e-4)
    means = [float(row["mean_score"]) for row in rows]
    assert means == sorted(means)
    for kind, count in (("weak", 14), ("val", 6)):
        page = check_page((WORKSPACE / f"report/{kind}-001.html").read_text(encoding="utf-8"))
        assert len(page.uses) == count and "page 1 of 1" in page.text
        index = check_page((WORKSPACE / f"report/{kind}.html").read_text(encoding="utf-8"))
        targets = {address.split("#")[1] for address in index.loaded if "#" in address}
        assert len(targets) == count and targets <= set(page.ids)
        assert not (WORKSPACE / f"report/{kind}-002.html").exists()


def test_pages_are_at_most_as_many_as_the_params_allow(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PAGE", 5)
    few = params.report.model_copy(update={"page_images": 12})
    report.run(params.model_copy(update={"report": few}), WORKSPACE)
    sizes = [
        len(check_page((WORKSPACE / f"report/weak-00{n}.html").read_text(encoding="utf-8")).uses)
        for n in (1, 2, 3)
    ]
    assert sizes == [5, 5, 2] and not (WORKSPACE / "report/weak-004.html").exists()
    index = (WORKSPACE / "report/weak.html").read_text(encoding="utf-8")
    assert "The first 12 images of 14" in check_page(index).text
    assert len((WORKSPACE / "report/weak.csv").read_text().splitlines()) == 1 + 14
    none = params.report.model_copy(update={"page_images": 0})
    report.run(params.model_copy(update={"report": none}), WORKSPACE)
    assert sorted(path.name for path in (WORKSPACE / "report").glob("*-*")) == []
    assert "as pictures" not in check_page((WORKSPACE / "report.html").read_text(encoding="utf-8")).text


def test_an_index_is_sorted_by_each_column(params: Params) -> None:
    """The order that CSS gives each row, by the choice."""
    html = (WORKSPACE / "report/weak.html").read_text(encoding="utf-8")
    rows = re.findall(r'<a class="row".*?style="(.*?)">(.*?)</a>', html)
    orders = [dict(re.findall(r"--o(\d):(\d+)", style)) for style, _ in rows]
    cells = [re.findall(r"<span>(.*?)</span>", content) for _, content in rows]
    names = sorted(range(14), key=lambda n: cells[n][0])
    assert sorted(range(14), key=lambda n: int(orders[n]["6"])) == names
    clicks = [int(cells[n][4]) for n in sorted(range(14), key=lambda n: int(orders[n]["4"]))]
    assert clicks == sorted(clicks, reverse=True)
    iou = [float(cells[n][3]) for n in sorted(range(14), key=lambda n: int(orders[n]["3"]))]
    assert iou == sorted(iou)
    assert re.findall(r"#by(\d):checked ~ \.rows > a \{ order: var\(--o(\d)\)", html) == [
        (str(n),) * 2 for n in range(1, 7)
    ]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_on_a_narrow_screen_nothing_is_cut_and_the_index_is_sorted_by_a_choice(
    params: Params, tmp_path: Path
) -> None:
    """At 400 pixels no table scrolls sideways, and no word of a head is broken; at 1280 the picture of the pipeline is
    there. No script runs."""
    is_cut = """[...document.querySelectorAll('main *')].filter(one => one.tagName !== 'PRE'
        && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== 'visible')
        .map(one => one.tagName + ' ' + one.className)"""
    broken = """[...document.querySelectorAll('thead th')].filter(one => {
        const text = document.createRange(); text.selectNodeContents(one);
        const lines = new Set([...text.getClientRects()].map(line => Math.round(line.top)));
        return !one.textContent.trim().includes(' ') && lines.size > 1 }).map(one => one.textContent)"""
    tops = """[...document.querySelectorAll('a.row')].sort((a, b) => a.offsetTop - b.offsetTop)
        .map(one => one.children[0].textContent)"""
    with chromium(tmp_path, "http://127.0.0.1:9") as tab:
        for width, shown in ((400, "none"), (1280, "block")):
            tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=800,
                deviceScaleFactor=1,
                mobile=False,
            )
            for name in ("report.html", "report/weak.html", "report/weak-001.html", "report/val-001.html"):
                tab.open((WORKSPACE / name).resolve().as_uri())
                assert tab.run(is_cut) == [], (width, name)
                assert tab.run(broken) == [], (width, name)
                assert tab.run("document.documentElement.scrollWidth") <= width
                if name == "report.html":
                    assert tab.run("getComputedStyle(document.querySelector('.diagram')).display") == shown
        tab.open((WORKSPACE / "report/weak.html").resolve().as_uri())
        by_score = tab.run(tops)
        tab.run("document.querySelector('#by6').click()")
        names = tab.run(tops)
    with (WORKSPACE / "report/weak.csv").open(newline="") as file:
        assert by_score == [row["file_name"] for row in csv.DictReader(file)]
    assert names == sorted(by_score) != by_score


def test_without_kept_aside_masks_pseudo_figures_are_null(params: Params) -> None:
    folder = WORKSPACE / "dataset/kept_aside"
    split = Split.open(folder)
    write_split(folder, split.images.slice(0, 0), INSTANCES.empty_table(), split.categories, split.image_root)
    write_manifest(
        folder, "ingest", {"images": 0, "rejected": 0, "instances": 0, "categories": len(split.categories)}
    )
    evaluate.run(params, WORKSPACE)
    report.run(params, WORKSPACE)
    pseudo = json.loads((WORKSPACE / "evaluation/metrics.json").read_text())["pseudo"]
    assert pseudo.keys() == PSEUDO_KEYS
    assert pseudo["points"] > 0
    assert {pseudo[key] for key in ("rough_iou", "refined_iou", "refined_over_50")} == {None}
    page = check_page((WORKSPACE / "report.html").read_text(encoding="utf-8"))
    assert "No true masks of weak images were kept aside" in page.text
    assert "ranked by the mean score" in page.text


def test_with_rounds_the_page_has_the_held_out_iou_of_each(params: Params) -> None:
    gate = read_gate(WORKSPACE / "refiner")
    write_judge(WORKSPACE / "pseudo", without_rules(("teacher",), "teacher", {"teacher": gate}, (1.0,)))
    for part in (WORKSPACE / "pseudo").glob("part-*.parquet"):
        table = read_parquet(part, PSEUDO)
        reasons = pa.array([f"{DRAWN_BY}teacher"] * len(table), PSEUDO.field("reason").type)
        at = PSEUDO.get_field_index("reason")
        write_parquet(table.set_column(at, PSEUDO.field("reason"), reasons), part)
    write_manifest(WORKSPACE / "rounds", "train_rounds", {"rounds": 1}, held_out_iou=[12.34])
    report.run(params, WORKSPACE)
    page = check_page((WORKSPACE / "report.html").read_text(encoding="utf-8"))
    assert "The masks in use, by round: round 1 12.3, round 2" in page.text


def test_val_images_without_objects_have_no_ap(params: Params) -> None:
    folder = WORKSPACE / "dataset/val"
    split = Split.open(folder)
    write_split(folder, split.images, INSTANCES.empty_table(), split.categories, split.image_root)
    write_manifest(folder, "ingest", {"images": len(split), "rejected": 0, "instances": 0})
    evaluate.run(params, WORKSPACE)
    report.run(params, WORKSPACE)
    metrics = json.loads((WORKSPACE / "evaluation/metrics.json").read_text())
    assert set(metrics["student"].values()) == {None}
    page = check_page((WORKSPACE / "report.html").read_text(encoding="utf-8"))
    assert "the validation images hold no objects" in page.text


def test_a_lost_image_and_an_odd_class_name_are_shown_not_fatal(params: Params) -> None:
    folder = WORKSPACE / "dataset/weak"
    split = Split.open(folder)
    odd = [
        category._replace(name="<b>&") if i == 0 else category for i, category in enumerate(split.categories)
    ]
    write_split(folder, split.images, split.instances, odd, split.image_root)
    write_manifest(folder, "ingest", {"images": len(split), "rejected": 0, "instances": 0})
    for i in range(len(split)):
        split.image_path(i).unlink()
    report.run(params, WORKSPACE)
    html = (WORKSPACE / "report.html").read_text(encoding="utf-8")
    assert "no such file" in html
    assert "&lt;b&gt;&amp;" in html
    assert "<b>&<" not in html


def test_a_model_of_other_classes_is_refused_and_nothing_is_written(params: Params) -> None:
    folder = WORKSPACE / "dataset/val"
    split = Split.open(folder)
    renamed = [category._replace(name=category.name + "s") for category in split.categories]
    write_split(folder, split.images, split.instances, renamed, split.image_root)
    before = files_of(WORKSPACE / "evaluation")
    with pytest.raises(TaskError, match="dvc repro train_teacher"):
        evaluate.run(params, WORKSPACE)
    assert files_of(WORKSPACE / "evaluation") == before


@pytest.mark.parametrize("missing", ["evaluation/metrics.json", "points/manifest.json", "student/model.json"])
def test_a_missing_input_names_the_step_that_makes_it(params: Params, missing: str) -> None:
    (WORKSPACE / missing).unlink()
    (WORKSPACE / "report.html").unlink()
    with pytest.raises(TaskError, match=rf"{missing}: no such file; it is made by `dvc repro "):
        report.run(params, WORKSPACE)
    assert not (WORKSPACE / "report.html").exists()


def test_quality_rows_are_those_of_the_pseudo_labels(params: Params) -> None:
    parts = sorted((WORKSPACE / "pseudo").glob("part-*.parquet"))
    labels = pa.concat_tables([read_parquet(part, PSEUDO) for part in parts])
    quality = read_parquet(WORKSPACE / "evaluation/pseudo_quality.parquet", QUALITY)
    assert quality["point_id"].to_pylist() == labels["point_id"].to_pylist()
    assert quality["status"].to_pylist() == labels["status"].to_pylist()


def test_a_random_sample_is_estimated_and_reported(params: Params) -> None:
    """Half of the judged masks are right; without the sample all bytes are as before."""
    before = files_of(WORKSPACE / "evaluation") | files_of(WORKSPACE / "points")
    folder = Path(params.review.decisions)
    sample = open_sample(folder, WORKSPACE, 4, 0, redraw=False).sample
    rows = {row["point_id"]: row for row in read_pseudo(WORKSPACE / "pseudo").to_pylist()}
    anna = DecisionLog(folder, "anna")
    for n, one in enumerate(sample.objects):
        mask = Mask(64, 64, rows[one.object]["refined_rle"] or rows[one.object]["rough_rle"])
        fields = {"image": one.image, "object": one.object, "audit": sample.id}
        if n % 2:
            anna.append("reject", **fields)
        else:
            anna.append("accept", **fields, mask=mask)
    for step in ("import_points", "evaluate", "report"):
        run_step(step, params, WORKSPACE)
    audit = json.loads((WORKSPACE / "evaluation/metrics.json").read_text())["audit"]
    assert (audit["judged"], audit["right"], audit["wrong"]["rejected"]) == (4, 2, 2)
    assert audit["changed"] == 0 and audit["low"] < audit["precision"] < audit["high"]
    html = Path("workspace/report.html").read_text()
    assert "4 of 4 masks of a random sample were judged" in html and "<h2>Audit</h2>" in html
    shutil.rmtree(folder)
    folder.mkdir()
    for step in ("import_points", "evaluate", "report"):
        run_step(step, params, WORKSPACE)
    after = files_of(WORKSPACE / "evaluation") | files_of(WORKSPACE / "points")
    assert after == before and "<h2>Audit</h2>" not in Path("workspace/report.html").read_text()
