"""Decisions of reviewers through the steps: what is computed anew, what the student learns, what the report shows."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.decisions.record import Click, Mask
from data.decisions.store import DecisionLog
from data.errors import DataError
from data.masks.rle import decode, encode
from data.tables import DECISIONS, POINTS, Split, read_parquet
from tasks import import_points, pseudo_label, train_student
from tasks.common.config import Params
from tasks.intake.decisions import read_reviewed
from tasks.train_student import read_pseudo
from tasks.training.student_labels import with_pseudo_masks
from tests.tasks.conftest import blank_registry, run_step
from tests.tasks.test_pseudo_label import image_counts

WORKSPACE = Path("workspace")
LABELLED = Path("labelled")


@pytest.fixture
def params(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Those of the line, of which the current folder is a copy; labelled once, with what later runs reuse."""
    folder, params = line
    shutil.copytree(folder / "workspace", tmp_path / "workspace")
    monkeypatch.chdir(tmp_path)
    blank_registry(Path())
    pseudo_label.run(params, WORKSPACE)
    return params


def content(*names: str) -> dict[str, bytes]:
    return {
        f"{name}/{path.name}": path.read_bytes()
        for name in names
        for path in sorted((WORKSPACE / name).iterdir())
    }


def learnt(params: Params) -> list[dict[str, Any]]:
    """What a student is trained on: the instances on weak images."""
    strong = Split.open(WORKSPACE / "dataset" / "strong")
    points, pseudo = (
        read_parquet(WORKSPACE / "points/points.parquet", POINTS),
        read_pseudo(WORKSPACE / "pseudo"),
    )
    decisions = read_reviewed(WORKSPACE / "points")
    split = with_pseudo_masks(weak(), strong, points, pseudo, params.student, LABELLED, decisions)
    return split.instances.to_pylist()


def weak() -> Split:
    return Split.open(WORKSPACE / "dataset" / "weak")


def objects(params: Params) -> list[dict[str, Any]]:
    """Usable pseudo masks, with the name of their image, on images of two or more; their points' x and y too."""
    names = {row["image_id"]: row["file_name"] for row in weak().images.to_pylist()}
    points = {
        row["point_id"]: row
        for row in read_parquet(WORKSPACE / "points" / "points.parquet", POINTS).to_pylist()
    }
    rows = [row for row in read_pseudo(WORKSPACE / "pseudo").to_pylist() if row["status"] in ("ok", "rough")]
    return [
        {
            **row,
            "image": names[row["image_id"]],
            "x": points[row["point_id"]]["x"],
            "y": points[row["point_id"]]["y"],
        }
        for row in rows
        if sum(one["image_id"] == row["image_id"] for one in rows) > 1
    ]


def on(row: dict[str, Any]) -> dict[str, Any]:
    return {"image": row["image"], "object": row["point_id"]}


def mask_of(row: dict[str, Any]) -> Mask:
    return Mask(64, 64, row["refined_rle"] or row["rough_rle"])


def drawn(side: int = 9) -> Mask:
    pixels = np.zeros((64, 64), np.bool_)
    pixels[20 : 20 + side, 30 : 30 + side] = True
    return Mask(64, 64, encode(pixels))


def test_without_decisions_all_bytes_are_as_without_the_folder(params: Params) -> None:
    train_student.run(params, WORKSPACE)
    before = content("points", "pseudo", "student")
    assert "points/decisions.parquet" not in before
    for prepare in (
        lambda: Path("decisions/README.md").write_text("?"),
        lambda: DecisionLog(Path("decisions"), "anna"),
    ):
        prepare()
        for step in (import_points, pseudo_label, train_student):
            step.run(params, WORKSPACE)
        assert content("points", "pseudo", "student") == before
    shutil.rmtree("decisions")
    import_points.run(params, WORKSPACE)
    assert content("points", "pseudo", "student") == before


