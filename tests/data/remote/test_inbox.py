"""Inboxes: a real folder and a real S3 server."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.remote.inbox import Inbox, is_unfinished
from data.remote.s3 import S3Error
from tests.conftest import Bucket


@pytest.mark.parametrize(
    ("name", "unfinished"),
    [
        ("a.json", False),
        ("june/a.csv", False),
        ("part.json", False),
        ("a.tmp.json", False),
        (".a.json", True),
        (".git/a.json", True),
        ("june/.b.xml", True),
        ("a.json.part", True),
        ("a.CSV.PART", True),
        ("a.json.tmp", True),
        ("a.json.crdownload", True),
        ("a.json~", True),
        ("~$a.csv", True),
    ],
)
def test_names_of_unfinished_files(name: str, unfinished: bool) -> None:
    assert is_unfinished(name) is unfinished


def test_a_folder_is_listed_to_any_depth(tmp_path: Path) -> None:
    names = [
        "a.json",
        "june/b.csv",
        "june/deep/c.xml",
        ".hidden",
        "d.json.part",
        ".git/e.json",
        "sp ace ü.json",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = Inbox(str(tmp_path)).list()
    assert list(found.files) == ["a.json", "june/b.csv", "june/deep/c.xml", "sp ace ü.json"]
    assert found.files["june/b.csv"].size == len("june/b.csv")
    assert found.unsafe == []
    assert all(-1 < one.age < 60 and one.etag is None for one in found.files.values())


def test_age_is_of_arrival_not_of_the_content(tmp_path: Path) -> None:
    """`cp -p` and unpacking keep old times; a file that was moved here a second ago is a second old."""
    (tmp_path / "old.json").write_text("{}")
    os.utime(tmp_path / "old.json", (1, 1))
    before = Inbox(str(tmp_path)).list().files["old.json"]
    assert before.age < 60
    time.sleep(0.05)
    (tmp_path / "old.json").write_text("[]")
    os.utime(tmp_path / "old.json", (1, 1))
    after = Inbox(str(tmp_path)).list().files["old.json"]
    assert after.identity != before.identity


def test_names_that_json_cannot_hold_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a\nb.json").write_text("{}")
    (tmp_path / "c.json").write_text("{}")
    found = Inbox(str(tmp_path)).list()
    assert (list(found.files), found.unsafe) == (["c.json"], ["a\nb.json"])


def test_no_folder_is_a_fault_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder; expected a folder of new point files.*make it"):
        Inbox(str(tmp_path / "absent")).list()
    with pytest.raises(DataError, match="s3://BUCKET/PREFIX"):
        Inbox("s3://user:secret@host/x")


def test_files_are_copied_as_they_were_listed(tmp_path: Path) -> None:
    box = tmp_path / "box"
    (box / "june").mkdir(parents=True)
    for name in ("june/a.json", "b.json", "c.json"):
        (box / name).write_text(name)
    inbox = Inbox(str(box))
    listed = inbox.list().files
    (box / "b.json").write_text("written to meanwhile")
    (box / "c.json").unlink()
    lost = inbox.copy(listed.values(), tmp_path / "cache", tmp_path / "into")
    assert lost.keys() == {"b.json", "c.json"}
    assert "changed meanwhile" in lost["b.json"] and "No such file" in lost["c.json"]
    assert [path.name for path in (tmp_path / "into").rglob("*.json")] == ["a.json"]
    assert inbox.digest(listed["b.json"]) is None and inbox.digest(listed["june/a.json"]) is not None


def test_a_prefix_in_s3(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill(
        {"in/a.json": b"{}", "in/june/b.csv": b"x", "in/.c": b"", "in/d.part": b"", "inn/e.json": b""}
    )
    bucket.fill({"in/../f.json": b"{}", "in/folder/": b""})
    inbox = Inbox(f"s3://{bucket.name}/in/")
    found = inbox.list()
    assert list(found.files) == ["a.json", "june/b.csv"]
    assert found.unsafe == ["../f.json"]
    assert all(-5 < one.age < 60 for one in found.files.values())
    again = inbox.list().files["a.json"]
    assert (again.identity, again.etag) == (found.files["a.json"].identity, found.files["a.json"].etag)
    assert inbox.copy(found.files.values(), tmp_path / "cache", tmp_path / "into") == {}
    assert (tmp_path / "into/june/b.csv").read_bytes() == b"x"
    bucket.fill({"in/a.json": b"[]"})
    assert inbox.list().files["a.json"].identity != again.identity
    lost = inbox.copy([again._replace(etag="0" * 32)], tmp_path / "cache", tmp_path / "into")
    assert "replaced or removed meanwhile" in lost["a.json"]


def test_an_empty_prefix_is_an_empty_inbox_but_no_bucket_is_a_fault(bucket: Bucket) -> None:
    assert Inbox(f"s3://{bucket.name}/none").list().files == {}
    bucket.fill({"a.json": b"{}"})
    assert list(Inbox(f"s3://{bucket.name}").list().files) == ["a.json"]
    with pytest.raises(S3Error, match="correct the bucket's name"):
        Inbox(f"s3://{bucket.name}-absent/in").list()


@given(st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text))
def test_any_name_has_a_verdict(name: str) -> None:
    assert is_unfinished(name) in (True, False)
