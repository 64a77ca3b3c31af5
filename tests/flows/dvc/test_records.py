"""Files that a killed dvc process left half-written are repaired."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.dvc import records
from flows.dvc.lock import parse_lock
from flows.dvc.records import COPY, LOCK, REPLACED, RWLOCK, repair
from tests.flows.conftest import Toy

ENTRY = """\
  {name}:
    cmd: python step.py {name}
    deps:
    - path: in.txt
      hash: md5
      md5: d41d8cd98f00b204e9800998ecf8427e
      size: 3
    outs:
    - path: ws/{name}
      hash: md5
      md5: 0cc175b9c0f1b6a831c399e269772661
      size: 1
"""
WHOLE = "schema: '2.0'\nstages:\n" + "".join(ENTRY.format(name=name) for name in "abc")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PATIENCE_S", 0.0)


def test_wherever_the_writing_ended(tmp_path: Path) -> None:
    lock = tmp_path / LOCK
    lock.write_text(WHOLE)
    assert repair(tmp_path) == []
    assert (tmp_path / COPY).read_text() == WHOLE
    for end in range(0, len(WHOLE), 7):
        lock.write_text(WHOLE[:end])
        repair(tmp_path)
        # A cut between two lines may give a valid file: it stays, and DVC can read it.
        kept = lock.read_text()
        assert kept == WHOLE or (kept == WHOLE[:end] and kept.endswith("\n") and parse_lock(kept))
        if kept == WHOLE:
            assert (tmp_path / REPLACED).read_text() == WHOLE[:end]
        else:
            (tmp_path / COPY).write_text(WHOLE)


def test_without_a_copy_it_stays(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("schema: '2.")
    (line,) = repair(tmp_path)
    assert line.startswith("dvc.lock is half-written, and there is no copy: `git checkout dvc.lock`")
    assert (tmp_path / LOCK).read_text() == "schema: '2."


@pytest.mark.parametrize(
    "text",
    [
        WHOLE + "".join(ENTRY.format(name=f"s{number}") for number in range(4200)),  # 109,000 values
        WHOLE + ENTRY.format(name="a"),  # a stage twice
        WHOLE.replace("size: 3", "size: 3\n      news: of a later version"),
    ],
    ids=["large", "doubled key", "unknown key"],
)
def test_a_whole_file_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(WHOLE)
    repair(tmp_path)
    (tmp_path / LOCK).write_text(text)
    assert repair(tmp_path) == []
    assert (tmp_path / LOCK).read_text() == text


def test_nothing_there(tmp_path: Path) -> None:
    assert repair(tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_a_half_written_rwlock_is_removed(toy: Toy) -> None:
    rwlock = toy.path(str(RWLOCK))
    rwlock.parent.mkdir(exist_ok=True)
    rwlock.write_text(json.dumps({"write": {}, "read": {}}))
    assert repair(toy.root) == []
    rwlock.write_text('{"write": {"')
    assert [line.split()[0] for line in repair(toy.root)] == [str(RWLOCK)]
    toy.dvc("repro", "a")
    assert toy.ran() == ["a"]
