"""Predicting outside the pipeline: by the reference's rules its results, by ours a row for each click."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from pycocotools import mask as rle_tools
from typer.testing import CliRunner

from data.errors import DataError
from flows.cli.main import app
from models.config import SOLOv2Config
from models.masks.geometry import measure
from models.reference.published import refinenet_names, solov2_names
from models.reference.published_config import STUDENT, refinenet_config, solov2_config
from models.refiner.network import MaskRefineNet
from models.solov2.network import SOLOv2
from tasks.common.errors import TaskError
from tasks.promotion.baseline import folder_hash
from tasks.tools import predict_images as predict_images_module
from tasks.tools.import_checkpoint import import_checkpoint
from tasks.tools.predict_images import predict_images
from tasks.tools.predict_inputs import expanded
from tests.conftest import Bucket
from tests.tasks.conftest import ROOT, tiny_recipe

Rows = list[dict[str, Any]]
UNRESIZED = ["--short-side", "256", "--device", "cpu"]
"""The fixture's image went into the reference as it was."""


def call(images: list[Any], model: Path, out: Path, **options: Any) -> Rows:
    usual = {"compat": False, "points": None, "refiner": None, "params": None, "device": "cpu"}
    usual |= {"short_side": None, "max_side": None}
    counts = predict_images(list(map(str, images)), model, out, **{**usual, **options})
    rows: Rows = json.loads((out / "results.json").read_text())
    assert counts["masks"] == sum(row.get("status") != "empty" for row in rows)
    return rows


def decoded(rows: Rows) -> np.ndarray:
    return np.stack([rle_tools.decode(row["segmentation"]) for row in rows]).astype(bool)


def iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one & other).sum((1, 2)) / np.maximum((one | other).sum((1, 2)), 1)


def points_file(path: Path, points: list[tuple[float, float, int]], name: str) -> Path:
    rows = [
        {"id": n, "image_id": 9, "category_id": category, "point": [x, y]}
        for n, (x, y, category) in enumerate(points)
    ]
    path.write_text(json.dumps({"images": [{"id": 9, "file_name": name}], "annotations": rows}))
    return path


# --- against the reference -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fixture(shared_dir: Path) -> Path:
    folder = shared_dir / "fixtures/reference/solov2_tiny"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture(scope="module")
