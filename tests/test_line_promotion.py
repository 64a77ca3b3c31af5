"""A life of the registry on a real line: a model is promoted, a worse one refused, forced, and rolled back from.

The tests share one project and go through its life in order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.promotion.baseline import folder_hash
from tests.test_line import STAGES, Project

pytestmark = pytest.mark.line


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Whose student learns enough, in 120 steps, that there is something to lose."""
    project = Project(tmp_path_factory.mktemp("promotion"))
    project.patience = 580
    demo = {
        "train_images": 40,
        "val_images": 10,
        "strong_share": 0.5,
        "classes": ["apple", "banana"],
        "size_min": 20,
    }
    project.recipe["demo"] |= demo | {"distractors": 0, "objects_max": 3}
    width = ("fpn_channels", "head_channels", "kernel_channels", "mask_channels")
    project.recipe["model"] |= dict.fromkeys(width, 32) | {"norm_groups": 8}
    project.recipe["student"] |= {
        "steps": 120,
        "batch_size": 8,
        "lr": 0.003,
        "warmup_steps": 10,
        "masks": "none",
    }
    project.recipe["promotion"] |= {"bootstrap": 50, "ap_tolerance": 0.5}
    project.save()
    return project


def models(project: Project) -> dict[str, Any]:
    done = project.call("flows.cli.main", "models", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def command(project: Project, *arguments: str) -> str:
    done = project.call("flows.cli.main", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def report(project: Project) -> str:
    return " ".join((project.folder / "workspace/report.html").read_text(encoding="utf-8").split())


def model(project: Project) -> Path:
    return project.folder / "registry/v1/model"


def test_the_first_is_promoted(project: Project) -> None:
    assert project.flow() == dict.fromkeys(STAGES, "Completed")
    found = models(project)
    assert found["promoted"] == "v1" and found["baseline"] is None
    assert found["models"][0]["verdict"] == "first" and found["models"][0]["AP"] > 3
    assert "This student was the first model, so it could be promoted." in report(project)
    assert folder_hash(model(project)) == folder_hash(project.folder / "workspace/student")


def test_then_there_is_nothing_to_do(project: Project) -> None:
    assert project.flow() == dict.fromkeys(STAGES, "Cached")
    assert project.repro() == []
    assert "up to date" in project.call("dvc", "status").stdout


def test_one_made_worse_on_purpose_is_refused_and_the_report_says_why(project: Project) -> None:
    project.recipe["student"] |= {"steps": 5, "warmup_steps": 2}
    project.save()
    states = project.flow()
    assert states["train_student"] == states["compare"] == "Completed" and states["pseudo_label"] == "Cached"
    found = models(project)
    assert found["promoted"] == found["baseline"] == "v1"
    assert (found["models"][1]["decision"], found["models"][1]["verdict"]) == ("refused", "worse")
    reason = found["models"][1]["reasons"][0]
    assert reason.startswith("AP falls from") and "promotion.ap_tolerance" in reason
    page = report(project)
    assert reason in page
    assert "Against v1, promoted before, this student was worse than tolerated: it could not" in page
    assert "it could not take its place." in page
    assert project.flow() == dict.fromkeys(STAGES, "Cached") and project.repro() == []
    assert models(project) == found
    refused = project.call("flows.cli.main", "promote")
    assert refused.returncode == 1 and reason[:40] in refused.stderr + refused.stdout


def test_predict_and_export_use_the_promoted_one(project: Project) -> None:
    image = next((project.folder / "workspace/demo/dataset/images").rglob("*.png"))
    said = command(project, "predict", str(image), "--out", "found", "--json")
    assert json.loads(said)["version"] == "v1" and json.loads(said)["model"] == "registry/v1/model"
    assert "v1, the promoted model" in command(
        project, "export", "--what", "predictions", "--format", "coco-results", "--out", "out"
    )
    compared = json.loads((project.folder / "workspace/comparison/predictions/baseline.json").read_text())
    exported = json.loads((project.folder / "out/baseline.json").read_text())
    assert len(exported) == len(compared) > 0


def test_forced_and_rolled_back_byte_for_byte(project: Project) -> None:
    before = folder_hash(model(project))
    assert "v2 is promoted by force" in command(project, "promote", "--force", "--reason", "to see")
    assert models(project)["promoted"] == "v2"
    assert "v1 is promoted again" in command(project, "rollback", "--reason", "seen")
    assert folder_hash(model(project)) == before
    assert [event["action"] for event in models(project)["history"]] == ["promoted", "forced", "rolled back"]
    assert project.flow() == dict.fromkeys(STAGES, "Cached")
    assert models(project)["promoted"] == "v1"


def test_one_that_goes_on_from_the_promoted_is_as_good(project: Project) -> None:
    project.recipe["student"] |= {"start": "promoted", "lr": 1e-9}
    project.save()
    assert project.flow()["train_student"] == "Completed"
    last = models(project)["models"][-1]
    assert last["against"] == "v1" and abs(last["difference"]) < 0.5 and last["decision"] == "promoted"
    assert project.flow() == dict.fromkeys(STAGES, "Cached") and project.repro() == []
