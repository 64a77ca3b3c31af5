"""`points2model export --what training`, read by the trainers it is for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from pycocotools.coco import COCO
from typer.testing import CliRunner

from data.annotations.read import read_annotations
from data.tables import Split, write_split
from flows.cli.main import app
from tasks.common.config import Params
from tasks.tools.export_labels import read_pseudo
from tests.tasks.conftest import ROOT, copy_of


@pytest.fixture(scope="module")
def project(line: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny line up to the pseudo labels, and its folders for other trainers: coco, yolo."""
    folder = tmp_path_factory.mktemp("trainers")
    copy_of(line, folder, "dataset", "points", "pseudo")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for format in ("coco", "yolo-seg"):
            code, output = export(format, format)
            assert code == 0, output
        yield folder
    finally:
        os.chdir(before)


def export(format: str, out: str, *options: str) -> tuple[int, str]:
    command = ["export", "--what", "training", "--format", format, "--out", out, *options]
    done = CliRunner().invoke(app, command)
    return done.exit_code, done.output


def ids(split: str) -> set[int]:
    return set(Split.open(f"workspace/dataset/{split}").images["image_id"].to_pylist())


def test_coco_has_true_and_pseudo_masks_with_scores(project: Path) -> None:
    train, val = (COCO(f"coco/{name}/_annotations.coco.json") for name in ("train", "valid"))
    pseudo = {
        row["image_id"] for row in read_pseudo(project / "workspace").to_pylist() if row["status"] == "ok"
    }
    assert set(train.imgs) == ids("strong") | pseudo and set(val.imgs) == ids("val")
    assert len(train.anns) == len({row["id"] for row in train.anns.values()})
    objects = [row for row in train.anns.values() if not row["iscrowd"]]
    scored = [row for row in objects if "score" in row]
    assert {row["image_id"] for row in scored} == pseudo
    assert all(0 <= row["score"] <= 1 for row in scored) and len({row["score"] for row in scored}) > 1
    assert {row["image_id"] for row in objects if "score" not in row} <= ids("strong")
    for image in [*train.imgs.values(), *val.imgs.values()]:
        name = "train" if image["id"] in train.imgs else "valid"
        file = project / "coco" / name / image["file_name"]
        assert file.is_symlink() and file.is_file()
    counts = json.loads(Path("coco/export.json").read_text())["parts"]["train"]
    assert counts["labels"] == len(objects) and counts["pseudo"] == len(scored)


def test_what_the_student_ignores_is_a_crowd(project: Path) -> None:
    """Above the least score of pseudo labels there are fewer, and the rest are regions to ignore."""
    whole = json.loads(Path("coco/export.json").read_text())["parts"]["train"]
    scores = sorted(
        row["score"] for row in COCO("coco/train/_annotations.coco.json").anns.values() if "score" in row
    )
    code, output = export("coco", "cut", "--min-score", f"{scores[len(scores) // 2] + 1e-6:.6f}")
    assert code == 0, output
    counts = json.loads(Path("cut/export.json").read_text())["parts"]["train"]
    crowds = [row for row in COCO("cut/train/_annotations.coco.json").anns.values() if row["iscrowd"]]
    assert 0 < counts["pseudo"] < whole["pseudo"]
    assert len(crowds) == counts["ignored"] > whole["ignored"]
    assert f"{len(crowds)} regions to ignore" in output


def test_masks_are_the_students(project: Path) -> None:
    recipe = Path("params.yaml").read_text()
    assert recipe.count("  masks: refined") == 1
    counts = {}
    try:
        for masks in ("refined", "rough", "none"):
            Path("params.yaml").write_text(recipe.replace("  masks: refined", f"  masks: {masks}"))
            assert export("coco", masks)[0] == 0
            file = json.loads(Path(f"{masks}/train/_annotations.coco.json").read_text())
            counts[masks] = sum(row["area"] for row in file["annotations"] if "score" in row)
        assert export("coco", "rough2", "--masks", "rough")[0] == 0
    finally:
        Path("params.yaml").write_text(recipe)
    assert counts["none"] == 0 and 0 < counts["rough"] != counts["refined"]
    names = [Path(f"{name}/train/_annotations.coco.json").read_bytes() for name in ("rough", "rough2")]
    assert names[0] == names[1]


def test_yolo_has_the_same_masks(project: Path) -> None:
    images = {
        path.relative_to("yolo-seg/images").with_suffix("") for path in Path("yolo-seg/images").rglob("*.*")
    }
    labels = {
        path.relative_to("yolo-seg/labels").with_suffix("") for path in Path("yolo-seg/labels").rglob("*.txt")
    }
    assert images == labels
    coco = COCO("coco/train/_annotations.coco.json")
    lines = [
        line
        for path in Path("yolo-seg/labels/train").rglob("*.txt")
        for line in path.read_text().splitlines()
    ]
    assert len(lines) == sum(not row["iscrowd"] for row in coco.anns.values())
    read = read_annotations("coco/train/_annotations.coco.json")
    named = Path("yolo-seg/data.yaml").read_text()
    assert all(f'{n}: "{category.name}"' in named for n, category in enumerate(sorted(read.categories)))


