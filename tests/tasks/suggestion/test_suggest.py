"""`points2model suggest` in a tiny project: list, page, task and its way back, and what is wrong with input."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from data.annotations.read import read_annotations
from data.decisions.store import DecisionLog
from data.tables import POINTS, SENT, Split, read_parquet, write_parquet
from flows.cli.main import app
from models.checkpoint import load_teacher
from models.inference.pooled import pooled_features
from models.inference.tiles import Tiled, forward_tiled
from tasks.common.config import Params
from tasks.suggestion import outputs
from tests.tasks.conftest import blank_registry, tiny_recipe

WORKSPACE = Path("workspace")


@pytest.fixture
def project(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny line, in which nothing is promoted and there is no student."""
    shutil.copytree(line[0] / "workspace", tmp_path / "workspace")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_recipe()))
    blank_registry(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["suggest", *arguments, "--device", "cpu"])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else " ".join(result.output.split())


def found(*arguments: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(call(*arguments, "--json"))
    return made


def names(summary: dict[str, Any]) -> list[str]:
    return [one["image"] for one in summary["images"]]


def weak() -> Split:
    return Split.open(WORKSPACE / "dataset" / "weak")


def points() -> pa.Table:
    return read_parquet(WORKSPACE / "points/points.parquet", POINTS)


def folder_of(images: Sequence[Path], folder: Path) -> Path:
    folder.mkdir()
    for path in images:
        shutil.copy(path, folder)
    return folder


def test_list_page_task_and_its_way_back(project: Path) -> None:
    """What is chosen is in the table, on the page and in the task; a corrected task becomes decisions of a reviewer."""
    text = call("--masks", "4", "--to", "cvat")
    assert "model: the teacher; nothing is promoted" in text and "4 images of 14" in text
    summary = json.loads(Path("suggested/suggestion.json").read_text())
    chosen = names(summary)
    assert len(set(chosen)) == 4 and set(chosen) <= set(weak().images["file_name"].to_pylist())
    ids = dict(zip(*(weak().images[key].to_pylist() for key in ("file_name", "image_id")), strict=True))
    clicks = points()["image_id"].to_pylist()
    assert [one["objects"] for one in summary["images"]] == [clicks.count(ids[name]) for name in chosen]
    assert summary["seconds"] == round(sum(one["objects"] for one in summary["images"]) * 79.2)
    assert all(one["reasons"] and Path(one["path"]).is_file() for one in summary["images"])
    with Path("suggested/suggestion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == chosen and [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["reasons"].split("; ") for row in rows] == [one["reasons"] for one in summary["images"]]

    page = Path("suggested/contact-sheet.html").read_text()
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert re.findall(r"<b>\d+\. (.*?)</b>", page) == chosen
    for one, picture in zip(summary["images"], pictures, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
        plain = cv2.resize(cv2.imread(one["path"])[:, :, ::-1], (640, 640), interpolation=cv2.INTER_LINEAR)
        assert shown.shape == (640, 640, 3)
        # The image with masks over a part of it.
        changed = (np.abs(shown.astype(int) - plain).max(2) > 40).mean()
        assert 0.005 < changed < 0.9

    task = read_annotations(Path("suggested/cvat/pseudo.xml"))
    assert sorted(row["file_name"] for row in task.images) == sorted(chosen)
    sent = read_parquet(Path("suggested/cvat/sent.parquet"), SENT)
    assert set(sent["image"].to_pylist()) <= set(chosen) and len(sent) == len(task.annotations) > 0
    # A person is through with the first image, and removes one of its objects.
    first = sent["image"][0].as_py()
    own = sent.filter(pa.compute.equal(sent["image"], first))["object_id"].to_pylist()
    xml = Path("suggested/cvat/pseudo.xml").read_text()
    image = re.search(rf'<image [^>]*name="{re.escape(first)}".*?</image>', xml, re.DOTALL)
    assert image is not None
    corrected = re.sub(rf"<mask (?:(?!</mask>).)*{own[0]}.*?</mask>\n", "", image[0], flags=re.DOTALL)
    corrected = corrected.replace("</image>", '<tag label="reviewed" source="manual"/></image>')
    Path("corrected.xml").write_text(xml.replace(image[0], corrected))
    arguments = [
        "review",
        "--import",
        "corrected.xml",
        "--sent",
        "suggested/cvat",
        "--reviewer",
        "anna",
        "--json",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    expected = {"reject": 1} | ({"accept": len(own) - 1} if len(own) > 1 else {})
    assert json.loads(result.stdout)["actions"] == expected


def test_a_finished_image_isnt_chosen_again(project: Path) -> None:
    before = names(found("--masks", "99"))
    assert len(before) == 14
    log = DecisionLog(Path("decisions"), "anna")
    log.append("complete", image=before[0])
    undone = log.append("complete", image=before[1])
    log.append("undo", undoes=undone.id)
    text = call("--masks", "14", "--json")
    assert sorted(names(json.loads(text))) == sorted(before[1:])
    assert (
        "there are only 13 images" in CliRunner().invoke(app, ["suggest", "--masks", "14", "--json"]).stderr
    )
    for name in before[1:]:
        log.append("complete", image=name)
    assert "all weak images are complete; name other ones with --images" in call("--masks", "1", code=1)


def test_corrected_files_become_strong_images(project: Path) -> None:
    """The other way back: with `weak: null` the images of a corrected task move over to those with masks."""
    chosen = names(found("--masks", "2", "--to", "coco"))
    recipe = tiny_recipe()
    folder = WORKSPACE / "demo" / "annotations"
    if not folder.exists():
        folder = Path(recipe["ingest"]["annotations"])
    shutil.copy("suggested/coco/pseudo.json", folder / "corrected.json")
    recipe["ingest"] |= {
        "strong": [recipe["ingest"]["strong"], "corrected.json"],
        "weak": None,
        "kept_aside": None,
    }
    Path("params.yaml").write_text(yaml.safe_dump(recipe))
    from tasks import ingest
    from tasks.common.config import load_params

    before = Split.open(WORKSPACE / "dataset" / "strong").images["file_name"].to_pylist()
    ingest.run(load_params(Path("params.yaml")), WORKSPACE)
    strong = Split.open(WORKSPACE / "dataset" / "strong")
    assert sorted(strong.images["file_name"].to_pylist()) == sorted(before + chosen)
    assert not set(chosen) & set(weak().images["file_name"].to_pylist())


def test_clicks_go_to_images_without_any(project: Path) -> None:
    assert "all weak images have clicks; name other ones with --images" in call("--clicks", "9", code=1)
    some = weak().images["image_id"].to_pylist()[:5]
    clicked = [image_id not in some for image_id in points()["image_id"].to_pylist()]
    write_parquet(points().filter(pa.array(clicked)), WORKSPACE / "points/points.parquet")
    summary = found("--clicks", "1000")
    ids = dict(zip(*(weak().images[key].to_pylist() for key in ("file_name", "image_id")), strict=True))
    assert sorted(ids[name] for name in names(summary)) == some
    assert summary["for"] == "clicks" and summary["cost"]["seconds"] == 2.4
    assert summary["seconds"] == pytest.approx(2.4 * summary["objects"], abs=0.7)
    # The tiny teacher finds hardly anything: an image counts as one object at least.
    less = found("--clicks", "2")["images"]
    assert len(less) == 1 or sum(max(1, one["objects"]) for one in less) <= 2
    assert "--to: found --clicks" in call("--clicks", "9", "--to", "cvat", code=1)


def test_a_folder_of_new_images(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever order they are in, with unreadable ones among them, which are all listed; as in `coco` the model's own
    masks, which can be ingested as they are."""
    recipe = tiny_recipe()
    recipe["evaluate"]["inference"] |= {
        "score_threshold": 0.01,
        "nms_threshold": 0.001,
    }  # the teacher is a bad one
    (project / "params.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr("tasks.suggestion.suggest.USUAL_MIN_SCORE", 0.02)
    files = [weak().image_path(row) for row in range(6)]
    new = folder_of(files, project / "new")
    first = found("--masks", "3", "--images", "new", "--to", "coco", "--out", "next")
    assert len(names(first)) == 3 and first["candidates"] == 6 and first["unreadable"] == []
    task = read_annotations(Path("next/coco/images.json"))
    assert sorted(row["file_name"] for row in task.images) == sorted(names(first))
    assert len(task.annotations) > 3 and min(row["score"] for row in task.annotations) >= 0.02
    sent = read_parquet(Path("next/coco/sent.parquet"), SENT)
    assert set(sent["object_id"].to_pylist()) == {None}  # no object of the project
    again = [str(path) for path in sorted(new.iterdir(), reverse=True)]
    options = [one for name in again for one in ("--images", name)]
    assert names(found("--masks", "3", *options)) == names(first)

    (new / "broken.png").write_bytes(b"no image")
    whole = (new / files[0].name).read_bytes()
    (new / "cut.png").write_bytes(whole[: len(whole) // 2])
    (new / "empty.jpg").write_bytes(b"")
    second = found("--masks", "3", "--images", "new")
    assert names(second) == names(first) and second["candidates"] == 6
    assert [re.search(r"(\w+)\.(png|jpg)", fault)[1] for fault in second["unreadable"]] == [
        "broken",
        "cut",
        "empty",
    ]  # type: ignore[index]
    for path in new.iterdir():
        path.write_bytes(b"no image")
    text = call("--masks", "3", "--images", "new", code=1)
    assert "no image can be read" in text and all(path.name in text for path in files)
    assert "no such" in call("--masks", "3", "--images", "nowhere.png", code=1)


def test_equal_calls_give_equal_bytes_and_stopped_ones_go_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "PART_IMAGES", 4)
    calls: list[int] = []
    whole = outputs.CachedModel._part

    def stops(self: outputs.CachedModel, split: Split, part: Sequence[int], bar: Any) -> pa.Table:
        calls.append(len(part))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, split, part, bar)

    monkeypatch.setattr(outputs.CachedModel, "_part", stops)
    assert CliRunner().invoke(app, ["suggest", "--masks", "3", "--device", "cpu"]).exit_code != 0
    assert calls == [4, 4, 4] and not Path("suggested").exists()
    call("--masks", "3", "--to", "label-studio")
    assert calls[3:] == [4, 2, 4, 2]  # those of the third part, and of the images with masks
    first = {path: path.read_bytes() for path in sorted(Path("suggested").rglob("*")) if path.is_file()}
    shutil.rmtree(WORKSPACE / "runs" / "suggest")
    call("--masks", "3", "--to", "label-studio")
    assert {
        path: path.read_bytes() for path in sorted(Path("suggested").rglob("*")) if path.is_file()
    } == first
    assert len(calls) == 3 + 4 + 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of --masks N"),
        (["--masks", "2", "--clicks", "3"], "expected one of --masks N"),
        (["--masks", "2", "--model", "nowhere"], "nowhere"),
        (["--masks", "2", "--model", "v7"], "v7"),
    ],
)
def test_requests_that_cant_be_met(project: Path, arguments: list[str], message: str) -> None:
    assert message in call(*arguments, code=1)
    assert not Path("suggested").exists()


def test_without_a_model_or_data(project: Path) -> None:
    Path("suggested/cvat").mkdir(parents=True)
    Path("suggested/cvat/mine.txt").write_text("mine")
    assert "files that aren't from an export" in call("--masks", "2", "--to", "cvat", code=1)
    shutil.move(WORKSPACE / "teacher", "model")
    assert "found no model" in call("--masks", "2", code=1)
    shutil.rmtree(WORKSPACE / "dataset" / "strong")
    assert "split.json" in call("--masks", "2", "--model", "model", code=1)
    image = weak().image_path(0)
    folder_of([image], project / "one")
    shutil.rmtree(WORKSPACE / "dataset")
    only = found("--masks", "2", "--model", "model", "--images", "one")
    assert names(only) == [image.name] and only["labelled"] == 0


def test_features_dont_depend_on_padding_or_batch(project: Path) -> None:
    """They are the means of the backbone's last map over an image, whichever images are beside it."""
    import torch

    model = load_teacher(WORKSPACE / "teacher", torch.device("cpu"))
    images = torch.randint(0, 255, (2, 3, 64, 96), dtype=torch.uint8)
    sizes = [(64, 96), (64, 64)]
    images[1, :, :, 64:] = 0
    with torch.inference_mode(), pooled_features(model) as pooled:
        both = (forward_tiled(model, images, sizes, None), pooled.take([1, 1]))[1]
        one = (forward_tiled(model, images[1:], sizes[1:], None), pooled.take([1]))[1]
        maps = model.backbone.body(model.normalise(images, sizes))[-1]
    assert torch.allclose(both[1], one[0], atol=1e-5)
    assert torch.allclose(both[0], maps[0].mean((1, 2)), atol=1e-5)
    assert torch.allclose(both[1], maps[1, :, :, :2].mean((1, 2)), atol=1e-5)
    from models.config import TileConfig

    with torch.inference_mode(), pooled_features(model) as pooled:
        tiled = forward_tiled(model, images, sizes, TileConfig(side=64, overlap=32))
        assert isinstance(tiled, Tiled) and [len(tiles) for tiles in tiled.tiles] == [2, 2]
        rows = pooled.take([2, 2])
        whole = model.backbone.body(model.normalise(images[1:, :, :, :64], None))[-1].sum((2, 3))
        edge = model.backbone.body(model.normalise(images[1:, :, :, 32:], [(64, 32)]))[-1][:, :, :, :1].sum(
            (2, 3)
        )
    assert torch.allclose(rows[1], ((whole + edge) / (4 + 2))[0], atol=1e-5)
    assert not model._forward_hooks and not model.backbone.body._forward_hooks
