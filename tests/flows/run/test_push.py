"""What is sent, and what another checkout then needn't compute: real DVC, toy stages that note each run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.dvc.fetch import restore_outputs
from flows.dvc.missing import find_missing
from flows.dvc.remote_config import RemoteError
from flows.dvc.remote_setup import set_up
from flows.dvc.repo import DvcRepo
from flows.dvc.send import send_all
from tests.conftest import Bucket
from tests.flows.conftest import Toy
from tests.flows.run.test_pipeline import ALL, run, states

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def store(done: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The remote of `done`, a folder that is still empty."""
    folder = tmp_path_factory.mktemp("store") / "dvc"
    set_up(done.root, "store", {"url": str(folder)}, share=True, replace=False, seconds=60)
    return folder


def send(toy: Toy) -> str:
    return send_all(toy.root, print, pauses=())


@pytest.fixture
def clone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes another checkout of a project: what git would have of it, and nothing else; the current folder."""

    def make(toy: Toy) -> Toy:
        folder = tmp_path_factory.mktemp("clone")
        (folder / ".dvc").mkdir()
        for name in ("dvc.yaml", "dvc.lock", "params.yaml", "step.py", "in.txt", "in.txt.dvc", ".dvc/config"):
            if toy.path(name).exists() and not (name == "in.txt" and toy.path("in.txt.dvc").exists()):
                shutil.copy(toy.path(name), folder / name)
        monkeypatch.chdir(folder)
        return Toy(folder)

    return make


def test_what_was_sent_isnt_computed_again(done: Toy, store: Path, clone: Any) -> None:
    assert "files" in send(done)
    assert "already" in send(done)
    other = clone(done)
    assert states(run()) == dict.fromkeys(ALL, "Cached")
    assert other.ran() == [] and other.outputs() == done.outputs()
    assert "up to date" in other.dvc("repro", "report")


def test_a_change_in_another_checkout_runs_what_it_touches(done: Toy, store: Path, clone: Any) -> None:
    send(done)
    other = clone(done)
    other.set(b=2)
    assert states(run()) == {"a": "Cached", "b": "Completed", "c": "Cached", "report": "Completed"}
    assert other.ran() == ["b", "report"]
    old = done.path("ws/b").read_bytes()
    assert all(old != path.read_bytes() for path in other.path(".dvc/cache").rglob("*") if path.is_file())


def at_an_earlier_run(done: Toy, clone: Any) -> Toy:
    """A clone with the params of a run before the last one, of which all was sent."""
    done.set(b=2)
    run()
    done.set(b=1)
    run()
    send(done)
    other: Toy = clone(done)
    other.set(b=2)
    return other


@pytest.mark.slow
def test_results_of_any_earlier_run_are_there(done: Toy, store: Path, clone: Any) -> None:
    """`dvc push --run-cache` alone sends the entries of the other runs without their objects."""
    other = at_an_earlier_run(done, clone)
    assert [(one["state"], one["message"]) for one in run()] == [
        ("Cached", ""), ("Completed", "restored from the cache"), ("Cached", ""),
        ("Completed", "restored from the cache"),
    ]  # fmt: skip
    assert other.ran() == []


@pytest.mark.slow
def test_dvc_itself_computes_nothing_either(done: Toy, store: Path, clone: Any) -> None:
    other = at_an_earlier_run(done, clone)
    other.dvc("repro", "--pull", "report")
    assert other.ran() == []
    assert states(run()) == dict.fromkeys(ALL, "Cached")


@pytest.mark.slow
def test_what_the_remote_lacks_is_computed(done: Toy, store: Path, clone: Any) -> None:
    send(done)
    other = clone(done)
    (digest,) = DvcRepo(done.root).dvc.stage.collect("b")[0].outs
    value = digest.hash_info.value
    next(store.rglob(value[2:])).unlink()
    assert states(run()) == {"a": "Cached", "b": "Completed", "c": "Cached", "report": "Cached"}
    assert other.ran() == ["b"]


@pytest.mark.slow
def test_nothing_is_fetched_where_nobody_wants_it(done: Toy, store: Path, clone: Any) -> None:
    send(done)
    other = clone(done)
    assert states(run(pull=False)) == dict.fromkeys(ALL, "Completed")
    assert sorted(other.ran()) == ALL


@pytest.mark.slow
def test_a_remote_that_doesnt_answer_ends_the_run_before_anything_is_computed(
    done: Toy, store: Path, clone: Any
) -> None:
    send(done)
    other = clone(done)
    store.rename(store.with_name("away"))  # a share that isn't mounted
    state = run(return_state=True)
    assert state.is_failed() and "--no-pull" in state.message and other.ran() == []
    assert states(run(pull=False)) == dict.fromkeys(ALL, "Completed")
    # With all that dvc.lock names here, and new params, it is said and the run goes on.
    other.set(b=3)
    assert states(run())["b"] == "Completed"


def test_data_under_dvc_comes_too(done: Toy, store: Path, clone: Any) -> None:
    done.dvc("add", "in.txt")
    send(done)
    other = clone(done)
    assert not other.path("in.txt").exists()
    assert find_missing(DvcRepo(other.root), ALL).keys() == {"in.txt", "ws/a", "ws/b", "ws/c", "ws/report"}
    assert states(run()) == dict.fromkeys(ALL, "Cached")
    assert other.path("in.txt").read_bytes() == done.path("in.txt").read_bytes()


def test_what_lies_in_the_workspace_isnt_touched(done: Toy, store: Path, clone: Any) -> None:
    send(done)
    other = clone(done)
    other.path("ws").mkdir()
    other.path("ws/b").write_text("mine")
    repo = DvcRepo(other.root)
    back = restore_outputs(repo, ALL, print, pull=True)
    assert sorted(back) == ["ws/a", "ws/c"]  # b is made anew, and so is the report
    assert other.path("ws/b").read_text() == "mine"


@pytest.mark.slow
def test_a_run_sends_what_it_made(done: Toy, store: Path, clone: Any) -> None:
    done.path("params.yaml").write_text("{a: 1, b: 2, c: 1, operate: {push: true}}")
    runs = run()
    assert [one["name"] for one in runs] == [*ALL, "push"]
    assert runs[-1]["state"] == "Completed" and "sent to store" in runs[-1]["message"]
    clone(done)
    assert [one["state"] for one in run()] == ["Cached"] * 4 + ["Completed"]


def test_a_push_that_fails_fails_the_run_and_the_next_one_sends(done: Toy, store: Path) -> None:
    done.path("params.yaml").write_text("{a: 1, b: 2, c: 1, operate: {push: true}}")
    shutil.rmtree(store)
    store.write_text("no folder")
    state = run(return_state=True)
    assert state.is_failed() and state.message.startswith("push: remote store")
    assert "Nothing is lost" in state.message
    fared = state.result(raise_on_failure=False).runs
    assert [one["state"] for one in fared] == ["Cached", "Completed", "Cached", "Completed", "Failed"]
    store.unlink()
    assert [one["state"] for one in run()] == ["Cached"] * 4 + ["Completed"]
    assert done.ran() == ["b", "report"]


def test_without_a_remote_a_push_says_what_to_do(done: Toy) -> None:
    with pytest.raises(RemoteError, match="points2model remote URL"):
        send(done)


@pytest.mark.slow
def test_a_bucket_takes_it_in_spite_of_faults(done: Toy, bucket: Bucket, clone: Any) -> None:
    """Responses `slow down`, or broken off: retried, and what arrived isn't sent again."""
    set_up(done.root, "store", {"url": f"s3://{bucket.name}/line"}, share=True, replace=False, seconds=60)
    bucket.proxy.plan = lambda method, path, nth: "503" if method == "PUT" and nth == 0 else None
    assert "files" in send_all(done.root, print, pauses=(0.1, 0.1))
    bucket.proxy.plan = lambda method, path, nth: None
    bucket.proxy.requests.clear()
    assert "already" in send(done)
    puts = [path for method, path, _ in bucket.proxy.requests if method == "PUT" and "probe" not in path]
    assert puts == []
    other = clone(done)
    assert states(run()) == dict.fromkeys(ALL, "Cached")
    assert other.ran() == []


def test_a_right_that_is_missing_isnt_tried_again(done: Toy, bucket: Bucket) -> None:
    set_up(done.root, "store", {"url": f"s3://{bucket.name}/line"}, share=True, replace=False, seconds=60)
    bucket.client.delete_bucket(Bucket=bucket.name)
    said: list[str] = []
    with pytest.raises(RemoteError, match=r"create the bucket.*Nothing is lost"):
        send_all(done.root, said.append, pauses=(60.0, 60.0))
    assert said == []


@pytest.mark.slow
def test_the_command(done: Toy, store: Path) -> None:
    assert "sent to store" in done.cli("push").communicate()[0]
    process = done.cli("push", "--json")
    assert '"state": "Completed"' in process.communicate()[0]
    assert process.returncode == 0
    shutil.rmtree(store)
    store.write_text("no folder")
    process = done.cli("push")
    assert "failed" in process.communicate()[0] and process.returncode == 1
