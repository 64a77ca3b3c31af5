from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.decisions import record
from data.decisions.record import FIELDS, Click, Decision, Mask, check_reviewer, parse_line
from data.errors import DataError
from data.masks.rle import encode
from tests.data.fuzzing import any_json, few_times

SQUARE = np.zeros((6, 9), np.bool_)
SQUARE[2:5, 3:6] = True
MASK = Mask(6, 9, encode(SQUARE))
USUAL: dict[str, Any] = {"id": "d1", "time": "2026-06-01T09:30:00.123+00:00", "reviewer": "anna"}
OBJECT: dict[str, Any] = {**USUAL, "image": "night/b.png", "object": "00ff"}
ALL = [
    Decision(action="accept", mask=MASK, **OBJECT),
    Decision(action="reject", **OBJECT),
    *(Decision(action="mask", mask=MASK, source=source, **OBJECT) for source in ("click", "polygon", "brush")),
    Decision(action="class", category="Äpfel \\ \"rot\"", **OBJECT),
    Decision(action="clicks", point=(3.25, 4.5), further=(Click(1.0, 2.5, False), Click(5.0, 3.0, True)), **OBJECT),
    Decision(action="clicks", point=(3.0, 4.0), further=(), **OBJECT),
    Decision(action="add", category="apple", point=(3.0, 4.0), **OBJECT),
    Decision(action="add", category="apple", mask=MASK, source="brush", **OBJECT),
    Decision(
        action="add", category="apple", mask=MASK, source="click", point=(3.0, 4.0), further=(Click(1, 2, False),),
        **OBJECT,
    ),
    Decision(action="complete", image="night/b.png", **USUAL),
    Decision(action="undo", undoes="d0", **USUAL),
]  # fmt: skip


def test_every_action_is_tried() -> None:
    assert {one.action for one in ALL} == set(FIELDS)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.action)
def test_a_decision_comes_back_from_its_line(one: Decision) -> None:
    line = one.to_line()
    assert "\n" not in line
    assert parse_line(line.encode(), "anna.jsonl", "line 1", "anna") == one


def row(action: str, /, **changes: Any) -> dict[str, Any]:
    """A valid row of this action with other values; None: without the key."""
    found = json.loads(next(one for one in ALL if one.action == action).to_line()) | changes
    return {name: value for name, value in found.items() if value is not None}


