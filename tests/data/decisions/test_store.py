from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.decisions.record import Decision, Mask
from data.decisions.store import DecisionLog, read_decisions
from data.decisions.words import without_undone
from data.errors import DataError
from tests.data.decisions.test_record import MASK
from tests.data.fuzzing import few_times
from tests.full_disk import on_own_disk

ROOT = Path(__file__).resolve().parents[3]
OBJECT = {"image": "a.png", "object": "00ff"}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_decisions_come_back_in_order(tmp_path: Path) -> None:
    anna, bob = (
        DecisionLog(tmp_path / "new" / "decisions", "anna"),
        DecisionLog(tmp_path / "new" / "decisions", "bob"),
    )
    made = [
        anna.append("accept", mask=MASK, **OBJECT),
        bob.append("reject", **OBJECT),
        anna.append("complete", image="ä b.png"),
    ]
    made.append(anna.append("undo", undoes=made[2].id))
    found = read_decisions(anna.folder)
    assert found.decisions == [made[0], made[2], made[3], made[1]]
    assert found.torn == []
    assert sorted(path.name for path in anna.folder.iterdir()) == ["anna.jsonl", "bob.jsonl"]
    assert made[0].time <= made[1].time <= made[2].time


def test_a_folder_without_files_has_no_decisions(tmp_path: Path) -> None:
    assert read_decisions(tmp_path / "none").decisions == []
    (tmp_path / "README.md").write_text("What this is")
    (tmp_path / ".gitattributes").write_text("")
    assert read_decisions(tmp_path).decisions == []
    DecisionLog(tmp_path, "anna")
    assert read_decisions(tmp_path).decisions == []


@pytest.mark.parametrize(
    ("action", "fields", "words"),
    [
        ("accept", OBJECT, "no mask"),
        ("accept", {**OBJECT, "mask": Mask(2, 2, b"4")}, "without a pixel"),
        ("class", {**OBJECT, "category": ""}, "category ''"),
        ("complete", {}, "no image"),
        ("clicks", {**OBJECT, "point": (float("inf"), 1.0), "further": ()}, "Out of range float"),
        ("undo", {"undoes": "none"}, "an earlier decision of the same reviewer"),
    ],
)
def test_what_the_reader_would_refuse_is_not_written(
    tmp_path: Path, action: Any, fields: dict[str, Any], words: str
) -> None:
    log = DecisionLog(tmp_path, "anna")
    log.append("reject", **OBJECT)
    before = log.path.read_bytes()
    with pytest.raises(DataError, match=words):
        log.append(action, **fields)
    assert log.path.read_bytes() == before


def test_nobody_undoes_the_decisions_of_others(tmp_path: Path) -> None:
    anna, bob = DecisionLog(tmp_path, "anna"), DecisionLog(tmp_path, "bob")
    one = anna.append("reject", **OBJECT)
    with pytest.raises(DataError, match="undo a decision of one's own"):
        bob.append("undo", undoes=one.id)
    # Another process of the same reviewer may, and so may one that begins later.
    second = DecisionLog(tmp_path, "anna").append("reject", **OBJECT)
    anna.append("undo", undoes=second.id)
    assert anna.append("undo", undoes=one.id).undoes == one.id


def test_an_older_version_of_the_file_is_checked_out(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, "anna")
    first = log.append("reject", **OBJECT)
    content = log.path.read_bytes()
    second = log.append("reject", **OBJECT)
    log.append("undo", undoes=second.id)
    log.path.unlink()
    log.path.write_bytes(content)
    with pytest.raises(DataError):
        log.append("undo", undoes=second.id)
    log.append("undo", undoes=first.id)
    assert len(read_decisions(tmp_path).decisions) == 2


steps = st.lists(
    st.tuples(st.sampled_from(["accept", "reject", "class", "undo"]), st.integers(0, 30)), max_size=12
)


@few_times
@given(sequence=steps, data=st.data())
def test_killed_at_any_byte_the_finished_ones_come_back(
    sequence: list[tuple[str, int]], data: st.DataObject
) -> None:
    fields: dict[str, dict[str, Any]] = {
        "accept": {**OBJECT, "mask": MASK}, "reject": OBJECT, "class": {**OBJECT, "category": "ä\n"},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        log = DecisionLog(Path(folder), "anna")
        made: list[Decision] = []
        ends = [0]
        for action, number in sequence:
            if action != "undo":
                made.append(log.append(action, **fields[action]))  # type: ignore[arg-type]
            elif made:
                made.append(log.append("undo", undoes=made[number % len(made)].id))
            else:
                continue
            ends.append(log.path.stat().st_size)
        content = log.path.read_bytes() if made else b""
        cut = data.draw(st.integers(0, len(content)))
        log.path.write_bytes(content[:cut])
        # A line counts if its last brace is on the disk.
        finished = made[: sum(end - 1 <= cut for end in ends[1:])]
        found = read_decisions(Path(folder))
        assert found.decisions == finished
        whole = {0, *ends, *(end - 1 for end in ends[1:])}
        assert len(found.torn) == (cut not in whole)
        last = DecisionLog(Path(folder), "anna").append("complete", image="b.png")
        again = read_decisions(Path(folder))
        assert (again.decisions, again.torn) == ([*finished, last], [])
        counting, undone = without_undone(again.decisions)
        assert len(counting) + len(undone) + sum(one.action == "undo" for one in again.decisions) == len(
            again.decisions
        )


def test_a_torn_line_is_removed_as_the_file_is_opened_and_reported_before(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, "anna")
    one = log.append("reject", **OBJECT)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b'{"id":"' + b"x" * 200_000)
    (fault,) = read_decisions(tmp_path).torn
    assert "anna.jsonl: line 2: found 200007 bytes of an unfinished line" in str(fault)
    DecisionLog(tmp_path, "bob")
    assert len(log.path.read_bytes()) > len(whole)  # only its own reviewer's
    DecisionLog(tmp_path, "anna")
    assert log.path.read_bytes() == whole
    assert read_decisions(tmp_path).decisions == [one]


