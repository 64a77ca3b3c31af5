"""`points2model export` out of a workspace whose tables were written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.annotations.coco.file import read_coco, write_results
from data.annotations.frames import frames_of_file
from data.annotations.read import read_annotations
from data.masks.polygons import from_segmentation
from flows.cli.main import app
from tasks.common.errors import TaskError
from tasks.tools.export_labels import ExportRequest, export_labels
from tests.tasks.review.project import CLASSES, HEIGHT, WIDTH, pseudo, rle, write_tables

ROWS = [
    pseudo("cc", 8, category_id=9, status="rough", refined_rle=None, score=0.2),
    pseudo("bb", 7, score=0.9, refined_rle=rle(3, 3, 5)),
    pseudo("aa", 7),
    pseudo("dd", 9, status="empty", rough_rle=None, refined_rle=None, score=None),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Weak images 7, 8, 9 and a val image 1 with predictions; pseudo labels in two parts."""
    root = tmp_path / "workspace"
    splits = {"weak": (7, 8, 9), "val": (1,), "strong": (), "kept_aside": ()}
    write_tables(root, ROWS, splits, with_objects=["val"])
    for model, score in (("student", 0.75), ("teacher", 0.25)):
        row = {"image_id": 1, "category_id": 9, "score": score, "height": HEIGHT, "width": WIDTH}
        write_results(root / f"evaluation/predictions/{model}.json", [row | {"rle_counts": rle(2, 2, 3)}])
    chosen(root, student=0.75, teacher=0.1)
    return root


def chosen(root: Path, **scores: float | None) -> None:
    metrics = {name: {"min_score": score} for name, score in scores.items()}
    (root / "evaluation/metrics.json").write_text(json.dumps(metrics))


def test_pseudo_labels_carry_score_and_point(workspace: Path, tmp_path: Path) -> None:
    summary = export_labels(ExportRequest("pseudo", "coco"), tmp_path / "out", workspace)
    assert summary == {
        "what": "pseudo", "format": "coco", "min_score": 0.0, "parts": {"pseudo": {"images": 2, "labels": 3}}
    }  # fmt: skip
    coco = read_coco(tmp_path / "out/pseudo.json")
    assert [row["id"] for row in coco.images] == [7, 8]  # without a mask an image says nothing
    assert [(row["point_id"], row["score"], row["category_id"]) for row in coco.annotations] == [
        ("aa", 0.7, 4), ("bb", 0.9, 4), ("cc", 0.2, 9),
    ]  # fmt: skip
    refined = [from_segmentation(row["segmentation"], HEIGHT, WIDTH) for row in coco.annotations]
    assert refined == [rle(1, 1, 5), rle(3, 3, 5), rle(1, 1, 4)]
    assert [row["area"] for row in coco.annotations] == [25, 25, 16]
    assert json.loads((tmp_path / "out/export.json").read_text()) == summary


def test_all_formats_hold_the_same_pseudo_labels(workspace: Path, tmp_path: Path) -> None:
    for format in ("coco", "scalabel"):
        export_labels(
            ExportRequest("pseudo", format, masks="rough", min_score=0.5), tmp_path / format, workspace
        )
    frames = [
        list(frames_of_file(read_annotations(tmp_path / format / "pseudo.json")))
        for format in ("coco", "scalabel")
    ]
    labels = [
        [(one.label_id, one.counts, one.score, one.point_id) for one in frame.labels] for (frame,) in frames
    ]
    assert labels[0] == labels[1] == [(1, rle(1, 1, 4), 0.7, "aa"), (2, rle(1, 1, 4), 0.9, "bb")]
    export_labels(ExportRequest("pseudo", "coco-results"), tmp_path / "results", workspace)
    rows = json.loads((tmp_path / "results/pseudo.json").read_text())
    assert [(row["score"], row["point_id"]) for row in rows] == [(0.7, "aa"), (0.9, "bb"), (0.2, "cc")]


def test_bitmasks_of_pseudo_labels_have_their_scores_beside_them(workspace: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        ["export", "--format", "bdd-bitmask", "--out", str(tmp_path / "out"), "--workspace", str(workspace)],
    )
    assert done.exit_code == 0, done.output
    assert "3 masks on 2 images" in done.output
    assert "masks overlap, which bdd-bitmask can't: 9 pixels went to the mask on top\n" in done.output
    scores = json.loads((tmp_path / "out/pseudo/scores.json").read_text())
    assert [[(row["id"], row["index"], row["score"]) for row in frame["labels"]] for frame in scores] == [
        [("aa", 1, 0.7), ("bb", 2, 0.9)], [("cc", 1, 0.2)],
    ]  # fmt: skip
    coco = read_annotations(tmp_path / "out/pseudo")
    assert [row["category_id"] for row in coco.annotations if row["image_id"] != coco.images[0]["id"]]
    assert coco.categories == CLASSES