@pytest.mark.parametrize(
    ("format", "out", "text"),
    [("scalabel", "never", "expected coco or yolo-seg"), ("coco", "workspace", "aren't from an export")],
)
def test_what_is_refused(project: Path, format: str, out: str, text: str) -> None:
    code, output = export(format, out)
    assert code == 1 and text in output and not (project / "never").exists()


def test_an_image_that_is_gone(project: Path) -> None:
    split = Split.open("workspace/dataset/val")
    file = split.image_path(0)
    away = file.with_suffix(".away")
    file.rename(away)
    try:
        code, output = export("coco", "never")
    finally:
        away.rename(file)
    assert code == 1 and "not found; expected the image where it was ingested" in " ".join(output.split())
    assert not (project / "never").exists()


def test_an_image_that_ingest_rejected_is_left_out(project: Path) -> None:
    val, away = Path("workspace/dataset/val"), Path("val-as-it-was")
    val.rename(away)
    try:
        split = Split.open(away)
        status = pa.array(["unreadable", *split.images["status"].to_pylist()[1:]], pa.string())
        place = split.images.schema.get_field_index("status")
        images = split.images.set_column(place, split.images.schema.field(place), status)
        write_split(val, images, split.instances, split.categories, split.image_root)
        code, output = export("coco", "fewer")
        assert code == 0, output
    finally:
        shutil.rmtree(val)
        away.rename(val)
    first = split.images["image_id"][0].as_py()
    assert set(COCO("fewer/valid/_annotations.coco.json").imgs) == ids("val") - {first}


def test_torchvision_learns_from_it(project: Path) -> None:
    script = [sys.executable, str(ROOT / "examples/mask_rcnn.py"), "coco", "weights.pt"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [*script, "--steps", "2", "--side", "64"], capture_output=True, text=True, check=False, env=environment
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = [line.split() for line in done.stdout.splitlines() if "loss_mask" in line]
    losses = [float(step[step.index("loss_mask") + 1]) for step in steps]
    assert len(losses) == 2 and all(np.isfinite(losses)) and max(losses) > 0
    assert "roi_heads.mask_predictor.mask_fcn_logits.weight" in torch.load("weights.pt", weights_only=True)


def test_a_mask_counts_as_much_as_its_score() -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from mask_rcnn import WeightedMaskLoss
    finally:
        sys.path.pop(0)
    box = [torch.tensor([[0.0, 0.0, 8.0, 8.0]] * 2)]
    masks, labels, of = (
        [torch.stack([torch.ones(8, 8), torch.zeros(8, 8)])],
        [torch.tensor([1, 1])],
        [torch.tensor([0, 1])],
    )
    logits = torch.full((2, 2, 4, 4), 2.0)  # right for the first mask, wrong for the second
    loss = WeightedMaskLoss()
    found = []
    for scores in ([1.0, 0.0], [0.0, 1.0], [0.75, 0.25]):
        loss.scores = [torch.tensor(scores)]
        found.append(float(loss(logits, box, masks, labels, of)))
    assert found[0] < 0.2 and found[1] > 2
    assert found[2] == pytest.approx(0.75 * found[0] + 0.25 * found[1])


def test_ultralytics_learns_from_it(project: Path) -> None:
    ultralytics = pytest.importorskip("ultralytics", reason="AGPL-3.0, so no part of our tests' packages")
    model = ultralytics.YOLO("yolo11n-seg.yaml")
    result = model.train(
        data="yolo-seg/data.yaml", epochs=1, imgsz=64, batch=4, workers=0, device="cpu", plots=False, amp=False,
        project=str(project / "runs"), exist_ok=True,
    )  # fmt: skip
    assert Path(result.save_dir, "weights/last.pt").is_file()
    read = model.trainer.train_loader.dataset
    lines = sum(len(path.read_text().splitlines()) for path in Path("yolo-seg/labels/train").rglob("*.txt"))
    assert len(read) == len(list(Path("yolo-seg/images/train").rglob("*.*")))
    assert sum(len(one["segments"]) for one in read.labels) == lines


def test_rf_detr_reads_it(project: Path) -> None:
    """Its loader; a training starts from weights, which are downloaded."""
    coco = pytest.importorskip(
        "rfdetr.datasets.coco", reason="a large package, which our tests don't install"
    )
    settings = SimpleNamespace(
        dataset_dir="coco", square_resize_div_64=True, segmentation_head=True, multi_scale=False,
        expanded_scales=False, patch_size=12, num_windows=2,
    )  # fmt: skip
    read = coco.build_roboflow_from_coco("train", settings, 96)
    truth = COCO("coco/train/_annotations.coco.json")
    objects = 0
    for n in range(len(read)):
        _, target = read[n]
        assert target["masks"].shape[0] == len(target["labels"]) and target["masks"].flatten(1).any(1).all()
        objects += len(target["labels"])
    assert len(read) == len(truth.imgs)
    assert 0 < objects <= sum(not row["iscrowd"] for row in truth.anns.values())