def scene(fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """The fixture's image as a file, its masks [12, 256, 320] and classes; points lie at masses' centres."""
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    with np.load(fixture / "a256x320_input.npz") as file:
        cv2.imwrite(str(path), file["image_bgr"])
        masks = np.unpackbits(file["mask_bits"])[: 12 * 256 * 320].reshape(12, 256, 320).astype(bool)
        return path, masks, file["classes"]


@pytest.fixture(scope="module", params=["matrix", "mask"])
def imported(request: pytest.FixtureRequest, fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The fixture's weights imported from the command line, and the kind of NMS that its configuration names."""
    folder = tmp_path_factory.mktemp(f"imported_{request.param}")
    config = yaml.safe_load((fixture / "config.yaml").read_text())
    config["MODEL"]["SOLOV2"]["NMS_TYPE"] = request.param
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["import-checkpoint", str(fixture / "weights.pth"), "--out", str(folder / "model")]
    result = CliRunner().invoke(app, [*arguments, "--config", str(folder / "config.yaml")])
    assert result.exit_code == 0, result.output
    return folder / "model", request.param


def test_plain_results_are_the_reference_s(imported: Any, scene: Any, fixture: Path, tmp_path: Path) -> None:
    model, nms = imported
    arguments = ["predict", str(scene[0]), "--model", str(model), "--compat", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, *UNRESIZED, "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "results.json").read_text())
    with np.load(fixture / f"a256x320_infer_none_{nms}.npz") as theirs:
        assert [row["category_id"] - 1 for row in rows] == theirs["classes"].tolist()
        np.testing.assert_allclose([row["score"] for row in rows], theirs["scores"], atol=1e-5)
        masks = np.unpackbits(theirs["mask_bits"])[: 100 * 256 * 320].reshape(100, 256, 320).astype(bool)
        assert iou(decoded(rows), masks).min() >= 0.999
    assert {(row["image_id"], row["file_name"]) for row in rows} == {(1, str(scene[0]))}


@pytest.mark.parametrize("imported", ["mask"], indirect=True)
def test_prompted_results_are_the_reference_s(
    imported: Any, scene: Any, fixture: Path, tmp_path: Path
) -> None:
    """Its points are mass centres; those of objects 5 and 8 it doesn't make
    (tests/models/reference/test_reference.py)."""
    path, masks, classes = scene
    centres = measure(torch.from_numpy(masks)).centre.tolist()
    clicked = [i for i in range(12) if i not in (5, 8)]
    clicks = points_file(
        tmp_path / "clicks.json", [(*centres[i], int(classes[i]) + 1) for i in clicked], "scene.png"
    )
    arguments = ["predict", str(path), "--model", str(imported[0]), "--compat", "--points", str(clicks)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), *UNRESIZED])
    assert result.exit_code == 0, result.output
    assert "9 masks for 10 points on 1 image" in " ".join(result.output.split())
    rows = json.loads((tmp_path / "out/results.json").read_text())
    with np.load(fixture / "a256x320_infer_point_mask_openranges.npz") as theirs:
        assert [row["category_id"] - 1 for row in rows] == theirs["classes"].tolist()
        np.testing.assert_allclose([row["score"] for row in rows], theirs["scores"], atol=1e-5)
        found = np.unpackbits(theirs["mask_bits"])[: 9 * 256 * 320].reshape(9, 256, 320).astype(bool)
        assert iou(decoded(rows), found).min() >= 0.999
        places = (np.array([row["point"] for row in rows]) - 0.5) / [320, 256] * 10_000
        assert np.array_equal(places.round()[:, ::-1], theirs["boxes_or_points"][:, :2])
    fates = {row["record"]: row["fate"] for row in json.loads((tmp_path / "out/points.json").read_text())}
    assert len(fates) == 10
    assert {name for name, fate in fates.items() if fate != "kept"} == {"annotation 9"}  # object 11


# --- ours ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A narrow published SOLOv2 and MaskRefineNet of 3 classes, imported. Random weights that draw masks."""
    folder = tmp_path_factory.mktemp("narrow")
    torch.manual_seed(0)
    config, _ = solov2_config({}, dataclasses.replace(STUDENT, grids=(12, 10, 8, 6, 4)))
    small = {
        "fpn_channels": 16,
        "head_channels": 24,
        "kernel_channels": 12,
        "mask_channels": 8,
        "head_convs": 1,
    }
    width = {"backbone": {**config.backbone.model_dump(), "width": 0.125}}
    network = SOLOv2(SOLOv2Config.model_validate({**config.model_dump(), **small, **width}), 3)
    refiner_config, _ = refinenet_config({})
    small = {"aspp_channels": 8, "decoder_channels": (16, 8, 8, 4), "heatmap_channels": 4}
    width = {"backbone": {**refiner_config.backbone.model_dump(), "width": 0.125}}
    refiner = MaskRefineNet(
        type(refiner_config).model_validate({**refiner_config.model_dump(), **small, **width})
    )
    with torch.no_grad():
        for parameter in [*network.instance_head.parameters(), *network.mask_branch.parameters()]:
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    for name, model, names in (
        ("solov2", network, solov2_names("resnet50", 1)),
        ("refiner", refiner, refinenet_names(3)),
    ):
        state = model.state_dict()
        torch.save({theirs: state[ours] for theirs, ours in names.items()}, folder / f"{name}.pth")
        options = {"categories": None, "settings": None, "config": None}
        if name == "solov2":
            lines = "MODEL: {SOLOV2: {NUM_GRIDS: [12, 10, 8, 6, 4]}}\nINPUT: {MIN_SIZE_TEST: 96, MAX_SIZE_TEST: 160}\n"
            (folder / "narrow.yaml").write_text(lines)
            options["config"] = folder / "narrow.yaml"
        import_checkpoint(folder / f"{name}.pth", folder / name, **options)
    return folder / "solov2", folder / "refiner"


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / "images/a.png", tmp_path / "images/sub/b.png"]
    for path, size in zip(paths, [(70, 100), (120, 64)], strict=True):
        path.parent.mkdir(exist_ok=True, parents=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    return paths


@pytest.fixture
def params(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_recipe()))
    return tmp_path / "params.yaml"


