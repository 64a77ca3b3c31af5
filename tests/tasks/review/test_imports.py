"""Corrections of label tools as decisions: what goes out, is changed, and comes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from data.annotations.frames import Frame, Label
from data.decisions.record import Decision, Mask
from data.decisions.store import DecisionLog, read_decisions
from data.decisions.words import without_undone
from data.errors import DataError
from data.masks import rle as masks
from data.tables import POINTS, SENT, Split, read_parquet, write_split
from flows.cli.main import app
from tasks.common.errors import TaskError
from tasks.review.corrections import Corrected
from tasks.review.imports import is_same
from tasks.review.present import present_objects
from tasks.tools.export_labels import ExportRequest, export_labels, read_pseudo, write_for_tool
from tasks.tools.import_review import import_review, undo_import
from tests.tasks.review.project import CLASSES, HEIGHT, WIDTH, rle, write_project

Document = dict[str, Any]
Edit = Callable[[Document], None]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """With the export that COCO tools were given, in folder `sent`."""
    write_project(tmp_path)
    send(tmp_path, "coco")
    return tmp_path


def points(root: Path) -> pa.Table:
    return read_parquet(root / "workspace/points/points.parquet", POINTS)


def send(root: Path, tool: str) -> Path:
    request = ExportRequest("pseudo", tool, decisions=root / "decisions")
    export_labels(request, root / "sent", root / "workspace")
    return root / "sent"


def written(root: Path, *edits: Edit, name: str = "back.json") -> Path:
    """What a COCO tool exports after some changes."""
    document = json.loads((root / "sent/pseudo.json").read_text())
    for edit in edits:
        edit(document)
    (root / name).write_text(json.dumps(document))
    return root / name


def read(root: Path, file: Path, reviewer: str = "anna", **options: Any) -> dict[str, Any]:
    options = {"sent": root / "sent", "reviewed": "all"} | options
    return import_review(file, root / "decisions", root / "workspace", reviewer, **options)


def decided(root: Path, reviewer: str = "anna") -> list[tuple[str, str | None, str | None]]:
    found = read_decisions(root / "decisions").decisions
    return [(one.action, one.object, one.category) for one in found if one.reviewer == reviewer]


def row_of(document: Document, point_id: str) -> Document:
    (row,) = (one for one in document["annotations"] if one.get("point_id") == point_id)
    return row  # type: ignore[no-any-return]


def gone(point_id: str) -> Edit:
    return lambda document: document["annotations"].remove(row_of(document, point_id))


def change(point_id: str, /, **fields: Any) -> Edit:
    return lambda document: row_of(document, point_id).update(fields)


def segmentation(counts: bytes) -> Document:
    return {"size": [HEIGHT, WIDTH], "counts": counts.decode()}


def new(image_id: int, counts: bytes, **fields: Any) -> Edit:
    def edit(document: Document) -> None:
        number = max((row["id"] for row in document["annotations"]), default=0) + 1
        row = {"id": number, "image_id": image_id, "category_id": 4, "segmentation": segmentation(counts)}
        document["annotations"].append(row | fields)

    return edit


def without_ids(document: Document) -> None:
    for row in document["annotations"]:
        for key in ("point_id", "attributes"):
            row.pop(key, None)


def test_an_unchanged_file_accepts_the_masks_that_were_sent(project: Path) -> None:
    summary = read(project, written(project))
    assert summary["actions"] == {"accept": 3} and summary["counts"]["matched_by_id"] == 3
    found = {one.object: one for one in read_decisions(project / "decisions").decisions}
    assert found["cc"].mask == Mask(HEIGHT, WIDTH, rle(1, 1, 4)) and found["cc"].image == "8.png"


@pytest.mark.parametrize("ids", [True, False])
def test_each_change_is_a_decision(project: Path, ids: bool) -> None:
    """Also by IoU alone: 16 of 25 pixels are the same."""
    edits: list[Edit] = [
        gone("cc"),
        change("aa", segmentation=segmentation(rle(1, 1, 4))),
        change("bb", category_id=9),
        new(9, rle(3, 3, 3)),
    ]
    summary = read(project, written(project, *edits, *([] if ids else [without_ids])), reviewed="marked")
    assert summary["actions"] == {"add": 1, "class": 1, "mask": 1, "reject": 1}
    assert summary["counts"]["matched_by_id" if ids else "matched_by_iou"] == 2
    found = {one.action: one for one in read_decisions(project / "decisions").decisions}
    assert found["mask"].object == "aa" and found["mask"].source == "brush"
    assert found["mask"].mask == Mask(HEIGHT, WIDTH, rle(1, 1, 4))
    assert (found["class"].object, found["class"].category) == ("bb", "ring")
    assert found["reject"].object == "cc"
    assert found["add"].image == "9.png" and found["add"].category == "disc"


def test_below_an_iou_of_a_half_it_is_another_object(project: Path) -> None:
    """9 of 25 pixels."""
    file = written(project, change("aa", segmentation=segmentation(rle(1, 1, 3))), without_ids)
    assert read(project, file, reviewed="marked")["actions"] == {"add": 1, "reject": 1}


def test_a_mask_of_its_id_may_be_anywhere(project: Path) -> None:
    file = written(project, change("aa", segmentation=segmentation(rle(12, 6, 3))))
    assert read(project, file, reviewed="marked")["actions"] == {"mask": 1}
    assert decided(project) == [("mask", "aa", None)]


@pytest.mark.parametrize(
    ("reviewed", "accepted"), [("marked", set()), ("changed", {"aa"}), ("all", {"aa", "cc"})]
)
def test_which_unchanged_objects_are_accepted(project: Path, reviewed: str, accepted: set[str]) -> None:
    """On image 7 object bb has changed; on image 8 nothing has."""
    file = written(project, change("bb", segmentation=segmentation(rle(8, 3, 4))))
    read(project, file, reviewed=reviewed)
    assert {name for action, name, _ in decided(project) if action == "accept"} == accepted


def test_images_that_the_file_lacks_are_left_alone(project: Path) -> None:
    def edit(document: Document) -> None:
        document["images"] = [row for row in document["images"] if row["id"] == 8]
        document["annotations"] = []

    read(project, written(project, edit))
    assert decided(project) == [("reject", "cc", None)]


def test_what_was_not_sent_is_not_rejected(project: Path) -> None:
    """An object that somebody added since, and one of a score below that of the export."""
    export_labels(
        ExportRequest("pseudo", "coco", decisions=project / "decisions", min_score=0.5),
        project / "sent", project / "workspace",
    )  # fmt: skip
    bert = DecisionLog(project / "decisions", "bert")
    mask = Mask(HEIGHT, WIDTH, rle(0, 0, 2))
    bert.append("add", image="8.png", object="new", category="disc", mask=mask, source="brush")
    assert read(project, written(project))["actions"] == {"accept": 2}
    options: dict[str, Any] = {"reviewer": "cara", "sent": None, "skip_contradicted": True}
    assert read(project, written(project), **options)["actions"] == {"accept": 2, "reject": 1}


def suggested(project: Path) -> Path:
    """A task of `points2model suggest`: a mask that a model found on image 9, and those of image 7. Its export."""
    sent = read_parquet(project / "sent/sent.parquet", SENT).to_pylist()
    known = [Label(n, 4, one["rle_counts"], point_id=one["object_id"]) for n, one in enumerate(sent[:2], 1)]
    frames = [
        Frame(7, "7.png", WIDTH, HEIGHT, tuple(known)),
        Frame(9, "9.png", WIDTH, HEIGHT, (Label(3, 4, rle(3, 3, 3), score=0.6),)),
    ]
    write_for_tool(project / "sent", "pseudo", "coco", frames, CLASSES)
    return written(project)


def test_what_a_model_found_is_an_object_only_where_somebody_looked(project: Path) -> None:
    file = suggested(project)
    for reviewed in ("marked", "changed"):
        summary = read(project, file, reviewed=reviewed)
        assert summary["actions"] == {} and summary["counts"]["unchanged"] == 3
    assert read(project, file)["actions"] == {"accept": 2, "add": 1}
    (added,) = [one for one in read_decisions(project / "decisions").decisions if one.action == "add"]
    assert (added.image, added.category) == ("9.png", "disc") and added.mask is not None
    assert added.mask.counts == rle(3, 3, 3)
    assert read(project, file)["actions"] == {}


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda document: document["annotations"].pop(), {}),
        (lambda document: document["annotations"][-1].update(category_id=9), {"add": 1}),
        (lambda document: document["annotations"][-1].update(segmentation=segmentation(rle(3, 3, 4))), {"add": 1}),
        (new(9, rle(8, 3, 3)), {"add": 1}),
    ],
)  # fmt: skip
def test_changes_of_what_a_model_found(project: Path, edit: Edit, expected: dict[str, int]) -> None:
    suggested(project)
    assert read(project, written(project, edit), reviewed="marked")["actions"] == expected


def test_the_same_file_twice_adds_nothing(project: Path) -> None:
    edits = [gone("cc"), change("aa", segmentation=segmentation(rle(1, 1, 4))), change("bb", category_id=9)]
    file = written(project, *edits, new(9, rle(3, 3, 3)), new(8, rle(9, 2, 3), category_id=9))
    first = read(project, file)
    assert sum(first["actions"].values()) == 6
    for sent in (project / "sent", None):
        again = read(project, file, sent=sent)
        assert again["actions"] == {}
    # The reviewer goes on elsewhere; the old file doesn't take that back.
    anna = DecisionLog(project / "decisions", "anna")
    anna.append("mask", image="7.png", object="aa", mask=Mask(HEIGHT, WIDTH, rle(2, 2, 2)), source="click")
    anna.append("class", image="7.png", object="bb", category="disc")
    assert read(project, file)["actions"] == {} and read(project, file, sent=None)["actions"] == {}


def test_an_import_is_undone_as_a_whole_and_may_be_made_again(project: Path) -> None:
    log = DecisionLog(project / "decisions", "anna")
    log.append("reject", image="8.png", object="cc")
    file = written(project, gone("aa"), new(9, rle(3, 3, 3)), change("cc", category_id=4))
    first = read(project, file)
    later = log.append("reject", image="7.png", object="bb")
    shown = undo_import(file, project / "decisions", "anna", dry_run=True)
    assert shown["actions"] == first["actions"] and "undo" not in [action for action, *_ in decided(project)]
    undo_import(file, project / "decisions", "anna")
    own = read_decisions(project / "decisions").decisions
    assert [(one.object, one.action) for one in without_undone(own)[0]] == [
        ("cc", "reject"),
        ("bb", "reject"),
    ]
    with pytest.raises(TaskError, match="found no decision of anna"):
        undo_import(file, project / "decisions", "anna")
    with pytest.raises(TaskError, match="found no decision of bob"):
        undo_import(file, project / "decisions", "bob")
    log.append("undo", undoes=later.id)
    assert read(project, file)["actions"] == first["actions"]


def test_an_import_that_was_cut_off_is_completed(project: Path) -> None:
    file = written(project, gone("cc"), change("bb", category_id=9))
    read(project, file)
    path = project / "decisions/anna.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:2]) + whole[2][:40])
    summary = read(project, file)
    assert sum(summary["actions"].values()) == len(whole) - 2
    assert sorted(map(str, decided(project))) == sorted(
        map(
            str,
            [("accept", "aa", None), ("accept", "bb", None), ("class", "bb", "ring"), ("reject", "cc", None)],
        )
    )


def test_the_same_new_object_twice_is_one(project: Path) -> None:
    file = written(project, *[new(7, rle(10, 1, 2), category_id=4)] * 2)
    assert read(project, file, reviewed="marked")["actions"] == {"add": 1}
    assert [action for action, *_ in decided(project)] == ["add"]


def test_a_second_round_of_corrections(project: Path) -> None:
    """What was drawn and added is sent again, and changed again; a later verdict follows the earlier one."""
    read(
        project, written(project, new(9, rle(3, 3, 3)), change("aa", segmentation=segmentation(rle(1, 1, 4))))
    )
    send(project, "coco")
    document = json.loads((project / "sent/pseudo.json").read_text())
    (added,) = (row["point_id"] for row in document["annotations"] if row["point_id"].startswith("added-"))
    assert read(project, written(project))["actions"] == {}
    file = written(project, gone(added), change("aa", segmentation=segmentation(rle(1, 1, 3))))
    assert read(project, file)["actions"] == {"mask": 1, "reject": 1}
    weak = Split.open(project / "workspace/dataset/weak")
    decisions = read_decisions(project / "decisions").decisions
    found = {
        one.object: one.counts
        for one in present_objects(read_pseudo(project / "workspace"), points(project), weak, decisions)
    }
    assert found.keys() == {"aa", "bb", "cc"} and found["aa"] == rle(1, 1, 3)


def wider(document: Document) -> None:
    document["images"][0] |= {"width": WIDTH + 1}
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] != 7]


def other_class(document: Document) -> None:
    document["categories"].append({"id": 5, "name": "dics"})
    row_of(document, "aa")["category_id"] = 5


def copied(document: Document) -> None:
    document["annotations"].append(
        row_of(document, "aa") | {"id": 99, "segmentation": segmentation(rle(9, 1, 2))}
    )


def elsewhere(document: Document) -> None:
    row_of(document, "cc")["image_id"] = 9


BAD = {
    "size": (wider, "17 x 10 pixels; expected 16 x 10"),
    "class": (other_class, "class 'dics', of 1 objects: found category 'dics'; expected a known category"),
    "twice": (copied, "object aa again, after image '7.png'"),
    "unknown": (
        change("aa", point_id="zz", attributes={}),
        "found object zz; expected an object of the project",
    ),
    "elsewhere": (elsewhere, "found object cc; expected it on image '8.png'"),
    "image": (lambda document: document["images"][1].update(file_name="1.png"), "image '1.png'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_reported_and_nothing_is_written(project: Path, name: str) -> None:
    edit, said = BAD[name]
    with pytest.raises(DataError) as caught:
        read(project, written(project, edit))
    assert said in str(caught.value) and "back.json" in str(caught.value)
    assert decided(project) == []


def test_all_faults_are_reported_at_once(project: Path) -> None:
    DecisionLog(project / "decisions", "bert").append("class", image="7.png", object="bb", category="disc")
    edits = [other_class, elsewhere, copied, change("bb", category_id=9)]
    with pytest.raises(DataError) as caught:
        read(project, written(project, *edits))
    text = str(caught.value)
    assert all(
        part in text for part in ("again", "object cc", "dics", "class ring and accept; bert: class disc")
    )
    assert decided(project) == []


def test_contradictions_are_faults_or_left_out(project: Path) -> None:
    bert = DecisionLog(project / "decisions", "bert")
    bert.append("reject", image="7.png", object="aa")
    bert.append("accept", image="7.png", object="bb", mask=Mask(HEIGHT, WIDTH, rle(8, 3, 5)))
    with pytest.raises(DataError, match=r"object aa: found accept; bert: reject"):
        read(project, written(project))
    assert decided(project) == []
    summary = read(project, written(project), skip_contradicted=True)
    assert summary["counts"]["skipped"] == 1 and summary["actions"] == {"accept": 2}
    assert {name for _, name, _ in decided(project)} == {"bb", "cc"}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_after_an_import_the_objects_are_those_of_the_file(project: Path, data: st.DataObject) -> None:
    shutil.rmtree(project / "decisions")
    (project / "decisions").mkdir()
    edits: list[Edit] = []
    for name in ("aa", "bb", "cc"):
        kind = data.draw(st.sampled_from(["same", "gone", "mask", "class", "both"]))
        if kind == "gone":
            edits.append(gone(name))
        if kind in ("mask", "both"):
            x, y, side = (data.draw(st.integers(*ends)) for ends in ((0, 11), (0, 5), (1, 5)))
            edits.append(change(name, segmentation=segmentation(rle(x, y, side))))
        if kind in ("class", "both"):
            edits.append(change(name, category_id=data.draw(st.sampled_from([4, 9]))))
    for side in data.draw(st.sets(st.integers(1, 3))):
        edits.append(new(9, rle(4 * side - 4, 6, side), category_id=data.draw(st.sampled_from([4, 9]))))
    reviewed = data.draw(st.sampled_from(["marked", "changed", "all"]))
    file = written(project, *edits)
    read(project, file, reviewed=reviewed)
    weak = Split.open(project / "workspace/dataset/weak")
    decisions = read_decisions(project / "decisions").decisions
    after = present_objects(read_pseudo(project / "workspace"), points(project), weak, decisions)
    document = json.loads(file.read_text())
    expected = sorted(
        (row["image_id"], row["category_id"], row["segmentation"]["counts"].encode())
        for row in document["annotations"]
    )
    assert sorted((one.image_id, one.category_id, one.counts) for one in after) == expected
    assert read(project, file, reviewed=reviewed)["actions"] == {}


def moved(dx: int, side: int, *, is_polygon: bool) -> bool:
    back = Corrected("", None, (), "disc", rle(3 + dx, 3, side), is_polygon)
    return is_same(back, rle(3, 3, 5), HEIGHT, WIDTH)


def test_a_polygon_may_deviate_by_a_pixel_and_a_brush_by_none() -> None:
    assert moved(0, 5, is_polygon=False) and moved(0, 5, is_polygon=True)
    assert moved(1, 5, is_polygon=True) and not moved(1, 5, is_polygon=False)
    assert not moved(2, 5, is_polygon=True)
    assert moved(0, 6, is_polygon=True) and not moved(0, 7, is_polygon=True)


def test_a_polygon_without_its_hole_has_changed() -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[1:9, 1:9] = True
    filled = masks.encode(mask)
    mask[3:7, 3:7] = False
    assert not is_same(Corrected("", None, (), "disc", filled, True), masks.encode(mask), HEIGHT, WIDTH)


@pytest.mark.parametrize("tool", ["cvat", "label-studio", "yolo-seg"])
def test_the_formats_of_tools_come_back(project: Path, tool: str) -> None:
    """Nothing was changed, and one image is marked as finished. YOLO has neither ids nor marks."""
    sent = send(project, tool)
    back = sent / {"cvat": "pseudo.xml", "label-studio": "pseudo/tasks.json", "yolo-seg": "pseudo"}[tool]
    if tool == "cvat":
        text = back.read_text()
        end = text.index("</image>")
        back = project / "back.xml"
        back.write_text(text[:end] + '<tag label="reviewed" source="manual"></tag>' + text[end:])
    if tool == "label-studio":
        rows = [row | {"annotations": []} for row in json.loads(back.read_text())]
        rows[0]["annotations"] = [{"id": 1, "result": rows[0]["predictions"][0]["result"]}]
        back = project / "back.json"
        back.write_text(json.dumps(rows))
    summary = read(project, back, reviewed="marked")
    assert summary["actions"] == ({} if tool == "yolo-seg" else {"accept": 2})
    images = 1 if tool == "label-studio" else 3
    assert (summary["counts"]["images"], summary["counts"]["unchanged"]) == (images, 2 if images == 1 else 3)
    by_id = 0 if tool == "yolo-seg" else summary["counts"]["unchanged"]
    assert summary["counts"]["matched_by_id"] == by_id


def test_an_image_of_label_studio_without_regions_has_no_objects_left(project: Path) -> None:
    sent = send(project, "label-studio")
    rows = [row | {"annotations": []} for row in json.loads((sent / "pseudo/tasks.json").read_text())]
    rows[0]["annotations"] = [{"id": 1, "result": []}]
    rows[1]["annotations"] = [{"id": 2, "result": [], "was_cancelled": True}]
    (project / "back.json").write_text(json.dumps(rows))
    assert read(project, project / "back.json")["actions"] == {"reject": 2}
    assert {name for _, name, _ in decided(project)} == {"aa", "bb"}


def test_the_command(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    file = written(project, change("aa", category_id=9))
    options = ["review", "--import", str(file), "--sent", "sent", "--reviewer", "anna"]
    done = CliRunner().invoke(app, [*options, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "would be written: 1 classes changed" in done.output and "marks no image" in done.output
    assert decided(project) == [] and "--sent" not in done.output
    fewer = str(written(project, gone("bb"), name="fewer.json"))  # as an export with --min-score
    done = CliRunner().invoke(app, ["review", "--import", fewer, "--reviewer", "anna", "--dry-run"])
    assert done.exit_code == 0 and "without --sent FOLDER, masks that the tool never had" in done.output
    done = CliRunner().invoke(app, [*options, "--reviewed", "changed", "--json"])
    assert json.loads(done.stdout)["actions"] == {"accept": 2, "class": 1}
    done = CliRunner().invoke(app, [*options, "--undo"])
    assert done.exit_code == 1 and "--sent and --skip-contradicted don't go with it" in done.output
    undo = ["review", "--import", str(file), "--reviewer", "anna", "--undo"]
    for more, verb in (("--dry-run", "would be"), ("--json", "were")):
        done = CliRunner().invoke(app, [*undo, more])
        assert done.exit_code == 0 and f"3 decisions of anna {verb} undone: 2 masks accepted" in done.output
    assert CliRunner().invoke(app, undo).exit_code == 1
    assert CliRunner().invoke(app, ["review", "--undo"]).exit_code == 1
    done = CliRunner().invoke(
        app, ["review", "--import", str(written(project, copied)), "--reviewer", "anna"]
    )
    assert done.exit_code == 1 and "object aa again" in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sent": Path("nowhere")}, "sent.parquet"),
        ({"reviewed": "some"}, "--reviewed"),
        ({"reviewer": "Anna?"}, "reviewer"),
    ],
)
def test_impossible_options(project: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises((TaskError, DataError), match=said):
        read(project, written(project), **options)


def test_a_full_disk_leaves_the_file_as_it_was(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = DecisionLog(project / "decisions", "anna")
    first = anna.append("reject", image="7.png", object="aa")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        anna.extend([("reject", {"image": "7.png", "object": name}) for name in ("bb", "cc")])
    monkeypatch.undo()
    assert [one.id for one in read_decisions(project / "decisions").decisions] == [first.id]


def test_old_decisions_are_read_and_new_fields_are_kept(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "decisions", "anna")
    made = log.append("reject", image="7.png", object="aa", audit="s1", imported="ff00")
    assert read_decisions(tmp_path / "decisions").decisions == [made]
    assert Decision("i", made.time, "anna", "reject", "7.png", "aa").to_line().count("audit") == 0


def test_masks_of_an_older_data_set_go_nowhere(project: Path) -> None:
    split = project / "workspace/dataset/weak"
    weak = Split.open(split)
    images = weak.images.filter(pc.not_equal(weak.images["image_id"], 8))
    write_split(split, images, weak.instances, weak.categories, str(weak.image_root))
    for does in (lambda: read(project, written(project)), lambda: send(project, "coco")):
        with pytest.raises(TaskError, match="image_id: found 1 that the data set doesn't have, such as 8"):
            does()
    assert decided(project) == []