def test_verdicts_compute_nothing_and_clicks_their_image_alone(params: Params) -> None:
    pseudo = content("pseudo")
    first, *_, last = objects(params)
    assert first["image_id"] != last["image_id"]
    images = len({row["image_id"] for row in read_pseudo(WORKSPACE / "pseudo").to_pylist()})
    log = DecisionLog(Path("decisions"), "anna")
    log.append("accept", mask=mask_of(first), **on(first))
    log.append("reject", **on(last))
    log.append("complete", image=last["image"])
    import_points.run(params, WORKSPACE)
    pseudo_label.run(params, WORKSPACE)
    assert image_counts(WORKSPACE) == {"computed": 0, "carried": images, "failed": 0}
    assert content("pseudo") == pseudo
    moved = log.append("clicks", point=(last["x"] + 1.5, last["y"]), further=(), **on(last))
    import_points.run(params, WORKSPACE)
    pseudo_label.run(params, WORKSPACE)
    assert image_counts(WORKSPACE) == {"computed": 1, "carried": images - 1, "failed": 0}
    assert content("pseudo") != pseudo
    log.append("undo", undoes=moved.id)
    outside = (Click(first["x"] + 12.0, first["y"], False),)
    further = log.append("clicks", point=(first["x"], first["y"]), further=outside, **on(first))
    import_points.run(params, WORKSPACE)
    pseudo_label.run(params, WORKSPACE)
    assert image_counts(WORKSPACE) == {"computed": 2, "carried": images - 2, "failed": 0}
    log.append("undo", undoes=further.id)
    import_points.run(params, WORKSPACE)
    pseudo_label.run(params, WORKSPACE)
    assert content("pseudo") == pseudo


def test_decisions_change_what_is_learnt_and_undone_ones_do_not(params: Params) -> None:
    config = params.student.model_copy(update={"min_score": 2.0, "weight_by_score": "both"})
    strict = params.model_copy(update={"student": config})
    assert learnt(strict) == []  # no mask has such a score
    usual = learnt(params)
    train_student.run(params, WORKSPACE)
    student = content("student")
    accepted, rejected, *_, mended = objects(params)
    assert accepted["image_id"] == rejected["image_id"] != mended["image_id"]
    log = DecisionLog(Path("decisions"), "anna")
    frozen, own = drawn(9), drawn(5)  # another mask than today's: what was accepted is what is learnt
    category = next(one for one in weak().categories if one.id != mended["category_id"])
    made = [
        log.append("accept", mask=frozen, **on(accepted)),
        log.append("reject", **on(rejected)),
        log.append("mask", mask=own, source="polygon", **on(mended)),
        log.append("class", category=category.name, **on(mended)),
    ]
    import_points.run(params, WORKSPACE)
    pseudo_label.run(params, WORKSPACE)
    by_code = {row["rle_counts"]: row for row in learnt(strict)}
    assert {code for code, row in by_code.items() if not row["iscrowd"]} == {frozen.counts, own.counts}
    for mask, row in ((frozen, accepted), (own, mended)):
        found = by_code[mask.counts]
        assert (found["image_id"], found["source"], found["score"]) == (row["image_id"], "review", None)
        assert found["area"] == decode(mask.counts, 64, 64).sum()
    assert by_code[own.counts]["category_id"] == category.id
    train_student.run(params, WORKSPACE)
    assert content("student") != student
    counts = json.loads((WORKSPACE / "student" / "manifest.json").read_text())["counts"]
    strong = Split.open(WORKSPACE / "dataset" / "strong")
    masks = [row for row in learnt(params) if not row["iscrowd"]]
    assert counts["instances"] == len(strong.instances) + len(masks)
    # With usable masks the others are learnt as before, and a rejected one is a region to ignore.
    rows = learnt(params)
    there = {row["rle_counts"] for row in rows if row["image_id"] == accepted["image_id"]}
    assert mask_of(accepted).counts not in there
    crowds = [row for row in rows if row["iscrowd"] and row["image_id"] == rejected["image_id"]]
    region = np.any([decode(row["rle_counts"], 64, 64) for row in crowds], axis=0)
    assert region[decode(rejected["rough_rle"], 64, 64)].all()
    ignored = params.model_copy(
        update={"student": params.student.model_copy(update={"unusable": "background"})}
    )
    assert [row["image_id"] for row in learnt(ignored) if row["iscrowd"]] == [rejected["image_id"]]
    # On a complete image it is background, and so is all of an image without objects.
    made.append(log.append("complete", image=rejected["image"]))
    import_points.run(params, WORKSPACE)
    rows = learnt(ignored)
    assert not [row for row in rows if row["iscrowd"]]
    for one in reversed(made):
        log.append("undo", undoes=one.id)
    import_points.run(params, WORKSPACE)
    pseudo_label.run(params, WORKSPACE)
    assert learnt(params) == usual
    train_student.run(params, WORKSPACE)
    assert content("student") == student


