from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.decisions.record import Click, Decision, Mask
from data.masks.rle import encode
from data.points.elsewhere import Elsewhere
from data.tables import IMAGES, INSTANCES, POINTS, Category, Split
from tasks.intake.decisions import Reviewed, apply_decisions, summary, unsettled
from tests.data.fuzzing import few_times

HEIGHT, WIDTH = 10, 20


def mask(left: int, side: int = 4, height: int = HEIGHT) -> Mask:
    pixels = np.zeros((height, WIDTH), np.bool_)
    pixels[2 : 2 + side, left : left + side] = True
    return Mask(height, WIDTH, encode(pixels))


def split(name: str, names: Sequence[str], first: int) -> Split:
    rows = [
        {
            **dict.fromkeys(IMAGES.names),
            "image_id": first + n,
            "file_name": one,
            "width": WIDTH,
            "height": HEIGHT,
        }
        for n, one in enumerate(names)
    ]
    categories = [Category(7, "apple"), Category(9, "pear")]
    images = pa.Table.from_pylist(rows, schema=IMAGES)
    return Split(Path(name), images, INSTANCES.empty_table(), categories, ".")


WEAK = split("weak", ["a.png", "night/b.png", "c.png"], 100)
ELSEWHERE = Elsewhere({50: ("broken.png", "unreadable")}, {"val": split("val", ["v.png"], 300)})
BASE = [
    {
        "point_id": name,
        "image_id": image,
        "category_id": 7,
        "x": x,
        "y": 3.5,
        "annotator": "z",
        "further": None,
    }
    for name, image, x in (("p1", 100, 4.5), ("p2", 100, 10.5), ("p3", 101, 4.5))
]
POINTS_TABLE = pa.Table.from_pylist([{**dict.fromkeys(POINTS.names), **row} for row in BASE], schema=POINTS)


def decide(*lines: tuple[str, str, dict[str, Any]]) -> list[Decision]:
    """Decisions d0, d1, ... a second apart, from (reviewer, action, fields); on p1 of a.png unless fields say else."""
    found = []
    for n, (reviewer, action, fields) in enumerate(lines):
        usual: dict[str, Any] = {"image": "a.png", "object": "p1"}
        if action == "complete":
            usual = {"image": "a.png"}
        if action == "undo":
            usual = {}
        time = f"2026-06-01T09:30:{n:02d}.000+00:00"
        found.append(Decision(f"d{n}", time, reviewer, action, **(usual | fields)))  # type: ignore[arg-type]
    return found


def apply(*lines: tuple[str, str, dict[str, Any]]) -> Reviewed:
    return apply_decisions(decide(*lines), POINTS_TABLE, WEAK, ELSEWHERE)


def states(reviewed: Reviewed) -> list[str]:
    return list(reviewed.decisions["state"].to_pylist())


def point(reviewed: Reviewed, name: str) -> dict[str, Any]:
    (row,) = (row for row in reviewed.points.to_pylist() if row["point_id"] == name)
    return row


A, B = mask(2), mask(3)
ACCEPT, REJECT = ("accept", {"mask": A}), ("reject", {})
CLICKS: dict[str, Any] = {"point": (6.25, 3.5), "further": (Click(1.5, 2.5, False), Click(7.0, 4.0, True))}


def test_clicks_classes_and_additions_come_into_the_points() -> None:
    found = apply(
        ("anna", "clicks", CLICKS),
        ("anna", "class", {"object": "p2", "category": "pear"}),
        ("bob", "add", {"object": "new", "image": "c.png", "category": "pear", "point": (1.5, 2.5)}),
        (
            "bob",
            "add",
            {"object": "drawn", "image": "c.png", "category": "apple", "mask": A, "source": "brush"},
        ),
    )
    assert states(found) == ["honoured"] * 4
    assert found.points.schema == POINTS
    rows = found.points.to_pylist()
    assert [(row["image_id"], row["point_id"]) for row in rows] == [
        (100, "p1"),
        (100, "p2"),
        (101, "p3"),
        (102, "new"),
    ]
    moved = point(found, "p1")
    assert (moved["x"], moved["y"], moved["category_id"], moved["annotator"]) == (6.25, 3.5, 7, "z")
    assert moved["further"] == [
        {"x": 7.0, "y": 4.0, "inside": True}, {"x": 1.5, "y": 2.5, "inside": False},
    ]  # fmt: skip
    assert point(found, "p2") == {**POINTS_TABLE.to_pylist()[1], "category_id": 9}
    assert point(found, "p3") == POINTS_TABLE.to_pylist()[2]
    new = point(found, "new")
    assert (new["x"], new["y"], new["category_id"], new["annotator"]) == (1.5, 2.5, 9, "bob")
    assert (new["source_file"], new["source_record"], new["labelled_at"][:10]) == (
        "bob.jsonl",
        "d2",
        "2026-06-01",
    )
    assert found.decisions["rle_counts"].to_pylist() == [None, None, None, A.counts]
    assert found.decisions["category_id"].to_pylist() == [7, 9, 9, 7]


