"""What waits in an inbox: real files, a real ledger, the line's images."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from data.remote.s3 import S3Error
from tasks.common.config import Params
from tasks.common.errors import TaskError
from tasks.inbox.ledger import Arrival, Ledger, now
from tasks.inbox.pending import InboxChecker, check_inbox, inbox_id, is_inbox_itself
from tests.conftest import Bucket

ROOT = Path(__file__).resolve().parents[3]


def with_inbox(params: Params, source: str | None, files: str = "points", **more: Any) -> Params:
    inbox = params.operate.inbox.model_copy(update={"source": source, "stable_seconds": 0.0, **more})
    return params.model_copy(
        update={
            "operate": params.operate.model_copy(update={"inbox": inbox}),
            "points": params.points.model_copy(update={"files": files}),
        }
    )


@pytest.fixture
def params(line: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    folder, params = line
    shutil.copytree(folder / "workspace/dataset", tmp_path / "workspace/dataset")
    shutil.copytree(folder / "workspace/demo/points", tmp_path / "points")
    (tmp_path / "inbox").mkdir()
    monkeypatch.chdir(tmp_path)
    return with_inbox(params, "inbox")


def clicks(count: int, at: float = 1.25) -> bytes:
    content = json.loads(Path("points/clicks.json").read_text())
    rows = [
        row | {"id": 10**6 + n, "point": [at + n, at]} for n, row in enumerate(content["annotations"][:count])
    ]
    return json.dumps(content | {"annotations": rows}).encode()


def settle(name: str, digest: str, etag: str | None = None) -> None:
    Ledger(Path()).add(Arrival(name, digest, etag, "taken", "", 1, "inbox", now()))


def test_a_look_says_what_waits_and_what_is_still_written(params: Params) -> None:
    Path("inbox/a.json").write_bytes(clicks(2))
    time.sleep(0.6)
    Path("inbox/b.json").write_bytes(clicks(3))
    Path("inbox/c.json.part").write_bytes(clicks(3))
    waiting = InboxChecker(Path(), Path("place")).check(with_inbox(params, "inbox", stable_seconds=0.5))
    assert (list(waiting.files), waiting.settling) == (["a.json"], ["b.json"])
    assert waiting.result.good == {"a.json": 2} and 0.5 < waiting.oldest < 60


def test_what_was_decided_waits_no_more_until_its_content_changes(params: Params) -> None:
    path = Path("inbox/a.json")
    path.write_bytes(clicks(1))
    checker = InboxChecker(Path(), Path("place"))
    settle("a.json", checker.check(params).digests["a.json"])
    assert checker.check(params).files == {}
    path.write_bytes(clicks(1))  # the same file again
    assert checker.check(params).files == {}
    path.write_bytes(clicks(2))
    assert checker.check(params).result.good == {"a.json": 2}
    path.rename("inbox/b.json")
    assert list(checker.check(params).files) == ["b.json"]


def test_a_second_look_at_the_same_files_reads_nothing(params: Params) -> None:
    Path("inbox/a.json").write_bytes(clicks(1))
    checker = InboxChecker(Path(), Path("place"))
    first, second = checker.check(params), checker.check(params)
    assert first.paths is not None and second.paths is None
    assert (second.result, second.digests) == (first.result, first.digests)
    third = checker.check(params, fresh=True)
    assert third.paths is not None and third.paths["a.json"].read_bytes() == clicks(1)


def test_copies_make_no_one_wait(params: Params) -> None:
    shutil.copy("points/clicks.json", "inbox/copy.json")
    waiting = InboxChecker(Path(), Path("place")).check(params)
    assert waiting.result.same == {"copy.json": "clicks.json"} and waiting.oldest == 0


def test_an_inbox_in_s3(params: Params, bucket: Bucket) -> None:
    params = with_inbox(params, f"s3://{bucket.name}/in")
    bucket.fill({"in/june/a.json": clicks(2), "in/bad.json": b"{"})
    checker = InboxChecker(Path(), Path("place"))
    waiting = checker.check(params)
    assert waiting.result.good == {"june/a.json": 2} and list(waiting.result.rejected) == ["bad.json"]
    one = waiting.files["june/a.json"]
    settle(one.name, waiting.digests[one.name], one.etag)
    settle("bad.json", waiting.digests["bad.json"], "another etag, as of parts of another size")
    bucket.proxy.requests.clear()
    assert checker.check(params).files == {}
    assert bucket.proxy.gets() == []  # known by ETag or from the last look
    bucket.proxy.plan = lambda method, path, nth: "503"
    with pytest.raises(S3Error):
        checker.check(params)


def test_an_inbox_that_the_line_reads_itself(params: Params, bucket: Bucket) -> None:
    source = f"s3://{bucket.name}/in"
    params = with_inbox(params, source, files=source + "/")
    assert is_inbox_itself(params)
    params = params.model_copy(update={"points": params.points.model_copy(update={"on_reject": "report"})})
    bucket.fill({"in/a.json": clicks(2), "in/b.json": clicks(3, at=1.75)})
    assert InboxChecker(Path(), Path("place")).check(params).result.good == {"a.json": 2, "b.json": 3}


@pytest.mark.parametrize(
    ("source", "files", "message"),
    [
        ("inbox", "points", None),
        ("s3://bucket/in", "points", None),
        (None, "workspace/demo/points", None),
        (
            "inbox",
            "s3://bucket/points",
            "points.files: found s3://bucket/points; expected a folder that new files can be copied",
        ),
        ("inbox", "workspace/demo/points", "which stage make_demo writes; expected a folder of your own"),
        ("inbox", "workspace/demo", "which stage make_demo writes"),
        ("inbox", "points/clicks.json", "a file; expected a folder"),
        ("points/new", "points", "one is inside the other"),
        ("inbox", "inbox/points", "one is inside the other"),
        (
            "inbox",
            "./inbox",
            "points.on_reject: found stop; expected report, where points.files is the inbox itself",
        ),
        ("s3://bucket/in/", "s3://bucket/in", "points.on_reject: found stop"),
    ],
)
def test_settings_that_cannot_work(
    params: Params, source: str | None, files: str, message: str | None
) -> None:
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    stop = params.model_copy(update={"points": params.points.model_copy(update={"on_reject": "stop"})})
    changed = with_inbox(stop, source, files)
    if message is None:
        check_inbox(changed, Path())
    else:
        with pytest.raises(TaskError) as raised:
            check_inbox(changed, Path())
        assert message in str(raised.value) and "Next: " in str(raised.value)


def test_each_project_s_inbox_has_a_name_of_its_own() -> None:
    names = [inbox_id(Path(root)) for root in ("/other/june", "/mine/june", "inbox", "/")]
    assert len(set(names)) == 4 and names[0].startswith("points2model.inbox.june-")
    assert inbox_id(Path("inbox").resolve()) == names[2]
