"""A tiny line with another student than SOLOv2: trained, scored, compared, reported, used; what it can't do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tasks.training.detector
from data.tables import Split
from models.checkpoint import load_detector
from models.queries.network import QueryNetwork
from models.weights import CheckpointError
from points2model import Predictor, Prompter
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.promotion.baseline import folder_hash
from tasks.promotion.checkpoint_start import record_checkpoints
from tasks.tools.export_onnx import OnnxRequest, check_request
from tasks.tools.model_source import find_model
from tasks.tools.predict_images import predict_images
from tasks.train_student import read_pseudo, run
from tasks.training.loop import Job, train
from tests.models.queries.tiny import EOMT, MASK2FORMER, saved
from tests.tasks.conftest import blank_registry, run_step

CPU = torch.device("cpu")


def student_with(params: Params, **changes: Any) -> Params:
    student = type(params.student).model_validate({**params.student.model_dump(), **changes})
    return params.model_copy(update={"student": student})


def network(name: str = "mask2former", weights: str | None = None, **config: Any) -> dict[str, Any]:
    if weights is None:
        config = (MASK2FORMER if name == "mask2former" else EOMT) | config
    return {"name": name, "weights": weights, "revision": None, "config": config}


@pytest.fixture
def place(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Params]:
    folder, params = line
    shutil.copytree(folder / "workspace", tmp_path / "workspace")
    blank_registry(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Path("workspace"), params


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_a_whole_line(place: tuple[Path, Params], tmp_path: Path) -> None:
    """From the weights of a folder, which isn't needed afterwards."""
    workspace, params = place
    weights = saved("mask2former", tmp_path / "models" / "m2f", ["pear", "cat"])
    params = student_with(
        params, network=network(weights="models/m2f"), weight_by_score="both", strong_share=0.5
    )
    run(params, workspace)
    made = bytes_of(workspace / "student")
    run(params, workspace)
    assert bytes_of(workspace / "student") == made
    assert {"model.safetensors", "model.json", "log.jsonl", "manifest.json"} == made.keys()
    assert len(json.loads(made["manifest.json"])["backbone_weights"]) == 64
    meta = json.loads(made["model.json"])
    assert meta["kind"] == "mask2former" and meta["training"]["network"]["weights"] == "models/m2f"
    shutil.rmtree(weights)

    for step in ("train_repeats", "evaluate", "compare", "report"):
        run_step(step, params, workspace)
    metrics = json.loads((workspace / "evaluation" / "metrics.json").read_text())
    assert metrics["student"]["AP"] is not None
    comparison = json.loads((workspace / "comparison" / "comparison.json").read_text())
    assert (
        comparison["verdict"] in ("first", "behind_teacher")
        and comparison["overall"]["candidate"] is not None
    )
    assert "dice" in (workspace / "report.html").read_text()  # a curve of its loss

    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).save(picture)
    arguments: dict[str, Any] = {
        "refiner": None, "params": None, "short_side": None, "max_side": None, "device": "cpu", "min_score": 0.0,
    }  # fmt: skip
    shutil.copy(Path(__file__).parents[2] / "params.yaml", "params.yaml")
    model = workspace / "student"
    predict_images(
        [str(picture)], model, tmp_path / "out", compat=False, points=None, formats=["coco"], **arguments
    )
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    predictor = Predictor.load(model, device="cpu")
    found = predictor(picture, min_score=0)
    assert len(found) == len(rows) and found.masks.shape[1:] == (50, 70)
    assert found.scores.tolist() == pytest.approx([row["score"] for row in rows], abs=1e-5)
    with pytest.raises(TaskError, match="found a mask2former with --points; expected a SOLOv2"):
        predict_images([str(picture)], model, tmp_path / "no", compat=False, points=picture, **arguments)
    with pytest.raises(TaskError, match="found a mask2former with --compat; expected a SOLOv2"):
        predict_images([str(picture)], model, tmp_path / "no", compat=True, points=None, **arguments)
    with pytest.raises(CheckpointError, match="found a mask2former, expected a SOLOv2"):
        Prompter.load(model, device="cpu")
    with pytest.raises(CheckpointError, match="kind mask2former, which can't be exported; expected solov2"):
        check_request(OnnxRequest(find_model(model, "."), False, 18, None, None))


