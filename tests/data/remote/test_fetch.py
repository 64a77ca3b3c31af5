"""Against a real S3 server, through a proxy that breaks responses."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import DataError
from data.remote import s3
from data.remote.fetch import RemoteFolder, fetch, local_copy, open_remote
from data.remote.s3 import S3Away, S3Error
from tests.conftest import Bucket
from tests.s3_server import SECRET, THOUSANDS, at_random

MIB = 2**20


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little waiting between attempts."""
    monkeypatch.setattr(s3, "BACKOFF_S", 0.01)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def bring(bucket: Bucket, tmp_path: Path, prefix: str = "imgs") -> tuple[RemoteFolder, dict[str, Any]]:
    """Everything below a prefix, into tmp_path/tree."""
    remote = open_remote(f"s3://{bucket.name}/{prefix}")
    return remote, fetch(remote, remote.objects, tmp_path / "cache", tmp_path / "tree")


def test_more_than_a_page_of_keys(bucket: Bucket, tmp_path: Path) -> None:
    remote = open_remote(f"s3://{THOUSANDS}/imgs/")
    assert list(remote.objects) == [f"{n:04d}.txt" for n in range(2500)]
    assert len([path for _, path, _ in bucket.proxy.requests if "list-type" in path]) == 3
    some, sizes = list(remote.objects)[990:1010], list[int]()
    assert fetch(remote, some, tmp_path / "cache", tmp_path / "tree", sizes.append) == {}
    assert contents(tmp_path / "tree") == {name: name.encode() for name in some}
    assert sizes == [8] * 20


GOOD = [
    "a.png",
    "two words.png",
    "ü/ö 日本.png",
    "p+q%20r#s?&=.png",
    "c\\d.png",
    "..a/b..png",
    "~$'\"<x>.png",
]
BAD = ["../up.png", "a/../b.png", "./c.png", "x//y.png", "/lead.png", "long" * 70 + ".png", "bell\7.png"]


def test_names_that_would_leave_the_folder_stay_outside(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill(
        {f"imgs/{name}": name.encode() for name in GOOD + BAD} | {"imgs/folder/": b"", "imgs2/z": b"z"}
    )
    remote, refused = bring(bucket, tmp_path)
    assert refused == {}
    assert contents(tmp_path / "tree") == {name: name.encode() for name in GOOD}
    assert sorted(remote.unsafe) == sorted(f"imgs/{name}" for name in BAD)
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "cache"}


@pytest.mark.parametrize(
    ("fault", "size"),
    [("500", 5), ("503", 5), ("drop", 1), ("drop", 3 * MIB), ("flip", 1), ("flip", 3 * MIB)],
)
def test_broken_downloads_are_retried(bucket: Bucket, tmp_path: Path, fault: str, size: int) -> None:
    bucket.fill({"imgs/a": noise(size)})
    bucket.proxy.plan = lambda method, path, nth: fault if nth < 3 and "list-type" not in path else None
    _, refused = bring(bucket, tmp_path)
    assert refused == {} and contents(tmp_path / "tree") == {"a": noise(size)}
    assert len(bucket.proxy.gets()) == 4


def test_bytes_before_a_break_are_not_requested_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill({"imgs/a": noise(4 * MIB)})
    bucket.proxy.plan = lambda method, path, nth: "drop" if nth < 2 and "list-type" not in path else None
    bring(bucket, tmp_path)
    assert contents(tmp_path / "tree") == {"a": noise(4 * MIB)}
    ranges = [byte_range for method, path, byte_range in bucket.proxy.requests if path in bucket.proxy.gets()]
    assert ranges == [None, f"bytes={2 * MIB}-", f"bytes={3 * MIB}-"]