def test_verdicts_leave_the_points_as_they_are() -> None:
    found = apply(
        ("anna", *ACCEPT), ("anna", "reject", {"object": "p2"}), ("anna", "complete", {"image": "b.png"})
    )
    assert found.points is POINTS_TABLE
    assert states(found) == ["honoured"] * 3
    assert found.decisions["rle_counts"].to_pylist() == [A.counts, None, None]
    assert found.decisions["image_id"].to_pylist() == [100, 100, 101]


@pytest.mark.parametrize(
    ("lines", "expected", "learnt"),
    [
        # the last word of one reviewer
        ([ACCEPT, REJECT], ["superseded", "honoured"], None),
        ([REJECT, ("mask", {"mask": B, "source": "click"})], ["superseded", "honoured"], B),
        ([ACCEPT, ("class", {"category": "pear"})], ["honoured", "honoured"], A),
        ([ACCEPT, ("clicks", CLICKS)], ["superseded", "honoured"], None),
        ([("clicks", CLICKS), ACCEPT], ["honoured", "honoured"], A),
        ([ACCEPT, REJECT, ("undo", {"undoes": "d1"})], ["honoured", "undone"], A),
        ([ACCEPT, ("undo", {"undoes": "d0"}), ("undo", {"undoes": "d1"})], ["honoured"], A),
        ([ACCEPT, ("undo", {"undoes": "d0"})], ["undone"], None),
        ([("complete", {}), ("complete", {})], ["superseded", "honoured"], None),
    ],
)
def test_the_last_word_of_a_reviewer_counts(
    lines: list[tuple[str, Any]], expected: list[str], learnt: Mask | None
) -> None:
    found = apply(*(("anna", *line) for line in lines))
    assert states(found) == expected
    masks = found.decisions["rle_counts"].drop_null().to_pylist()
    assert masks == ([] if learnt is None else [learnt.counts])


MENDED = ("mask", {"mask": A, "source": "polygon"})
MOVED = ("clicks", {"point": (6.25, 3.5), "further": ()})
PEAR, APPLE = ("class", {"category": "pear"}), ("class", {"category": "apple"})


@pytest.mark.parametrize(
    ("anna", "bob", "expected"),
    [
        ([ACCEPT], [REJECT], "contradicted"),
        ([ACCEPT], [("mask", {"mask": B, "source": "brush"})], "contradicted"),
        ([MENDED], [("mask", {"mask": B, "source": "brush"})], "contradicted"),
        ([PEAR], [APPLE], "contradicted"),
        ([MOVED], [("clicks", {"point": (6.5, 3.5), "further": ()})], "contradicted"),
        ([MOVED], [("clicks", CLICKS)], "contradicted"),
        ([ACCEPT], [MOVED], "contradicted"),
        ([REJECT], [MOVED], "contradicted"),
        ([MOVED], [ACCEPT], "agree"),
        ([MOVED, ACCEPT], [MOVED], "agree"),
        ([ACCEPT], [("accept", {"mask": B})], "agree"),
        ([REJECT], [REJECT], "agree"),
        ([MENDED], [ACCEPT], "agree"),
        ([ACCEPT], [PEAR], "agree"),
        ([PEAR], [PEAR], "agree"),
        ([ACCEPT], [REJECT, ("undo", {"undoes": "d1"})], "agree"),
    ],
)  # fmt: skip
def test_two_reviewers(anna: list[tuple[str, Any]], bob: list[tuple[str, Any]], expected: str) -> None:
    lines = [*(("anna", *line) for line in anna), *(("bob", *line) for line in bob)]
    found = apply(*lines)
    if expected == "contradicted":
        assert set(states(found)) == {"contradicted"}
        assert found.points is POINTS_TABLE
        assert found.decisions["rle_counts"].null_count == len(found.decisions)
        rows = found.decisions.to_pylist()
        assert rows[0]["found"].startswith(f"bob: {bob[-1][0]}")
        assert rows[-1]["found"].startswith(f"anna: {anna[-1][0]}")
        faults = unsettled(found.decisions, "decisions")["contradicted"]
        assert [one.file for one in faults] == ["decisions/anna.jsonl", "decisions/bob.jsonl"]
        assert summary(found.decisions)["objects_contradicted"] == 1
    else:
        assert set(states(found)) <= {"honoured", "agrees", "undone"}
        assert unsettled(found.decisions, "decisions") == {}


