"""Data and models that DVC's cache lacks are sent, or fail the push."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from dvc.output import Output

from flows.dvc import put_back
from flows.dvc.remote_config import RemoteError
from flows.dvc.remote_setup import set_up
from flows.dvc.send import send_all
from tests.flows.whole import Whole, md5


def test_data_that_the_cache_lacks_are_put_back_and_sent(whole: Whole, tmp_path: Path) -> None:
    """As a promoted model in registry/: whole in the workspace, lost from the cache."""
    set_up(whole.root, "store", {"url": str(tmp_path / "s")}, share=True, replace=False, seconds=60)
    whole.path("data/model").mkdir()
    for name in ("weights", "config"):
        whole.path(f"data/model/{name}").write_text(name)
    whole.dvc("add", "data/model")
    digests = [
        whole.digest("data/model"),
        md5(b"weights"),
        whole.digest("data/in.txt"),
        whole.digest("ws/file"),
    ]
    for digest in digests:
        whole.stored(digest).unlink()
    lines: list[str] = []
    assert "files" in send_all(whole.root, lines.append, pauses=())
    back = sorted(
        line.split(":")[0] for line in lines if "put back into DVC's cache, which lacked it" in line
    )
    assert back == ["data/in.txt", "data/model", "ws/file"]
    for digest in digests:
        assert whole.stored(digest, tmp_path / "s").read_bytes() == whole.stored(digest).read_bytes()
    assert "already" in send_all(whole.root, print, pauses=())


@pytest.mark.parametrize("change", ["changed", "with its times set back", "deleted"])
def test_data_that_are_whole_nowhere_fail_the_push(whole: Whole, tmp_path: Path, change: str) -> None:
    set_up(whole.root, "store", {"url": str(tmp_path / "s")}, share=True, replace=False, seconds=60)
    path, digest = whole.path("data/in.txt"), whole.digest("data/in.txt")
    whole.stored(digest).unlink()
    before = path.stat()
    path.write_text("IN\n")
    if change == "with its times set back":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "deleted":
        path.unlink()
    with pytest.raises(RemoteError) as error:
        send_all(whole.root, print, pauses=())
    assert str(error.value).endswith(
        f"entries of the run-cache sent to store ({tmp_path}/s), but not data/in.txt: not whole in the workspace, in "
        "DVC's cache or in the remote. Run `dvc push data/in.txt.dvc` in a checkout that has it, or delete "
        "data/in.txt.dvc if it isn't needed"
    )
    assert not whole.stored(digest, tmp_path / "s").exists() and not whole.stored(digest).exists()
    assert whole.stored(whole.digest("ws/file"), tmp_path / "s").exists()


def test_data_that_change_while_they_are_put_back_are_not_sent(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their times set back: DVC stores the new bytes under the hash that it knows of the old ones."""
    set_up(whole.root, "store", {"url": str(tmp_path / "s")}, share=True, replace=False, seconds=60)
    path, digest = whole.path("data/in.txt"), whole.digest("data/in.txt")
    whole.dvc("status")  # DVC notes the hash that the file has now
    whole.stored(digest).unlink()
    built = put_back.built

    def then_changed(out: Output) -> Any:
        found, stat = built(out), path.stat()
        if Path(out.fs_path) == path:
            path.write_text("IN\n")
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return found

    monkeypatch.setattr(put_back, "built", then_changed)
    with pytest.raises(RemoteError, match=r"but not data/in\.txt: not whole in the workspace"):
        send_all(whole.root, print, pauses=())
    assert not whole.stored(digest, tmp_path / "s").exists() and not whole.stored(digest).exists()


def test_data_that_only_the_remote_has_are_not_lost(whole: Whole, store: Path) -> None:
    whole.path("data/in.txt").unlink()
    whole.stored(whole.digest("data/in.txt")).unlink()
    assert "already" in send_all(whole.root, print, pauses=())


def test_data_with_a_remote_of_their_own_are_sent_there(whole: Whole, tmp_path: Path) -> None:
    set_up(whole.root, "second", {"url": str(tmp_path / "two")}, share=True, replace=False, seconds=60)
    set_up(whole.root, "store", {"url": str(tmp_path / "one")}, share=True, replace=False, seconds=60)
    pointer = whole.path("data/in.txt.dvc")
    pointer.write_text(pointer.read_text() + "  remote: second\n")
    send_all(whole.root, print, pauses=())
    digest = whole.digest("data/in.txt")
    assert whole.stored(digest, tmp_path / "two").exists()
    assert not whole.stored(digest, tmp_path / "one").exists()