@pytest.mark.parametrize("refined", [False, True])
def test_each_click_has_one_row_in_the_file_s_order(
    narrow: tuple[Path, Path], images: list[Path], params: Path, tmp_path: Path, refined: bool
) -> None:
    places = [
        (10.5, 20.5, 3),
        (10.5, 21.5, 3),
        (0.0, 0.0, 1),
        (63.9, 119.0, 2),
        (30.0, 40.0, 2),
        (30.0, 40.0, 1),
    ]
    clicks = points_file(tmp_path / "clicks.json", places, "sub/b.png")
    refiner = narrow[1] if refined else None
    rows = call(images, narrow[0], tmp_path / "out", points=clicks, params=params, refiner=refiner)
    assert [row["point"] for row in rows] == [pytest.approx([x, y], abs=1e-4) for x, y, _ in places]
    assert [row["category_id"] for row in rows] == [category for _, _, category in places]
    assert {(row["image_id"], row["file_name"]) for row in rows} == {(2, str(images[1]))}
    assert all(row["segmentation"]["size"] == [120, 64] for row in rows)
    assert len({row["point_id"] for row in rows}) == len(places)
    areas = decoded(rows).sum((1, 2))
    assert [row["status"] == "empty" for row in rows] == (areas == 0).tolist()
    assert areas.max() > 0
    fates = json.loads((tmp_path / "out/points.json").read_text())
    assert [fate["fate"] for fate in fates] == [row["status"] for row in rows]