def test_a_killed_training_resumes_to_the_same_bytes(
    place: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, params = place
    swin = {**MASK2FORMER["backbone_config"], "drop_path_rate": 0.3}
    params = student_with(params, network=network(backbone_config=swin), ema=0.9)
    run(params, workspace)
    whole = bytes_of(workspace / "student")
    shutil.rmtree(workspace / "student")
    steps = 0

    def stopping(job: Job) -> None:
        def batches(first: int) -> Any:
            nonlocal steps
            for batch in before(first):
                if steps == 9:
                    raise KeyboardInterrupt
                steps += 1
                yield batch

        before, job.batches = job.batches, batches
        train(job)

    with monkeypatch.context() as patch:
        patch.setattr(tasks.training.detector, "train", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(params, workspace)
        steps = 5  # from step 4 or 8 on
        torch.rand(3)
        patch.setattr(tasks.training.detector, "train", train)
        run(params, workspace)
    assert bytes_of(workspace / "student") == whole


def test_a_square_network_learns_too(place: tuple[Path, Params]) -> None:
    workspace, params = place
    params = student_with(params, network=network("eomt", image_size=64), backbone_lr=0.1)
    run(params, workspace)
    model = load_detector(workspace / "student", CPU)
    assert isinstance(model, QueryNetwork) and model.side == 64
    run_step("evaluate", params, workspace)
    with pytest.raises(TaskError, match="found inputs of up to 64 pixels with a network that takes 32 x 32"):
        run(student_with(params, network=network("eomt", image_size=32)), workspace)


def test_points_without_a_mask_are_ignored(place: tuple[Path, Params]) -> None:
    """The same regions as for a SOLOv2."""
    workspace, params = place
    scores = [score for score in read_pseudo(workspace / "pseudo")["score"].to_pylist() if score is not None]
    made = []
    for unusable in ("ignore", "background"):
        changes: dict[str, Any] = {
            "network": network(),
            "min_score": float(np.median(scores)),
            "unusable": unusable,
        }
        run(student_with(params, **changes), workspace)
        crowds = Split.open(workspace / "runs" / "train_student" / "weak").instances["iscrowd"].to_pylist()
        made.append((sum(crowds), (workspace / "student" / "model.safetensors").read_bytes()))
    assert made[0][0] > 0 == made[1][0] and made[0][1] != made[1][1]


def test_a_start_from_a_checkpoint(place: tuple[Path, Params], tmp_path: Path) -> None:
    workspace, params = place
    run(student_with(params, network=network()), workspace)
    shutil.copytree(workspace / "student", tmp_path / "models" / "first")
    still: dict[str, Any] = {
        "steps": 1, "lr": 1e-12, "warmup_steps": 0, "log_every": 1, "checkpoint_every": 1, "start": "checkpoint",
        "checkpoint": "models/first",
    }  # fmt: skip
    again = student_with(params, network=network(), **still)
    record_checkpoints(Path(), again)
    run(again, workspace)
    folders = (tmp_path / "models" / "first", workspace / "student")
    first, second = (load_detector(folder, CPU).state_dict() for folder in folders)
    assert all(torch.allclose(second[name], value, atol=1e-6) for name, value in first.items())
    with pytest.raises(TaskError, match=r"(?s)than in params\.yaml's `student\.network`.*kind: found mask2"):
        run(student_with(params, network=network("eomt", image_size=64), **still), workspace)
    with pytest.raises(TaskError, match=r"kind: found mask2former, expected solov2"):
        run(student_with(params, **still), workspace)
    with pytest.raises(TaskError, match=r"`student\.network`:\n.*found shape"):
        run(student_with(params, network=network(num_queries=12), **still), workspace)


def test_weights_that_can_not_be_reached(
    place: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    workspace, params = place
    hub = network(weights="owner/model")
    text = r"student\.network: found no folder owner/model, .*run `hf download owner/model .*student\.network\.weights"
    with pytest.raises(TaskError, match=text):
        run(student_with(params, network=hub), workspace)
    saved("eomt", tmp_path / "other", ["a"])
    with pytest.raises(TaskError, match=r"model_type 'eomt'.*set student\.network\.name to eomt"):
        run(student_with(params, network=network(weights="other")), workspace)
    assert not (workspace / "student").exists()


def test_a_line_without_the_key_is_what_it_was(place: tuple[Path, Params]) -> None:
    """Neither `network: null` nor no such key is in the files of a SOLOv2."""
    workspace, params = place
    assert "network" not in params.student.model_dump()
    run(params, workspace)
    assert "network" not in json.loads((workspace / "student" / "model.json").read_text())["training"]
    assert folder_hash(workspace / "student")