def test_a_third_reviewer_does_not_settle_a_contradiction() -> None:
    found = apply(("anna", *ACCEPT), ("bob", *REJECT), ("carl", *ACCEPT), ("dora", *PEAR))
    assert states(found) == ["contradicted"] * 4
    assert found.points is POINTS_TABLE
    assert summary(found.decisions)["objects_contradicted"] == 1


def test_of_two_accepted_masks_the_later_is_learnt() -> None:
    found = apply(("bob", *ACCEPT), ("anna", "accept", {"mask": B}))
    assert states(found) == ["agrees", "honoured"]
    assert found.decisions["rle_counts"].to_pylist() == [None, B.counts]


NEW: dict[str, Any] = {"object": "new", "image": "c.png", "category": "apple"}


@pytest.mark.parametrize(
    ("line", "state"),
    [
        (("reject", {"object": "gone"}), "unknown_object"),
        (("reject", {"image": "gone.png"}), "unknown_image"),
        (("complete", {"image": "gone.png"}), "unknown_image"),
        (("complete", {"image": "v.png"}), "other_split"),
        (("reject", {"image": "broken.png"}), "rejected_image"),
        (("reject", {"image": "b.png"}), "other_image"),
        (("class", {"category": "plum"}), "unknown_category"),
        (("accept", {"mask": mask(2, height=12)}), "other_size"),
        (("clicks", {"point": (20.0, 1.0), "further": ()}), "outside_image"),
        (("clicks", {"point": (19.9999999, 1.0), "further": ()}), "outside_image"),  # 20 in the table
        (("clicks", {"point": (3.0, -0.5), "further": ()}), "outside_image"),
        (("clicks", {"point": (3.0, 1.0), "further": (Click(3.0, 10.0, False),)}), "outside_image"),
        (("clicks", {"point": (10.9, 3.1), "further": ()}), "duplicate_point"),
        (("add", {**NEW, "object": "p3", "point": (1.0, 1.0)}), "known_object"),
        (("add", {**NEW, "image": "gone.png", "point": (1.0, 1.0)}), "unknown_image"),
        (("add", {**NEW, "category": "plum", "point": (1.0, 1.0)}), "unknown_category"),
        (("add", {**NEW, "point": (1.0, 11.0)}), "outside_image"),
        (("add", {**NEW, "mask": mask(2, height=12), "source": "brush"}), "other_size"),
        (("add", {**NEW, "image": "a.png", "point": (10.0, 3.0)}), "duplicate_point"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_listed_and_changes_nothing(line: tuple[str, Any], state: str) -> None:
    found = apply(("anna", *line))
    assert states(found) == [state]
    assert found.points.equals(POINTS_TABLE)
    assert found.decisions["rle_counts"].null_count == 1
    ((fault,),) = unsettled(found.decisions, "decisions").values()
    assert f"({state})" in fault.found and fault.expected and fault.next_step
    (listed,) = summary(found.decisions)["not_honoured"]
    assert listed["state"] == state and listed["decision_id"] == "d0"


def test_a_last_word_that_cannot_be_honoured_brings_no_earlier_one_back() -> None:
    found = apply(("anna", *ACCEPT), ("anna", "accept", {"mask": mask(2, height=12)}))
    assert states(found) == ["superseded", "other_size"]


def test_a_word_that_cannot_be_honoured_contradicts_nobody() -> None:
    found = apply(("anna", "class", {"category": "plum"}), ("bob", *PEAR))
    assert states(found) == ["unknown_category", "honoured"]
    assert point(found, "p1")["category_id"] == 9


def test_a_click_in_the_pixel_of_another_class_is_none_of_its_own() -> None:
    found = apply(("anna", "clicks", {"point": (10.9, 3.1), "further": ()}), ("anna", *PEAR))
    assert states(found) == ["honoured", "honoured"]
    duplicate = apply(("anna", "clicks", {"point": (10.9, 3.1), "further": ()}), ("anna", *ACCEPT))
    assert states(duplicate) == ["duplicate_point", "honoured"]
    assert duplicate.points.equals(POINTS_TABLE)
    assert duplicate.decisions["rle_counts"].to_pylist() == [None, A.counts]


def test_a_click_may_go_where_another_one_left() -> None:
    # p1 is before p2: its place is free for p2, but not the other way round.
    found = apply(
        ("anna", "clicks", {"point": (6.5, 3.5), "further": ()}),
        ("anna", "clicks", {"object": "p2", "point": (4.5, 3.5), "further": ()}),
    )
    assert states(found) == ["honoured", "honoured"]
    assert [point(found, name)["x"] for name in ("p1", "p2")] == [6.5, 4.5]


def test_decisions_on_an_added_object() -> None:
    drawn: tuple[str, str, dict[str, Any]] = ("anna", "add", {**NEW, "mask": A, "source": "brush"})
    on = {"object": "new", "image": "c.png"}
    found = apply(drawn, ("anna", "clicks", {**on, "point": (1.5, 2.5), "further": ()}))
    assert states(found) == ["honoured", "honoured"]
    assert point(found, "new")["x"] == 1.5
    assert found.decisions["rle_counts"].null_count == 2  # the click calls for another mask
    found = apply(drawn, ("bob", "accept", {**on, "mask": A}), ("bob", "class", {**on, "category": "apple"}))
    assert states(found) == ["honoured"] * 3
    assert found.decisions["rle_counts"].drop_null().to_pylist() == [A.counts]
    found = apply(drawn, ("anna", "reject", on))
    assert states(found) == ["honoured", "honoured"]
    assert found.points is POINTS_TABLE
    assert found.decisions["rle_counts"].null_count == 2
    assert states(apply(drawn, ("bob", "reject", on))) == ["contradicted", "contradicted"]
    assert states(apply(drawn, ("anna", "reject", on), ("anna", "undo", {"undoes": "d0"}))) == [
        "undone", "unknown_object",
    ]  # fmt: skip


def test_the_order_of_reviewers_does_not_matter() -> None:
    lines = decide(
        ("anna", *ACCEPT), ("bob", "class", {"category": "pear"}), ("carl", "reject", {"object": "p2"}),
        ("dora", "add", {**NEW, "point": (1.5, 2.5)}),
    )  # fmt: skip
    results = [apply_decisions(list(one), POINTS_TABLE, WEAK, ELSEWHERE) for one in permutations(lines)]
    for one in results:
        assert one.points.equals(results[0].points)
        assert one.decisions.sort_by("decision_id").equals(results[0].decisions.sort_by("decision_id"))


actions = st.sampled_from(
    [ACCEPT, REJECT, MENDED, MOVED, PEAR, APPLE, ("clicks", CLICKS), ("complete", {}),
     ("add", {**NEW, "point": (1.5, 2.5)}), ("add", {**NEW, "mask": B, "source": "click"}),
     ("reject", {"object": "new", "image": "c.png"}), ("reject", {"object": "gone"})]
)  # fmt: skip


@few_times
@given(
    lines=st.lists(
        st.tuples(st.sampled_from(["anna", "bob"]), actions, st.sampled_from(["p1", "p2", ""])), max_size=10
    ),
    undos=st.lists(st.integers(0, 9), max_size=4),
)
def test_any_decisions_have_one_state_each_and_undone_ones_have_no_effect(
    lines: list[Any], undos: list[int]
) -> None:
    made = []
    for who, (action, fields), name in lines:
        chosen = {"object": name} if name and action != "complete" else {}
        made.append((who, action, {**chosen, **fields}))
    made += [(made[n][0], "undo", {"undoes": f"d{n}"}) for n in undos if n < len(made)]
    everything = decide(*made)
    found = apply_decisions(everything, POINTS_TABLE, WEAK, ELSEWHERE)
    assert len(found.decisions) == sum(one.action != "undo" for one in everything)
    assert found.decisions["state"].null_count == 0
    undone = {f"d{n}" for n in undos}
    without = [one for one in everything if one.id not in undone and one.action != "undo"]
    same = apply_decisions(without, POINTS_TABLE, WEAK, ELSEWHERE)
    assert found.points.equals(same.points)
    effects = found.decisions.filter(pa.compute.not_equal(found.decisions["state"], "undone"))
    assert effects.equals(same.decisions)
    ids = found.points["point_id"].to_pylist()
    assert len(set(ids)) == len(ids) and {"p1", "p2", "p3"} <= set(ids)
    learnt = found.decisions.filter(found.decisions["rle_counts"].is_valid())["object_id"].to_pylist()
    assert len(set(learnt)) == len(learnt)