def test_an_object_that_comes_on_may_break_off_any_number_of_times(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts are counted from the last one that brought a further byte, that one included."""
    monkeypatch.setattr(s3, "ATTEMPTS", 3)
    monkeypatch.setattr(s3, "_CHUNK", 64)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket.fill({"imgs/a": noise(40_001)})
    faults = ["drop", "drop", "503", "drop", "503", "drop", "drop", "503"]
    plan = dict(enumerate(faults))
    bucket.proxy.plan = lambda method, path, nth: plan.get(nth) if "list-type" not in path else None
    _, refused = bring(bucket, tmp_path)
    assert refused == {} and contents(tmp_path / "tree") == {"a": noise(40_001)}
    assert len(bucket.proxy.gets()) == len(faults) + 1
    bucket.fill({"imgs/b": noise(40_001, 1)})
    bucket.proxy.plan = lambda method, path, nth: (
        ("drop" if nth == 0 else "503") if path.endswith("/b") else None
    )
    with pytest.raises(S3Away):
        bring(bucket, tmp_path)
    assert len([path for path in bucket.proxy.gets() if path.endswith("/b")]) == 3


def test_a_listing_survives_throttling(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill({"imgs/a": b"a"})
    bucket.proxy.plan = lambda method, path, nth: "503" if nth == 0 and "list-type" in path else None
    assert open_remote(f"s3://{bucket.name}/imgs").objects.keys() == {"a"}


def upload_in_parts(bucket: Bucket, key: str, parts: list[bytes]) -> None:
    sent = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
    uploaded = [
        {
            "PartNumber": n,
            "ETag": bucket.client.upload_part(
                Bucket=bucket.name, Key=key, UploadId=sent, PartNumber=n, Body=part
            )["ETag"],
        }
        for n, part in enumerate(parts, start=1)
    ]
    bucket.client.complete_multipart_upload(
        Bucket=bucket.name, Key=key, UploadId=sent, MultipartUpload={"Parts": uploaded}
    )


@pytest.mark.parametrize("fault", [None, "drop", "flip"])
@pytest.mark.parametrize(
    "sizes", [(5 * MIB, 5 * MIB, 77), (5 * MIB, 6 * MIB, 77)], ids=["equal parts", "unequal parts"]
)
def test_objects_sent_in_parts_are_verified_too(
    bucket: Bucket, tmp_path: Path, sizes: tuple[int, ...], fault: str | None
) -> None:
    parts = [noise(size, seed) for seed, size in enumerate(sizes)]
    upload_in_parts(bucket, "imgs/big", parts)
    bucket.proxy.plan = lambda method, path, nth: (
        fault if nth == 0 and method == "GET" and "big" in path else None
    )
    remote, refused = bring(bucket, tmp_path)
    assert remote.objects["big"].etag.endswith("-3")
    assert refused == {} and contents(tmp_path / "tree") == {"big": b"".join(parts)}


def test_an_object_that_never_comes_whole_is_refused_and_the_others_are_not(
    bucket: Bucket, tmp_path: Path
) -> None:
    bucket.fill({f"imgs/{name}": noise(3000, ord(name)) for name in "abc"})
    bucket.proxy.plan = lambda method, path, nth: "flip" if path.endswith("/b") else None
    _, refused = bring(bucket, tmp_path)
    assert refused.keys() == {"b"} and refused["b"].reason == "download"
    assert len([path for path in bucket.proxy.gets() if path.endswith("/b")]) == 8
    assert "8 times in a row" in refused["b"].found
    assert contents(tmp_path / "tree").keys() == {"a", "c"}
    assert list((tmp_path / "cache" / "partial").iterdir()) == []


def test_an_object_that_changes_after_the_listing_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill({"imgs/a": b"one", "imgs/b": b"b"})
    remote = open_remote(f"s3://{bucket.name}/imgs")
    bucket.fill({"imgs/a": b"two"})
    refused = fetch(remote, ["a", "b", "c"], tmp_path / "cache", tmp_path / "tree")
    assert {name: one.reason for name, one in refused.items()} == {"a": "download", "c": "missing"}
    assert contents(tmp_path / "tree") == {"b": b"b"}


def test_each_content_is_downloaded_once(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill({"imgs/a": b"same", "imgs/copy/b": b"same", "imgs/c": b"other"})
    bring(bucket, tmp_path)
    assert len(bucket.proxy.gets()) == 2
    bucket.fill({"moved/a": b"same", "moved/new": b"new"})
    bring(bucket, tmp_path, "moved")
    assert len(bucket.proxy.gets()) == 3
    assert contents(tmp_path / "tree") == {"a": b"same", "new": b"new"}


def test_a_content_that_was_written_to_is_fetched_anew(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill({"imgs/a": b"right"})
    bring(bucket, tmp_path)
    (tmp_path / "tree" / "a").write_bytes(b"wrong")  # the cache shares these bytes
    bring(bucket, tmp_path)
    assert contents(tmp_path / "tree") == {"a": b"right"}


def test_a_download_goes_on_where_a_killed_one_ended(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill({"imgs/a": noise(2 * MIB)})
    remote = open_remote(f"s3://{bucket.name}/imgs")
    partial = tmp_path / "cache" / "partial"
    partial.mkdir(parents=True)
    (partial / remote.objects["a"].identity).write_bytes(noise(2 * MIB)[:777])
    bring(bucket, tmp_path)
    assert [byte_range for _, path, byte_range in bucket.proxy.requests if path in bucket.proxy.gets()] == [
        "bytes=777-"
    ]
    assert contents(tmp_path / "tree") == {"a": noise(2 * MIB)}


def test_files_of_a_killed_fetch_are_removed(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill({"imgs/a": b"a"})
    (tmp_path / ".tree.0123.partial" / "imgs").mkdir(parents=True)
    (tmp_path / ".tree.0123.partial" / "imgs" / "a").write_text("half")
    (tmp_path / "mine.partial").write_text("not ours")
    bring(bucket, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "cache", "mine.partial"}


def test_files_and_folders_of_one_name(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill({"imgs/a": b"file", "imgs/a/b": b"below", "imgs/c": b"c"})
    _, refused = bring(bucket, tmp_path)
    assert {name: one.reason for name, one in refused.items()} == {"a/b": "name_clash"}
    assert contents(tmp_path / "tree") == {"a": b"file", "c": b"c"}


def test_many_objects_through_a_bad_connection(bucket: Bucket, tmp_path: Path) -> None:
    expected = {f"{n}": noise(n * 1500, n) for n in range(50)}
    bucket.fill({f"imgs/{name}": content for name, content in expected.items()})
    random = at_random(0.25, seed=1, kinds=("drop", "flip"))
    bucket.proxy.plan = lambda method, path, nth: None if "list-type" in path else random(method, path, nth)
    _, refused = bring(bucket, tmp_path)
    assert refused == {} and contents(tmp_path / "tree") == expected


@pytest.mark.parametrize(
    ("source", "environment", "found", "next_step"),
    [
        ("s3://no-such-bucket-here/imgs", {}, "NoSuchBucket", "AWS_ENDPOINT_URL"),
        ("s3://{bucket}/nothing", {}, "no object there", "correct the address"),
        ("s3://key:pa$$word@host/imgs", {}, "credentials and endpoint are not part of it", "correct it"),
        ("s3:///imgs", {}, "another kind of address", "correct it"),
        ("s3://{bucket}/imgs", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9/"}, "Could not connect", "network"),
        ("s3://{bucket}/imgs", {"AWS_PROFILE": "nobody"}, "profile", "AWS_PROFILE"),
        (
            "s3://{bucket}/imgs",
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "credentials",
            "AWS_PROFILE",
        ),
    ],
    ids=["bucket", "prefix", "password", "no bucket", "endpoint", "profile", "no credentials"],
)
def test_an_unusable_server_is_reported_with_the_next_step(
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    environment: dict[str, str],
    found: str,
    next_step: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(S3Error) as caught:
        open_remote(source.format(bucket=bucket.name))
    (fault,) = caught.value.faults
    assert found in str(fault) and next_step in fault.next_step
    assert "pa$$word" not in str(fault) and SECRET not in str(fault)
    assert caught.value.passing == (next_step == "network")


def test_an_outage_ends_the_download_and_keeps_what_came(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    bucket.fill({f"imgs/{n}": noise(100, n) for n in range(40)})
    kept = tmp_path / "cache" / "objects"
    bucket.proxy.plan = lambda method, path, nth: "500" if len(list(kept.glob("??/*-*"))) >= 8 else None
    with pytest.raises(S3Away, match="run again: finished downloads are kept"):
        bring(bucket, tmp_path)
    assert not (tmp_path / "tree").exists()
    before = len(bucket.proxy.gets())
    bucket.proxy.plan = lambda method, path, nth: None
    bring(bucket, tmp_path)
    assert len(contents(tmp_path / "tree")) == 40
    assert len(bucket.proxy.gets()) - before <= 32


def test_a_full_disk_is_a_fault_not_an_outage(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill({"imgs/a": b"a"})
    (tmp_path / "cache").write_text("a file where the cache should be")
    with pytest.raises(DataError, match=r"MiB free; expected disk space and write permission"):
        bring(bucket, tmp_path)


def test_local_copy(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill(
        {"clicks/a.json": b"{}", "clicks/b/c.csv": b"x", "clicks.json": b"[]", "bad/../x": b"x", "bad/y": b""}
    )
    cache = tmp_path / "cache"
    assert local_copy("mine/points", cache) == Path("mine/points")
    folder = local_copy(f"s3://{bucket.name}/clicks/", cache)
    assert contents(folder) == {"a.json": b"{}", "b/c.csv": b"x"}
    assert local_copy(f"s3://{bucket.name}/clicks.json", cache).read_bytes() == b"[]"
    with pytest.raises(S3Error, match=r"bad/\.\./x"):
        local_copy(f"s3://{bucket.name}/bad", cache)


def test_nothing_secret_is_logged(bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        bucket.fill({"imgs/a": b"a"})
        caplog.clear()
        bring(bucket, tmp_path)
    assert "Authorization" not in caplog.text and "Signature" not in caplog.text and SECRET not in caplog.text


def test_two_processes_take_turns(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill({f"imgs/{n}": noise(1000, n) for n in range(30)})
    remote = open_remote(f"s3://{bucket.name}/imgs")
    threads = [
        threading.Thread(
            target=fetch, args=(remote, remote.objects, tmp_path / "cache", tmp_path / f"tree{n}")
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trees = [contents(tmp_path / f"tree{n}") for n in range(3)]
    assert len(trees[0]) == 30 and trees[0] == trees[1] == trees[2]
    assert len(bucket.proxy.gets()) == 30


def test_the_cache_is_private_to_its_content(bucket: Bucket, tmp_path: Path) -> None:
    """Names in the cache are hashes: no key can name a file there."""
    bucket.fill({f"imgs/{name}": name.encode() for name in GOOD})
    bring(bucket, tmp_path)
    files = [path for path in (tmp_path / "cache" / "objects").rglob("*") if path.is_file()]
    assert len(files) == len(GOOD)
    for path in files:
        assert path.name.partition("-")[2] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert stat.S_ISREG(os.lstat(path).st_mode)