@pytest.mark.parametrize(("model", "score"), [("student", 0.75), ("teacher", 0.25)])
def test_predictions(workspace: Path, tmp_path: Path, model: str, score: float) -> None:
    request = ExportRequest("predictions", "coco", model=model)
    summary = export_labels(request, tmp_path / "out", workspace)
    assert summary["parts"] == {model: {"images": 1, "labels": 1}}
    (row,) = read_coco(tmp_path / f"out/{model}.json").annotations
    assert (row["score"], row["category_id"]) == (score, 9)
    none = export_labels(
        ExportRequest("predictions", "scalabel", model=model, min_score=0.8), tmp_path / "o", workspace
    )
    assert none["parts"][model] == {"images": 1, "labels": 0}


@pytest.mark.parametrize(
    ("score", "labels"), [(0.75, 1), (0.76, 0), (None, 1)]
)  # where none was chosen, those from 0.3 on
def test_by_default_predictions_from_the_chosen_score_on(
    workspace: Path, tmp_path: Path, score: float | None, labels: int
) -> None:
    chosen(workspace, student=score, teacher=0.1)
    for format in ("coco", "yolo-seg", "cvat", "label-maps", "scalabel", "bdd-bitmask"):
        summary = export_labels(ExportRequest("predictions", format), tmp_path / "out", workspace)
        assert summary["min_score"] == (0.3 if score is None else score)
        assert summary["parts"]["student"]["labels"] == labels
    summary = export_labels(ExportRequest("predictions", "coco-results"), tmp_path / "out", workspace)
    assert summary["min_score"] == 0 and summary["parts"]["student"]["labels"] == 1
    given = export_labels(ExportRequest("predictions", "coco", min_score=0.0), tmp_path / "out", workspace)
    assert given["parts"]["student"]["labels"] == 1


def test_the_dataset_and_a_file(workspace: Path, tmp_path: Path) -> None:
    summary = export_labels(ExportRequest("dataset", "coco"), tmp_path / "out", workspace)
    assert summary["parts"] == {"val": {"images": 1, "labels": 1}}  # splits without images are no files
    arguments = ["--what", "file", "--annotations", str(tmp_path / "out/val.json"), "--format", "scalabel"]
    done = CliRunner().invoke(app, ["export", *arguments, "--out", str(tmp_path / "converted"), "--json"])
    assert json.loads(done.stdout[: done.stdout.rindex("}") + 1])["parts"] == {
        "val": {"images": 1, "labels": 1}
    }
    (frame,) = frames_of_file(read_annotations(tmp_path / "converted/val.json"))
    assert (frame.file_name, frame.labels[0].counts) == ("1.png", rle(1, 1, 4))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (ExportRequest("masks", "coco"), "--what: found 'masks'"),
        (ExportRequest("pseudo", "yolo"), "--format: found 'yolo'"),
        (ExportRequest("dataset", "coco-results"), "whose masks have no scores"),
        (ExportRequest("file", "coco"), "go together"),
        (ExportRequest("pseudo", "coco", annotations=Path("a.json")), "go together"),
    ],
)
def test_wrong_requests(workspace: Path, tmp_path: Path, request_: ExportRequest, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        export_labels(request_, tmp_path / "out", workspace)
    assert not (tmp_path / "out").exists()


def test_only_an_earlier_export_is_replaced(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for format in ("coco", "bdd-bitmask", "scalabel"):
        export_labels(ExportRequest("pseudo", format), out, workspace)
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "pseudo.json"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("dear")
    for path in (tmp_path / "mine", tmp_path / "mine/thesis.tex"):
        with pytest.raises(TaskError, match="files that aren't from an export"):
            export_labels(ExportRequest("pseudo", "coco"), path, workspace)
    assert (tmp_path / "mine/thesis.tex").read_text() == "dear"


def test_what_is_not_there_yet_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["export", "--format", "coco", "--out", str(tmp_path / "out"), "--workspace", str(tmp_path)]
    )
    assert done.exit_code == 1
    assert "Next: " in done.output
    assert list(tmp_path.iterdir()) == []
