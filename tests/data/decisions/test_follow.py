from __future__ import annotations

from pathlib import Path

from data.decisions.follow import Follower
from data.decisions.store import DecisionLog, read_decisions

OBJECT = {"image": "a.png", "object": "00ff"}


def test_what_others_append_is_read_once_and_in_order(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "decisions")
    assert follower.update() == ({}, False)  # the folder isn't there yet
    anna, bob = (DecisionLog(tmp_path / "decisions", name) for name in ("anna", "bob"))
    first = [anna.append("reject", **OBJECT), anna.append("complete", image="a.png")]
    other = bob.append("reject", **OBJECT)
    assert follower.update() == ({"anna": first, "bob": [other]}, False)
    assert follower.update() == ({}, False)
    later = anna.append("undo", undoes=first[0].id)
    assert follower.update() == ({"anna": [later]}, False)
    assert follower.faults == []


def test_an_unfinished_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, "anna")
    first = log.append("reject", **OBJECT)
    follower = Follower(tmp_path)
    follower.update()
    whole = log.append("complete", image="a.png")
    line = log.path.read_bytes().split(b"\n")[1]
    before = log.path.read_bytes()[: -len(line) - 1]
    log.path.write_bytes(before + line[:20])
    assert follower.update() == ({}, False)
    log.path.write_bytes(before + line)  # an editor may leave out the last line break
    assert follower.update() == ({"anna": [whole]}, False)
    second = log.append("undo", undoes=first.id)
    assert follower.update() == ({"anna": [second]}, False)


def test_a_file_that_was_replaced_or_removed_voids_what_was_read(tmp_path: Path) -> None:
    anna, bob = (DecisionLog(tmp_path, name) for name in ("anna", "bob"))
    first, other = anna.append("reject", **OBJECT), bob.append("reject", **OBJECT)
    kept = anna.path.read_bytes()
    anna.append("complete", image="a.png")
    follower = Follower(tmp_path)
    follower.update()
    anna.path.write_bytes(kept)  # git checkout of an earlier commit
    assert follower.update() == ({"anna": [first], "bob": [other]}, True)
    bob.path.unlink()
    assert follower.update() == ({"anna": [first]}, True)
    anna.path.write_bytes(kept.replace(b'"reject"', b'"accept"'))  # not a decision: an accept has a mask
    assert follower.update() == ({}, True)
    assert [fault.record for fault in follower.faults] == ["line 1"]


def test_faults_leave_the_other_lines(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, "anna")
    log.append("reject", **OBJECT)
    with log.path.open("ab") as file:
        file.write(b"<<<<<<< HEAD\n")
    later = log.append("complete", image="a.png")
    (tmp_path / "NOT A NAME.jsonl").write_text("{}\n")
    follower = Follower(tmp_path)
    new, _ = follower.update()
    assert new["anna"][-1] == later and len(new["anna"]) == 2
    assert {Path(fault.file).name: fault.record for fault in follower.faults} == {
        "anna.jsonl": "line 2",
        "NOT A NAME.jsonl": "file",
    }


def test_it_reads_what_read_decisions_reads(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    log = DecisionLog(tmp_path, "anna")
    found = []
    for n in range(50):
        log.append("complete", image=f"{n}.png")
        if n % 7 == 0:
            found += follower.update()[0].get("anna", [])
    found += follower.update()[0].get("anna", [])
    assert found == read_decisions(tmp_path).decisions