def test_added_objects_and_complete_images_without_clicks(params: Params) -> None:
    first, *_, last = objects(params)
    log = DecisionLog(Path("decisions"), "bob")
    name = weak().categories[0].name
    log.append("add", image=first["image"], object="clicked", category=name, point=(3.5, 60.5))
    log.append("add", image=last["image"], object="drawn", category=name, mask=drawn(), source="brush")
    emptied = [
        row for row in read_pseudo(WORKSPACE / "pseudo").to_pylist() if row["image_id"] == last["image_id"]
    ]
    for row in emptied:
        log.append("reject", image=last["image"], object=row["point_id"])
    import_points.run(params, WORKSPACE)
    points = read_parquet(WORKSPACE / "points" / "points.parquet", POINTS)["point_id"].to_pylist()
    assert "clicked" in points and "drawn" not in points
    pseudo_label.run(params, WORKSPACE)
    assert image_counts(WORKSPACE)["computed"] == 1
    pseudo = read_pseudo(WORKSPACE / "pseudo")
    assert sorted(pseudo["point_id"].to_pylist()) == sorted(points)
    rows = [row for row in learnt(params) if row["image_id"] == last["image_id"] and not row["iscrowd"]]
    assert [row["rle_counts"] for row in rows] == [drawn().counts]
    # Without the drawn one nothing is left to learn there, until the image is complete.
    (one,) = [row for row in log.path.read_text().splitlines() if '"drawn"' in row]
    log.append("undo", undoes=json.loads(one)["id"])
    import_points.run(params, WORKSPACE)
    learnt(params)
    assert last["image_id"] not in Split.open(LABELLED).images["image_id"].to_pylist()
    log.append("complete", image=last["image"])
    import_points.run(params, WORKSPACE)
    assert not [row for row in learnt(params) if row["image_id"] == last["image_id"]]
    assert last["image_id"] in Split.open(LABELLED).images["image_id"].to_pylist()


def test_what_is_not_honoured_is_logged_and_in_the_manifest(
    params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    first, *_ = objects(params)
    anna, bob = DecisionLog(Path("decisions"), "anna"), DecisionLog(Path("decisions"), "bob")
    anna.append("accept", mask=mask_of(first), **on(first))
    bob.append("reject", **on(first))
    bob.append("reject", image=first["image"], object="gone")
    with bob.path.open("ab") as file:
        file.write(b'{"id": "torn')
    with caplog.at_level(logging.INFO):
        import_points.run(params, WORKSPACE)
    assert "3 decisions of anna, bob: 2 contradicted, 1 unknown object" in caplog.text
    assert "decisions/bob.jsonl: reject" in caplog.text and "an unfinished line" in caplog.text
    review = json.loads((WORKSPACE / "points" / "manifest.json").read_text())["review"]
    assert review["objects_contradicted"] == 1
    assert [row["reviewer"] for row in review["contradicted"]] == ["anna", "bob"]
    assert [row["object_id"] for row in review["not_honoured"]] == ["gone"]
    assert len(read_parquet(WORKSPACE / "points" / "decisions.parquet", DECISIONS)) == 3
    before = content("points")
    anna.path.write_text("{}\n[]\n")
    with pytest.raises(DataError) as caught:
        import_points.run(params, WORKSPACE)
    assert len(caught.value.faults) == 2
    assert content("points") == before


def test_the_report_shows_the_review_only_if_there_was_one(params: Params) -> None:
    for step in ("train_student", "train_repeats", "evaluate", "compare", "report"):
        run_step(step, params, WORKSPACE)
    metrics = (WORKSPACE / "evaluation" / "metrics.json").read_text()
    assert "<h2>Review</h2>" not in Path("workspace/report.html").read_text()
    first, second, *_ = objects(params)
    anna, bob = DecisionLog(Path("decisions"), "anna"), DecisionLog(Path("decisions"), "bob")
    anna.append("accept", mask=mask_of(first), **on(first))
    anna.append("reject", **on(second))
    bob.append("accept", mask=mask_of(second), **on(second))
    bob.append("complete", image="<b>gone</b>.png")
    import_points.run(params, WORKSPACE)
    for step in ("pseudo_label", "train_student", "evaluate", "compare", "report"):
        run_step(step, params, WORKSPACE)
    page = Path("workspace/report.html").read_text()
    section = page.split("<h2>Review</h2>")[1].split("</section>")[0]
    words = (
        "Honoured: 1 of 4 decisions",
        "contradict each other on 1 object",
        "1 can't be honoured",
        "masks accepted",
    )
    assert all(word in section.replace("&#39;", "'") for word in words)
    assert "<b>gone" not in section and "unknown image" in section
    after = json.loads((WORKSPACE / "evaluation" / "metrics.json").read_text())
    assert after["pseudo"] == json.loads(metrics)["pseudo"]  # of the networks' masks, not of people's
