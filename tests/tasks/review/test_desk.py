"""Decisions on a desk: what is shown after them, what is refused, and that none is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.decisions.record import Mask
from data.decisions.store import DecisionLog, read_decisions
from data.errors import DataError
from data.masks.rle import decode, encode
from data.tables import IMAGES, POINTS, read_arrow, read_parquet, write_arrow, write_parquet
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.review.desk import Desk
from tasks.review.queue import Filters


def on(desk: Desk, row: int) -> dict[str, Any]:
    shown = desk.describe(row)
    return {"image": shown["image"]["name"], "object": shown["id"]}


def accept(desk: Desk, reviewer: str, row: int) -> Any:
    return desk.decide(reviewer, "accept", {**on(desk, row), "mask": desk.describe(row)["mask"]})


def lines(project: Path) -> list[str]:
    return [one.action for one in read_decisions(project / "decisions").decisions]


def test_what_is_decided_leaves_the_queue_and_is_shown(desk: Desk, project: Path) -> None:
    first, second, *_ = rows = desk.queue(Filters()).tolist()
    accept(desk, "anna", first)
    desk.decide("anna", "reject", on(desk, second))
    left = desk.queue(Filters())
    assert left.tolist() == rows[2:] and desk.queue(Filters(decided="yes")).tolist() == [first, second]
    assert desk.first_undecided(desk.queue(Filters(decided="all")), 0) == 2
    shown = desk.describe(first)
    assert (shown["verdict"], shown["decided"], shown["contradicted"]) == ("accept", True, {})
    assert [(one["reviewer"], one["what"]) for one in shown["decisions"]] == [("anna", "accept")]
    (stored, _) = read_decisions(project / "decisions").decisions
    assert stored.mask is not None and stored.mask.counts == desk.objects.masks([first])[0]
    assert desk.now("anna")["decided"] == 2 and desk.now("bob")["last"] is None


def test_a_class_leaves_the_object_undecided(desk: Desk) -> None:
    first = int(desk.queue(Filters())[0])
    desk.decide("anna", "class", {**on(desk, first), "category": "cherry"})
    shown = desk.describe(first)
    assert (shown["decided_category"], shown["decided"]) == ("cherry", False)
    assert int(desk.queue(Filters())[0]) == first


def test_undo_goes_back_through_all_that_counts(desk: Desk, project: Path) -> None:
    rows = desk.queue(Filters())[:3].tolist()
    made = [accept(desk, "anna", row) for row in rows]
    for one in reversed(made):
        last = desk.now("anna")["last"]
        assert last["id"] == one.id and last["object"] == one.object
        desk.decide("anna", "undo", {"undoes": last["id"]})
    assert desk.now("anna")["last"] is None and desk.now("anna")["decided"] == 0
    assert desk.queue(Filters())[:3].tolist() == rows
    assert lines(project) == ["accept"] * 3 + ["undo"] * 3


def test_a_request_that_comes_twice_decides_once(desk: Desk, project: Path) -> None:
    first = int(desk.queue(Filters())[0])
    where = on(desk, first)
    once = [
        accept(desk, "anna", first),
        desk.decide("anna", "class", {**where, "category": "apple"}),
        desk.decide("anna", "complete", {"image": where["image"]}),
        desk.decide("anna", "add", {**where, "object": "new1", "category": "apple", "point": [3.5, 4]}),
    ]
    again = [
        accept(desk, "anna", first),
        desk.decide("anna", "class", {**where, "category": "apple"}),
        desk.decide("anna", "complete", {"image": where["image"]}),
        desk.decide("anna", "add", {**where, "object": "new1", "category": "apple", "point": [3.5, 4]}),
    ]
    assert again == once
    desk.decide("anna", "undo", {"undoes": once[0].id})
    desk.decide("anna", "undo", {"undoes": once[0].id})
    assert lines(project) == ["accept", "class", "complete", "add", "undo"]
    assert accept(desk, "anna", first) != once[0]  # a new one after the undo


def test_two_desks_and_two_reviewers(desk: Desk, project: Path, params: Params) -> None:
    """The page opened twice, by a server each."""
    other = Desk(params, project)
    first, second = desk.queue(Filters())[:2].tolist()
    accept(desk, "anna", first)
    desk.decide("anna", "reject", on(desk, second))
    assert other.describe(first)["verdict"] == "accept" and first not in other.queue(Filters())
    other.decide("bob", "reject", on(other, first))
    for one in (desk, other):
        shown = one.describe(first)
        assert shown["contradicted"] == {"anna": "bob: reject", "bob": "anna: accept"}
        assert (shown["verdict"], shown["decided"]) == (None, False)
        assert one.queue(Filters(decided="contradicted")).tolist() == [first]
    other.decide("bob", "undo", {"undoes": other.now("bob")["last"]["id"]})
    assert desk.describe(first)["verdict"] == "accept"
    assert sorted(path.name for path in (project / "decisions").iterdir()) == ["anna.jsonl", "bob.jsonl"]


def test_clicks_decide_until_a_run_has_drawn_at_them(desk: Desk, project: Path, params: Params) -> None:
    first, second = desk.queue(Filters())[:2].tolist()
    further = [{"x": 9.1, "y": 8.7, "inside": False}, {"x": 3.3, "y": 2, "inside": True}]
    desk.decide("anna", "clicks", {**on(desk, first), "point": [5.2, 6.1], "further": further})
    shown = desk.describe(first)
    assert shown["decided"] and shown["click"] == (5.2, 6.1) and len(shown["further"]) == 2
    assert first not in desk.queue(Filters())

    path = project / "workspace/points/points.parquet"
    rows = read_parquet(path, POINTS).to_pylist()
    (row,) = (row for row in rows if row["point_id"] == shown["id"])
    row |= {"x": 5.2, "y": 6.1, "further": further[::-1]}  # as import_points writes it
    write_parquet(pa.Table.from_pylist(rows, schema=POINTS), path)
    after = Desk(params, project)
    assert first in after.queue(Filters()) and not after.describe(first)["decided"]
    row["x"] = 5.3
    write_parquet(pa.Table.from_pylist(rows, schema=POINTS), path)
    assert first not in Desk(params, project).queue(Filters())
    row |= {"x": 5.2, "further": further[:1]}
    write_parquet(pa.Table.from_pylist(rows, schema=POINTS), path)
    assert first not in Desk(params, project).queue(Filters())
    accept(after, "anna", second)
    assert second not in Desk(params, project).queue(Filters())


def test_a_mask_that_was_drawn_is_shown_and_what_is_accepted(desk: Desk) -> None:
    first = int(desk.queue(Filters())[0])
    width, height = desk.image_size(int(desk.objects.image[first]))
    pixels = decode(desk.objects.masks([first])[0] or b"", height, width)
    pixels[:5] = True
    drawn = {"size": [height, width], "counts": encode(pixels).decode()}
    desk.decide("anna", "mask", {**on(desk, first), "mask": drawn, "source": "polygon"})
    shown = desk.describe(first)
    assert shown["mask"] == drawn and shown["drawn"]
    accept(desk, "bob", first)
    assert desk.describe(first)["contradicted"] == {}


def test_added_objects_and_complete_images(desk: Desk, project: Path) -> None:
    image = desk.image(4)
    name = image["image"]["name"]
    assert len(image["objects"]) == 9 and image["complete"] == []
    made = desk.decide(
        "anna", "add", {"image": name, "object": "new1", "category": "apple", "point": [3.5, 4]}
    )
    desk.decide("anna", "complete", {"image": name})
    desk.decide("bob", "complete", {"image": name})
    after = desk.image(4)
    assert after["complete"] == ["anna", "bob"]
    added = after["objects"][-1]
    assert (added["id"], added["added"], added["by"], added["click"]) == ("new1", made.id, "anna", (3.5, 4.0))
    assert desk.notices() == []
    desk.decide("anna", "undo", {"undoes": made.id})
    desk.decide("anna", "undo", {"undoes": desk.now("anna")["last"]["id"]})
    after = desk.image(4)
    assert after["complete"] == ["bob"] and len(after["objects"]) == 9


def test_undone_decisions_are_made_again_until_there_is_a_new_one(desk: Desk) -> None:
    rows = desk.queue(Filters())[:3].tolist()
    for row in rows:
        accept(desk, "anna", row)
    assert desk.now("anna")["redo"] is None
    for _ in range(2):
        desk.decide("anna", "undo", {"undoes": desk.now("anna")["last"]["id"]})
    for row, decided in ((rows[1], 2), (rows[2], 3)):
        redo = desk.now("anna")["redo"]
        assert redo["object"] == desk.objects.ids[row] and redo["action"] == "accept"
        again = [
            desk.decide("anna", "undo", {"undoes": redo["undo"]}) for _ in range(2)
        ]  # the request comes twice
        assert desk.now("anna")["decided"] == decided and desk.describe(row)["verdict"] == "accept"
        assert again[1].id != again[0].id and desk.now("anna")["made"] == {"anna": 3 + 2 + decided - 1}
    assert desk.now("anna")["redo"] is None and desk.now("bob")["redo"] is None
    desk.decide("anna", "undo", {"undoes": desk.now("anna")["last"]["id"]})
    accept(desk, "anna", rows[0])  # says nothing new
    assert desk.now("anna")["redo"] is not None
    desk.decide("anna", "reject", on(desk, rows[0]))
    assert desk.now("anna")["redo"] is None


def test_agreeing_ends_a_contradiction(desk: Desk, project: Path) -> None:
    row = int(desk.queue(Filters())[0])
    pixels = np.zeros((128, 128), np.bool_)
    pixels[20:30, 40:60] = True
    bob = DecisionLog(project / "decisions", "bob")
    bob.append("mask", **on(desk, row), mask=Mask(128, 128, encode(pixels)), source="brush")
    bob.append("class", **on(desk, row), category="cherry")
    desk.decide("anna", "reject", on(desk, row))
    desk.decide("anna", "class", {**on(desk, row), "category": "apple"})
    shown = desk.describe(row)
    assert shown["contradicted"].keys() == {"anna", "bob"}
    assert [one["reviewer"] for one in shown["rivals"]] == ["bob"] and shown["rivals"][0]["path"]
    made = desk.agree("anna", shown["id"], "bob")
    assert [one.action for one in made] == ["class", "accept"]
    after = desk.describe(row)
    assert after["contradicted"] == {} and after["rivals"] == [] and after["decided_category"] == "cherry"
    assert (decode(after["mask"]["counts"].encode(), 128, 128) == pixels).all()
    assert desk.agree("anna", shown["id"], "bob") == []
    with pytest.raises(DataError, match="no decision of 'carl'"):
        desk.agree("anna", shown["id"], "carl")


def test_what_a_reviewer_decided_last_comes_first(desk: Desk) -> None:
    rows = desk.queue(Filters())[:3].tolist()
    for row in rows:
        accept(desk, "anna", row)
    accept(desk, "bob", rows[2])
    desk.decide("anna", "class", {**on(desk, rows[0]), "category": "cherry"})
    mine = Filters(order="latest", decided="all", by="anna")
    assert desk.queue(mine).tolist() == [rows[0], rows[2], rows[1]]
    assert desk.queue(mine.model_copy(update={"by": "bob"})).tolist() == [rows[2]]
    assert desk.queue(mine.model_copy(update={"by": "carl"})).tolist() == []


def test_neighbours_are_shown_as_reviewers_left_them(desk: Desk) -> None:
    row, other = next(
        (row, one["id"]) for row in desk.queue(Filters()).tolist() for one in desk.describe(row)["neighbours"]
    )

    def path() -> str:
        return next(one["path"] for one in desk.describe(row)["neighbours"] if one["id"] == other)

    before = path()
    pixels = np.zeros((128, 128), np.bool_)
    pixels[20:60, 40:60] = True
    mask = {"size": [128, 128], "counts": encode(pixels).decode()}
    where = on(desk, desk.objects.row_of[other])
    made = desk.decide("anna", "mask", {**where, "mask": mask, "source": "polygon"})
    assert path() != before
    desk.decide("anna", "undo", {"undoes": made.id})
    assert path() == before


def test_added_objects_are_shown_alone_and_decided_on(desk: Desk, project: Path) -> None:
    name = desk.image(4)["image"]["name"]
    added = {"image": name, "object": "new1", "category": "apple", "point": [60.5, 64]}
    made = desk.decide("anna", "add", added)
    shown = desk.describe_added("new1")
    assert shown is not None and shown["image"]["name"] == name and shown["click"] == (60.5, 64.0)
    assert shown["mask"] is None and shown["neighbours"] and shown["why"] == ["added by anna"]
    pixels = np.zeros((128, 128), np.bool_)
    pixels[20:60, 40:60] = True
    mask = {"size": [128, 128], "counts": encode(pixels).decode()}
    where = {"image": name, "object": "new1"}
    desk.decide("bob", "mask", {**where, "mask": mask, "source": "polygon"})
    desk.decide("bob", "class", {**where, "category": "cherry"})
    assert set(desk.describe_added("new1")["contradicted"]) == {"anna", "bob"}  # type: ignore[index]
    desk.agree("anna", "new1", "bob")
    after = desk.describe_added("new1")
    assert after is not None and after["mask"] == mask and after["decided_category"] == "cherry"
    assert after["drawn"] is False and after["path"]  # accepted by the later one
    beside = desk.describe(
        next(n for n in desk.objects.of_image(4) if desk.objects.ids[n] == after["neighbours"][0]["id"])
    )
    assert "new1" in [one["id"] for one in beside["neighbours"]]
    desk.decide("anna", "undo", {"undoes": made.id})
    assert desk.describe_added("new1") is None and desk.describe_added("never") is None


def test_an_added_object_that_a_run_drew_is_one_like_others(
    desk: Desk, project: Path, params: Params
) -> None:
    name = desk.image(4)["image"]["name"]
    made = desk.decide(
        "anna", "add", {"image": name, "object": desk.objects.ids[0], "category": "apple", "point": [3.5, 4]}
    )
    assert len(desk.notices()) == 1
    path = project / "workspace/points/points.parquet"
    rows = read_parquet(path, POINTS).to_pylist()
    for row in rows:
        if row["point_id"] == desk.objects.ids[0]:
            row |= {"annotator": "anna", "source_file": "anna.jsonl", "source_record": made.id}
    write_parquet(pa.Table.from_pylist(rows, schema=POINTS), path)
    again = Desk(params, project)
    other = [one["text"] for one in again.notices() if "is a point" in one["text"]]
    assert other == []


def test_masks_of_another_size_are_a_fault_of_the_run(desk: Desk, project: Path, params: Params) -> None:
    path = project / "workspace/dataset/weak/images.arrow"
    rows = [row | {"width": 100} for row in read_arrow(path, IMAGES).to_pylist()]
    write_arrow(pa.Table.from_pylist(rows, schema=IMAGES), path)
    again = Desk(params, project)
    for show in (lambda: again.describe(0), lambda: again.image(0)):
        with pytest.raises(TaskError, match="ingest has run since"):
            show()


def test_decisions_on_what_is_gone_are_told(desk: Desk, project: Path) -> None:
    log = DecisionLog(project / "decisions", "carl")
    gone = log.append("reject", image="day/000001.jpg", object="0123456789abcdef")
    log.append("complete", image="night.jpg")
    log.append("reject", image="day/000002.jpg", object=desk.objects.ids[0])
    with log.path.open("ab") as file:
        file.write(b"nonsense\n")
    found = desk.notices()
    assert [one["text"].partition("carl: ")[2] for one in found[:3]] == [
        "reject: there is no object 0123456789abcdef",
        "complete: there is no weak image night.jpg",
        f"reject: object {desk.objects.ids[0]} is on another image",
    ]
    assert "line 4" in found[3]["text"] and found[0]["undoes"] == gone.id
    desk.decide("carl", "undo", {"undoes": gone.id})
    assert len(desk.notices()) == 3


@pytest.mark.parametrize(
    ("action", "change", "message"),
    [
        ("class", {"category": "pear"}, "class 'pear'"),
        ("reject", {"image": "night.jpg"}, "image 'night.jpg'"),
        ("accept", {"mask": {"size": [5, 5], "counts": "1"}}, "a mask of 5 x 5"),
        ("accept", {"mask": {"size": [5], "counts": "1"}}, "docs/decisions.md"),
        ("accept", {"mask": "x"}, "docs/decisions.md"),
        ("accept", {}, "mask"),
        ("clicks", {"point": [1, 500], "further": []}, "a click at 1.0, 500.0"),
        ("clicks", {"point": [1, 5], "further": [{"x": -1, "y": 3, "inside": True}]}, "a click at -1.0, 3.0"),
        ("clicks", {"point": [float("nan"), 5], "further": []}, "a click at nan"),
        ("add", {"object": "no id!", "category": "apple", "point": [1, 1]}, "no id!"),
        ("undo", {"undoes": "never"}, "undoes never"),
        ("delete", {}, "delete"),
    ],
)
def test_bad_decisions_are_refused_and_nothing_is_written(
    desk: Desk, project: Path, action: str, change: dict[str, Any], message: str
) -> None:
    fields = {} if action == "undo" else on(desk, 0)
    with pytest.raises(DataError, match=message):
        desk.decide("anna", action, {**fields, **change})
    assert lines(project) == []


@pytest.mark.parametrize("name", ["../anna", "Anna", "", "con", "a" * 65])
def test_a_name_that_leads_elsewhere_is_refused(desk: Desk, project: Path, name: str) -> None:
    with pytest.raises(DataError, match="reviewer"):
        desk.decide(name, "complete", {"image": "day/000001.jpg"})
    assert list((project / "decisions").iterdir()) == []


def test_many_threads_lose_nothing(desk: Desk, project: Path) -> None:
    rows = desk.queue(Filters()).tolist()

    def work(reviewer: str, own: list[int]) -> None:
        for row in own:
            accept(desk, reviewer, row)

    threads = [threading.Thread(target=work, args=(f"r{n % 3}", rows[n::6]), name=f"{n}") for n in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(lines(project)) == len(rows) and desk.now("r0")["decided"] == len(rows)
    assert desk.queue(Filters()).tolist() == []


def test_decisions_of_before_the_image_or_the_classes_changed_are_listed_and_dont_count(
    desk: Desk, project: Path
) -> None:
    row = int(desk.queue(Filters())[0])
    before, bob = desk.describe(row), DecisionLog(project / "decisions", "bob")
    mask = np.zeros((7, 9), np.bool_)
    mask[2:4, 2:4] = True
    bob.append("mask", **on(desk, row), mask=Mask(7, 9, encode(mask)), source="brush")
    bob.append("class", **on(desk, row), category="<b>pear")
    shown = desk.describe(row)
    assert not shown["decided"] and shown["mask"] == before["mask"] and shown["decisions"] == []
    whole = desk.image(int(desk.objects.image[row]))
    assert all(one["path"] for one in whole["objects"] if one["id"] == before["id"])
    expected = [
        "bob: mask: found a mask of 9 x 7, expected 128 x 128, the image's size",
        "bob: class <b>pear: there is no class <b>pear",
    ]
    assert [one["text"] for one in desk.notices()] == expected
    bob.append("clicks", **on(desk, row), point=(128.0, 5.0), further=())
    assert not desk.describe(row)["decided"]
    bob.append("add", **on(desk, row), category="apple", point=(5.0, 5.0))
    assert [one["text"].rpartition(": ")[2] for one in desk.notices()] == [
        f"object {before['id']} is a point"
    ]