def test_further_clicks_change_the_mask_of_their_object(
    narrow: tuple[Path, Path],
    images: list[Path],
    params: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The reference's rules have none: they are left out, with a warning."""
    clicks = points_file(tmp_path / "clicks.json", [(10.5, 20.5, 3), (30.5, 90.5, 2)], "sub/b.png")
    plain = call(images, narrow[0], tmp_path / "out", points=clicks, params=params)
    as_reference = call(images, narrow[0], tmp_path / "out", points=clicks, compat=True)
    document = json.loads(clicks.read_text())
    document["annotations"][0] |= {"point_coords": [[40.5, 60.5], [10.5, 20.5], [20.5, 20.5]]}
    document["annotations"][0] |= {"point_labels": [0, 1, 1]}
    del document["annotations"][0]["point"]
    clicks.write_text(json.dumps(document))
    found = call(images, narrow[0], tmp_path / "out", points=clicks, params=params)
    assert [row["point"] for row in found] == [[10.5, 20.5], [30.5, 90.5]]
    assert found[1] == plain[1]
    assert found[0]["segmentation"] != plain[0]["segmentation"]
    assert not caplog.text
    assert call(images, narrow[0], tmp_path / "out", points=clicks, compat=True) == as_reference
    assert "2 further clicks are left out: the reference's rules take one click an object" in caplog.text


def test_the_reference_s_rules_report_every_click_s_fate(
    narrow: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    places = [(10.5, 20.5, 3), (11.2, 20.5, 3), (60.0, 100.0, 1)]
    clicks = points_file(tmp_path / "clicks.json", places, "b.png")
    rows = call(images, narrow[0], tmp_path / "out", points=clicks, compat=True, refiner=narrow[1])
    fates = [row["fate"] for row in json.loads((tmp_path / "out/points.json").read_text())]
    assert fates[1] == "the mask of point 0: the same cell and class"
    assert fates.count("kept") == len(rows) >= 1


@pytest.mark.parametrize("least", [None, 0.0, 0.02, 1.0])
def test_instances_below_the_least_score_are_left_out(
    narrow: tuple[Path, Path], images: list[Path], tmp_path: Path, least: float | None
) -> None:
    every = call(images, narrow[0], tmp_path / "all")
    scores = sorted(row["score"] for row in every)
    least = least if least != 0.02 else scores[len(scores) // 2]  # one that a row has: it stays
    kept = call(images, narrow[0], tmp_path / "kept", min_score=least, pictures=True)
    assert kept == [row for row in every if row["score"] >= (least or 0)]
    assert sorted(path.name for path in (tmp_path / "kept/pictures").glob("*.*g")) == ["a.jpg", "b.jpg"]
    drawn = cv2.imread(str(tmp_path / "kept/pictures/a.jpg"))
    call(images, narrow[0], tmp_path / "none", min_score=1.0, pictures=True)
    untouched = cv2.imread(str(tmp_path / "none/pictures/a.jpg"))
    assert drawn.shape == untouched.shape == (448, 640, 3)
    assert bool((drawn != untouched).any()) == any(
        row["image_id"] == 1 and row["score"] >= (0.3 if least is None else least) for row in every
    )
    assert cv2.imread(str(tmp_path / "kept/contact-sheet.jpg")) is not None


def test_the_chosen_score_decides_on_pictures_and_label_files_but_not_on_results(
    narrow: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    """A model in a workspace whose evaluation chose a score."""
    every = call(images, narrow[0], tmp_path / "all")
    scores = sorted(row["score"] for row in every)
    least = scores[len(scores) // 2]
    shutil.copytree(narrow[0], tmp_path / "workspace/student")
    (tmp_path / "workspace/evaluation").mkdir()
    files = {
        "details": {"student": {"model": folder_hash(narrow[0])}},
        "metrics": {"student": {"min_score": least}},
    }
    for name, content in files.items():
        (tmp_path / f"workspace/evaluation/{name}.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    assert call(images, tmp_path / "workspace/student", out, pictures=True, formats=["coco", "cvat"]) == every
    coco = json.loads((out / "coco/predictions.json").read_text())
    expected = [row for row in every if row["score"] >= least]
    assert [a["score"] for a in coco["annotations"]] == [row["score"] for row in expected]
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "sub/b.png"]
    assert (out / "cvat/predictions.xml").read_text().count("<mask ") == len(expected)
    kept = call(images, tmp_path / "workspace/student", out, min_score=1.0, formats=["coco"])
    assert kept == [] and json.loads((out / "coco/predictions.json").read_text())["annotations"] == []
    with pytest.raises(TaskError, match="--format: found 'voc', expected one of"):
        call(images, narrow[0], tmp_path / "other", formats=["voc"])
    assert not (tmp_path / "other").exists()


def test_images_in_s3(narrow: tuple[Path, Path], images: list[Path], tmp_path: Path, bucket: Bucket) -> None:
    """Those below the prefix; other objects aren't downloaded. Results have their addresses."""
    bucket.fill({"photos/a.png": images[0].read_bytes(), "photos/sub/b.png": images[1].read_bytes(),
                 "photos/notes.txt": b"x", "other/c.png": images[0].read_bytes()})  # fmt: skip
    local = call(images, narrow[0], tmp_path / "local")
    source = f"s3://{bucket.name}/photos"
    found = call([source], narrow[0], tmp_path / "out", pictures=True, formats=["coco"])
    names = {1: f"{source}/a.png", 2: f"{source}/sub/b.png"}
    assert found == [row | {"file_name": names[row["image_id"]]} for row in local]
    coco = json.loads((tmp_path / "out/coco/predictions.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "sub/b.png"]
    assert sorted(path.name for path in (tmp_path / "out/pictures").glob("*.jpg")) == ["a.jpg", "b.jpg"]
    assert not list((tmp_path / "out").rglob("notes.txt"))
    with pytest.raises(DataError, match="no object there"):
        call([f"s3://{bucket.name}/gone"], narrow[0], tmp_path / "out")
    bucket.fill({"texts/notes.txt": b"x"})
    with pytest.raises(TaskError, match="texts: found no image"):
        call([f"s3://{bucket.name}/texts"], narrow[0], tmp_path / "out")


def test_at_clicks_no_row_is_left_out(
    narrow: tuple[Path, Path], images: list[Path], params: Path, tmp_path: Path
) -> None:
    clicks = points_file(tmp_path / "clicks.json", [(10.5, 20.5, 3), (30.0, 40.0, 2)], "sub/b.png")
    rows = call(
        images, narrow[0], tmp_path / "out", points=clicks, params=params, min_score=1.0, pictures=True
    )
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["images"], ["images/a.png", "images/sub/b.png"]),
        (["images/sub"], ["images/sub/b.png"]),
        (["images/*"], ["images/a.png"]),
        (["images/**/*.png"], ["images/a.png", "images/sub/b.png"]),
        (["images/sub/b.png", "images/[a].png"], ["images/sub/b.png", "images/a.png"]),
        (["images/missing.png"], ["images/missing.png"]),
    ],
)
def test_names_of_folders_and_patterns(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], found: list[str]
) -> None:
    for hidden in ("._a.png", ".thumbs/t.png"):
        (tmp_path / "images" / hidden).parent.mkdir(exist_ok=True)
        shutil.copy(images[0], tmp_path / "images" / hidden)
    monkeypatch.chdir(tmp_path)
    assert [image.name for image in expanded(names, Path("out"))] == found
    absolute = expanded([str(tmp_path / name) for name in names], tmp_path / "out")
    assert [image.path for image in absolute] == [tmp_path / name for name in found]


def test_pictures_of_an_earlier_run_are_no_images(
    narrow: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    for _ in range(2):
        rows = call([folder], narrow[0], folder / "out", pictures=True)
        assert {row["file_name"] for row in rows} == set(map(str, images))
    assert len(list((folder / "out" / "pictures").glob("*.jpg"))) == 2
    call([folder], narrow[0], folder / "out")
    assert {path.name for path in (folder / "out").iterdir()} == {"pictures", "results.json"}
    assert not list((folder / "out" / "pictures").iterdir())


def test_pictures_stay_until_there_are_new_results(
    narrow: tuple[Path, Path], images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise TaskError("broken")

    call(images, narrow[0], tmp_path / "out", pictures=True)
    monkeypatch.setattr(predict_images_module, "load", broken)
    with pytest.raises(TaskError, match="broken"):
        call(images, narrow[0], tmp_path / "out")
    assert (tmp_path / "out" / "contact-sheet.jpg").exists()
    assert len(list((tmp_path / "out" / "pictures").glob("*.jpg"))) == 2


def test_folders_and_patterns_that_cannot_be_used_are_all_reported(
    images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    names = [tmp_path / "empty", tmp_path / "images" / "*.gif", tmp_path / "images" / "**.png", images[0]]
    with pytest.raises(TaskError) as error:
        expanded(list(map(str, names)), tmp_path / "out")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "empty: found no image; expected files .bmp" in lines[0]
    assert "*.gif: found no image; expected one or more files that match" in lines[1]
    assert "**.png: can't be used as a pattern" in lines[2]


def test_sizes_can_be_chosen(narrow: tuple[Path, Path], images: list[Path], tmp_path: Path) -> None:
    usual = call(images, narrow[0], tmp_path / "out")
    assert call(images, narrow[0], tmp_path / "out", short_side=96, max_side=160) == usual
    assert call(images, narrow[0], tmp_path / "out", short_side=128) != usual


def test_instances_without_clicks_and_an_old_run_s_fates(
    narrow: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    for name in ("points.json", "kept.txt"):
        (tmp_path / "out" / name).write_text("[]")
    alone = call(images[1:], narrow[0], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "kept.txt"}
    together = call(images, narrow[0], tmp_path / "out")
    assert {row["image_id"] for row in together} == {1, 2}
    assert [row | {"image_id": 2} for row in alone] == [row for row in together if row["image_id"] == 2]
    for image_id in (1, 2):
        scores = [row["score"] for row in together if row["image_id"] == image_id]
        assert scores == sorted(scores, reverse=True)
    for row in together:
        assert rle_tools.toBbox(row["segmentation"]).tolist() == row["bbox"]


def test_a_model_of_ours(line: Any, tmp_path: Path) -> None:
    folder, _ = line
    image = sorted((folder / "workspace/demo/dataset/images").rglob("*.png"))[0]
    model, params = folder / "workspace/teacher", folder / "params.yaml"
    call([image], model, tmp_path / "out", params=params)
    clicks = points_file(tmp_path / "clicks.json", [(20.0, 20.0, 1), (40.0, 40.0, 1)], image.name)
    refiner = folder / "workspace/refiner"
    rows = call([image], model, tmp_path / "out", params=params, points=clicks, refiner=refiner)
    assert len(rows) == 2
    assert {row["category_id"] for row in rows} == {1}
    call([image], model, tmp_path / "out", compat=True)


@pytest.mark.parametrize(
    ("places", "name", "error", "reason"),
    [
        (
            [(5, 5, 1)],
            "c.png",
            TaskError,
            r"found no point on an image given \(.*a\.png, .*b\.png\), of 1 records",
        ),
        ([(5, 5, 9)], "a.png", DataError, "unknown_category"),
        ([(500, 5, 1), (5, 5, 7)], "a.png", DataError, "(?s)2 faults.*outside_image.*unknown_category"),
        ([(5, 5, 1), (5, 5, 1)], "a.png", DataError, "duplicate_point"),
    ],
)
def test_clicks_that_cannot_be_used(
    narrow: tuple[Path, Path],
    images: list[Path],
    tmp_path: Path,
    places: Any,
    name: str,
    error: Any,
    reason: str,
) -> None:
    clicks = points_file(tmp_path / "clicks.json", places, name)
    with pytest.raises(error, match=reason):
        call(images, narrow[0], tmp_path / "out", points=clicks, compat=True)
    assert not (tmp_path / "out").exists()


def test_clicks_on_other_images_are_logged(
    narrow: tuple[Path, Path], images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"id": n, "file_name": name, "category_id": 1, "point": [9, 9]} for n, name in enumerate("xay")]
    rows[1]["file_name"] = "a.png"
    (tmp_path / "clicks.json").write_text(json.dumps({"images": [], "annotations": rows}))
    with caplog.at_level("INFO"):
        call(images, narrow[0], tmp_path / "out", points=tmp_path / "clicks.json", compat=True)
    assert "2 of 3 points are on other images" in caplog.text


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (
            {"images": ["gone.png", "a.txt"]},
            DataError,
            r"(?s)2 faults.*gone\.png.*a\.txt.*or leave it out\.$",
        ),
        ({"images": ["a.png", "a.png"]}, DataError, "found it 2 times"),
        ({"model": "gone"}, TaskError, r"model\.json: not found"),
        ({"model": "refiner"}, TaskError, "no `input`; expected a SOLOv2"),
        (
            {"refiner": "solov2", "points": "clicks.json"},
            TaskError,
            "found a SOLOv2, expected a MaskRefineNet",
        ),
        ({"refiner": "refiner"}, TaskError, "--refiner: found no --points"),
        ({"points": "clicks.json", "compat": False}, TaskError, r"params\.yaml: no such file(?s:.*)--params"),
        ({"device": "tpu"}, TaskError, "can't be used here"),
    ],
)
def test_wrong_use(
    narrow: tuple[Path, Path],
    images: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    error: Any,
    reason: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    folder = images[0].parent
    (folder / "a.txt").write_text("no image")
    points_file(folder / "clicks.json", [(5, 5, 1)], "a.png")
    change = {"images": ["a.png"], "model": "solov2", "compat": True, **change}
    paths = {key: narrow[0].parent / change.pop(key) for key in ("model", "refiner") if key in change}
    if "points" in change:
        change["points"] = folder / change["points"]
    chosen = [folder / name for name in change.pop("images")]
    with pytest.raises(error, match=reason):
        call(chosen, paths.pop("model"), tmp_path / "out", **paths, **change)
    assert not (tmp_path / "out").exists()


def test_a_truncated_image_is_an_error_and_nothing_is_written(
    narrow: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    """Its header is whole, so that it shows when its pixels are read."""
    cut = tmp_path / "cut.png"
    cut.write_bytes(images[0].read_bytes()[:-20])
    with pytest.raises(
        DataError, match=r"cut\.png: image: found a truncated file; .*Next: .*leave it out\.$"
    ):
        call([cut], narrow[0], tmp_path / "out", compat=True)
    assert not (tmp_path / "out/results.json").exists()


def test_params_of_a_clone_are_the_default(
    narrow: tuple[Path, Path], images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    clicks = points_file(tmp_path / "clicks.json", [(9, 9, 1)], "a.png")
    assert len(call(images, narrow[0], tmp_path / "out", points=clicks)) == 1


def test_a_model_of_another_version_is_an_error(
    narrow: tuple[Path, Path], images: list[Path], tmp_path: Path
) -> None:
    old = tmp_path / "old"
    shutil.copytree(narrow[0], old)
    meta = json.loads((old / "model.json").read_text())
    del meta["input"]["enlarge"]
    (old / "model.json").write_text(json.dumps(meta))
    with pytest.raises(
        TaskError, match=r"(?s)old/model\.json: .*another version.*enlarge: .*import it again"
    ):
        call(images, old, tmp_path / "out")