EMPTY = {"size": [6, 9], "counts": encode(np.zeros((6, 9), np.bool_)).decode()}
GOOD = {"size": [6, 9], "counts": MASK.counts.decode()}
BAD: list[tuple[Any, list[str]]] = [
    (b"", ["not JSON"]),
    (b'{"id": ', ["not JSON"]),
    (b"\xff\xfe", ["not JSON"]),
    (b"<<<<<<< HEAD", ["not JSON"]),
    (b"[" * 100_000, ["not JSON"]),
    ([], ["found []; expected a decision"]),
    (7, ["found 7"]),
    (b'{"id": "a", "id": "b", "action": "undo"}', ["key 'id' twice"]),
    ({}, ["found action None"]),
    (row("reject", action="approve"), ["found action 'approve'; expected one of accept, reject"]),
    (row("reject", action=["reject"]), ["found action ['reject']"]),
    (row("reject", id=None, time=None, image=None), ["found no id", "found no time", "found no image"]),
    (row("reject", id="a b"), ["found id 'a b'"]),
    (row("reject", id=""), ["found id ''"]),
    (row("reject", id="x" * 65), ["found id"]),
    (row("reject", object=7), ["found object 7"]),
    (row("reject", object="../x"), ["found object '../x'"]),
    (row("reject", time="2026-06-01T09:30:00"), ["a time in UTC"]),
    (row("reject", time="2026-06-01T09:30:00+02:00"), ["a time in UTC"]),
    (row("reject", time="yesterday"), ["found time 'yesterday'"]),
    (row("reject", time=5), ["found time 5"]),
    (row("reject", image=""), ["found image ''"]),
    (row("reject", image="\ud800"), ["found image"]),
    (row("reject", image="x" * 4097), ["found image"]),
    (row("reject", reviewer="bob"), ["found reviewer 'bob'; expected 'anna', the name of the file"]),
    (row("reject", reviewer=None), ["found no reviewer"]),
    (row("reject", reviewer=5), ["found reviewer 5"]),
    (row("reject", mask=GOOD), ["found key 'mask'; expected a decision 'reject' with id, time"]),
    (row("accept", mask=None), ["found no mask"]),
    (row("accept", mask="x"), ["found mask 'x'"]),
    (row("accept", mask={"size": [6, 9]}), ["found mask"]),
    (row("accept", mask=EMPTY), ["found mask without a pixel"]),
    (row("accept", mask={**GOOD, "size": [9, 9]}), ["runs of 54 pixels, for 9 x 9 = 81"]),
    (row("accept", mask={**GOOD, "size": [6, 9, 1]}), ["found mask"]),
    (row("accept", mask={**GOOD, "size": [True, 54]}), ["found mask"]),
    (row("accept", mask={**GOOD, "size": [-6, -9]}), ["found mask"]),
    (row("accept", mask={**GOOD, "size": [6.0, 9]}), ["found mask"]),
    (row("accept", mask={**GOOD, "counts": [0, 54]}), ["found mask"]),
    (row("accept", mask={**GOOD, "counts": ""}), ["found mask"]),
    (row("accept", mask={**GOOD, "counts": "ü"}), ["found mask"]),
    (row("mask", source="pencil"), ["found source 'pencil'; expected one of click, polygon, brush"]),
    (row("mask", source=["click"]), ["found source"]),
    (row("mask", source=None, mask=EMPTY), ["found no source", "without a pixel"]),
    (row("class", category=""), ["found category ''"]),
    (row("clicks", point=[1]), ["found point [1]"]),
    (row("clicks", point=[1, True]), ["found point [1, True]"]),
    (b'{"id":"a","time":"2026-06-01T09:30:00Z","reviewer":"anna","action":"clicks","image":"a","object":"b",'
     b'"point":[NaN,1],"further":[]}', ["found point [nan, 1]"]),
    (row("clicks", further=None), ["found no further"]),
    (row("clicks", further=[[1, 2, True]]), ["found further [1, 2, True]"]),
    (row("clicks", further=[{"x": 1, "y": 2, "inside": 1}]), ["found further"]),
    (row("clicks", further=[{"x": 1, "y": "2", "inside": True}]), ["found further"]),
    (row("add", point=None), ["found neither point nor mask"]),
    (row("add", mask=GOOD), ["found one of mask and source"]),
    (row("add", point=None, further=[], mask=GOOD, source="click"), ["found further without point"]),
    (row("complete", object="00ff"), ["found key 'object'"]),
    (row("undo", undoes=3), ["found undoes 3"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), BAD)
def test_a_bad_line_is_described(content: Any, words: list[str]) -> None:
    line = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(DataError) as caught:
        parse_line(line, "decisions/anna.jsonl", "line 7", "anna")
    assert len(caught.value.faults) == len(words)
    for fault, word in zip(caught.value.faults, words, strict=True):
        assert word in str(fault)
        assert str(fault).startswith("decisions/anna.jsonl: line 7")


CONTENTS = [
    *(one.to_line().encode() for one in ALL),
    *(content if isinstance(content, bytes) else json.dumps(content).encode() for content, _ in BAD),
]


@few_times
@given(lines=st.lists(st.sampled_from(CONTENTS), max_size=8), at_once=st.integers(1, 9))
def test_many_lines_are_what_each_one_is(lines: list[bytes], at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "AT_ONCE", at_once)
        numbered = [(n, line) for n, line in enumerate(lines, start=5) if line.strip()]
        found = dict(record.parse_lines(numbered, "f", "anna"))
    for number, line in numbered:
        one = found.pop(number)
        if not isinstance(one, DataError):
            assert one == parse_line(line, "f", f"line {number}", "anna")
            continue
        with pytest.raises(DataError) as caught:
            parse_line(line, "f", f"line {number}", "anna")
        assert caught.value.faults == one.faults
    assert found == {}


@few_times
@given(value=any_json(st.integers() | st.floats()), action=st.sampled_from(sorted(FIELDS)), data=st.data())
def test_any_json_is_a_decision_or_a_fault(value: Any, action: Any, data: st.DataObject) -> None:
    usual = row(action)
    usual[data.draw(st.sampled_from(sorted(usual)))] = value
    line = json.dumps(usual).encode()
    try:
        one = parse_line(line, "anna.jsonl", "line 1", "anna")
    except DataError:
        pass
    else:
        assert parse_line(one.to_line().encode(), "anna.jsonl", "line 1", "anna") == one


@pytest.mark.parametrize("name", ["anna", "a", "anna.b@x.org", "r2-d2_x+y", "7", "x" * 64])
def test_names_of_reviewers(name: str) -> None:
    check_reviewer(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".anna", "anna.", "-anna", "Anna", "a/b", "a\\b", "a b", "a\n", "anna\0", "anné", "x" * 65, "con",
     "nul.x", "com1", "../anna"],
)  # fmt: skip
def test_names_that_are_no_file_names(name: str) -> None:
    with pytest.raises(DataError, match="lower-case letters"):
        check_reviewer(name)