def test_all_faults_of_all_files_are_listed(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, "anna")
    one = log.append("reject", **OBJECT)
    line = log.path.read_text()
    other = json.loads(line)
    undo = {**other, "id": "u", "action": "undo", "undoes": "later"}
    del undo["image"], undo["object"]
    lines = [
        line.rstrip(),
        json.dumps({**other, "id": "later", "action": "?"}),
        json.dumps(undo),
        line.rstrip(),
        "",
    ]
    log.path.write_text("\n".join(lines))
    (tmp_path / "bob.jsonl").write_text(line)
    (tmp_path / "carl.jsonl").write_text(line.replace("anna", "carl"))
    (tmp_path / "carl.json").write_text("{}")
    (tmp_path / "Dora.jsonl").write_text("")
    (tmp_path / "eve.jsonl").mkdir()
    (tmp_path / "fritz.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError) as caught:
        read_decisions(tmp_path)
    text = str(caught.value)
    for words in (
        f"{log.path}: line 2: found action '?'",
        f"{log.path}: line 3: found undoes later; expected the id of a decision above",
        f"{log.path}: line 4: found id {one.id} again",
        "bob.jsonl: line 1: found reviewer 'anna'; expected 'bob'",
        "carl.json: file: found another file",
        "Dora.jsonl: file name: found 'Dora'",
        "eve.jsonl: file: found unreadable (not a regular file)",
        "fritz.jsonl: file: found unreadable (No such file or directory)",
    ):
        assert words in text, text
    assert len(caught.value.faults) == 8
    log.path.write_text(line)
    for name in ("bob.jsonl", "carl.json", "Dora.jsonl", "fritz.jsonl"):
        (tmp_path / name).unlink()
    (tmp_path / "eve.jsonl").rmdir()
    with pytest.raises(DataError, match=r"a decision of anna\.jsonl too"):
        read_decisions(tmp_path)


def test_links_to_the_cache_of_dvc_are_not_written_through(tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    log = DecisionLog(folder, "anna")
    log.append("reject", **OBJECT)
    (tmp_path / "cache").hardlink_to(log.path)
    before = (tmp_path / "cache").read_bytes()
    log.append("reject", **OBJECT)
    bob = DecisionLog(folder, "bob")
    bob.path.symlink_to(tmp_path / "cache")
    bob.path.resolve().write_bytes(before.replace(b"anna", b"bob"))
    bob.append("complete", image="a.png")
    assert (tmp_path / "cache").read_bytes() == before.replace(b"anna", b"bob")
    assert [len(log.path.read_bytes().splitlines()), len(bob.path.read_bytes().splitlines())] == [2, 2]


WRITER = """
import sys
from pathlib import Path
from data.decisions.store import DecisionLog
log = DecisionLog(Path(sys.argv[1]), sys.argv[2])
for n in range(int(sys.argv[3])):
    one = log.append("class", image="a.png", object=f"o{n}", category="x" * 3000)
    print(one.id, flush=True)
"""


def writer(folder: Path, reviewer: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), reviewer, str(count)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)


def test_processes_at_once_and_killed_lose_no_decision_that_was_returned(tmp_path: Path) -> None:
    started = [writer(tmp_path, name, 60) for name in ("anna", "anna", "bob")]
    killed = [writer(tmp_path, name, 10**6) for name in ("anna", "bob")]
    returned = [[process.stdout.readline().strip()] for process in killed if process.stdout is not None]
    time.sleep(0.2)
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
    for ids, process in zip(returned, killed, strict=True):
        # A kill may cut the last of the printed ids.
        ids += [line for line in process.communicate()[0].splitlines() if len(line) == 32]
    done = [process.communicate()[0].split() for process in started]
    assert [len(ids) for ids in done] == [60, 60, 60]
    found = {one.id for one in read_decisions(tmp_path).decisions}
    assert found >= {one for ids in [*done, *returned] for one in ids}
    # Of each killed process at most the one that it was writing.
    assert len(found) <= 180 + sum(map(len, returned)) + 2


FILL = """
import sys
from pathlib import Path
from data.decisions.store import DecisionLog, read_decisions
folder = Path(sys.argv[1])
log = DecisionLog(folder, "anna")
made = []
(folder / ".ballast").write_bytes(bytes(150_000))
try:
    while True:
        before = log.path.read_bytes() if log.path.exists() else b""
        made.append(log.append("class", image="a.png", object="o", category="x" * 3001).id)
except OSError as error:
    print(error.strerror)
assert log.path.read_bytes() == before
assert [one.id for one in read_decisions(folder).decisions] == made
(folder / ".ballast").unlink()
made.append(log.append("reject", image="a.png", object="o").id)
assert [one.id for one in read_decisions(folder).decisions] == made
print(len(made))
"""


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    (tmp_path / "fill.py").write_text(FILL)
    done = on_own_disk(folder, "size=400k", f"'{sys.executable}' fill.py '{folder}'", tmp_path, environment())
    assert done.returncode == 0, done.stderr
    words = done.stdout.split("\n")
    assert words[0] == "No space left on device"
    assert int(words[1]) > 20


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    (tmp_path / "write.py").write_text(WRITER)
    script = f"'{sys.executable}' write.py '{folder}' anna 1"
    done = on_own_disk(folder, "ro", script, tmp_path, environment())
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr
