"""When a run is due, and what the watcher sends to a real Prefect server about real files."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.remote.inbox import InboxFile
from flows.serve.prefect_api import FLOW, PrefectApi
from flows.serve.watch import EVENT, Watcher, run_request
from tasks.common.config import InboxConfig
from tasks.inbox.check import CheckResult
from tasks.inbox.ledger import Arrival, Ledger, now
from tasks.inbox.pending import PendingFiles, inbox_id
from tests.conftest import Bucket
from tests.tasks.conftest import tiny_recipe

CONFIG = InboxConfig(source="inbox", poll_seconds=1, stable_seconds=2, min_points=10, max_wait_seconds=100)


def waiting(
    good: dict[str, int], points: int, *, bad: tuple[str, ...] = (), same: tuple[str, ...] = (),
    settling: tuple[str, ...] = (), oldest: float = 5,
) -> PendingFiles:  # fmt: skip
    names = [*good, *bad, *same]
    files = {name: InboxFile(name, 1, 3.0, name, None) for name in names}
    if names:
        files[names[0]] = files[names[0]]._replace(age=oldest)
    tried = CheckResult(good, dict.fromkeys(same, "other"), dict.fromkeys(bad, "broken"), points, {})
    return PendingFiles(files, None, dict.fromkeys(names, ""), tried, list(settling), {})


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (waiting({}, 0), None),
        (waiting({"a": 9}, 9), None),
        (waiting({"a": 10}, 10), "10 new points in 1 file"),
        (waiting({"a": 500}, 9), None),  # an export of all, with nine points that are new
        (waiting({"a": 5, "b": 5}, 10), "10 new points in 2 files"),
        (waiting({"a": 5, "b": 5}, 10, settling=("c",)), None),  # the burst goes on
        (waiting({"a": 10}, 10, settling=("c",), oldest=100), "10 new points in 1 file"),
        (waiting({"a": 1}, 1, oldest=99.9), None),
        (waiting({"a": 1}, 1, oldest=100), "1 new point in 1 file"),
        (waiting({"a": 10}, 10, bad=("b",)), "10 new points in 1 file, 1 file that can't be used"),
        (waiting({}, 0, bad=("b",)), None),
        (waiting({}, 0, bad=("b", "c"), oldest=100), "2 files that can't be used"),
        (waiting({}, 0, same=("b",), oldest=10**6), None),
        (waiting({"a": 0}, 0, oldest=100), "0 new points in 1 file"),
    ],
)
def test_thresholds(what: PendingFiles, reason: str | None) -> None:
    request = run_request(what, CONFIG)
    assert (None if request is None else str(request)) == reason


class Desk:
    """A server's side of the watcher: keeps what was announced; is as busy as it is set."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.due = self.under_way = 0
        self.fails: Exception | None = None

    def announce(self, resource: dict[str, str], payload: dict[str, Any]) -> None:
        if self.fails is not None:
            raise self.fails
        self.events.append(payload)

    def waiting(self) -> int:
        return self.due

    def running(self) -> int:
        return self.under_way

    @property
    def files(self) -> list[list[str]]:
        return [event["files"] for event in self.events]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A folder with an inbox; call it to set `operate.inbox`."""
    monkeypatch.chdir(tmp_path)
    Path("inbox").mkdir()

    def set_(**inbox: Any) -> None:
        recipe = tiny_recipe()
        recipe["points"]["files"] = "points"
        recipe["operate"]["inbox"] |= {"source": "inbox", "poll_seconds": 1, "stable_seconds": 0, **inbox}
        Path("params.yaml").write_text(yaml.safe_dump(recipe))

    set_()
    return set_


def put(name: str, points: int = 1) -> bytes:
    """A CSV file of points; no data set is there, so they are only counted."""
    rows = "".join(f"a.png,disc,{n + 1.5},2.5\n" for n in range(points))
    Path("inbox", name).write_text(f"image,class,x,y\n{rows}")
    return Path("inbox", name).read_bytes()


@pytest.mark.usefixtures("project")
def test_the_same_content_is_announced_once_and_again_if_no_run_takes_it() -> None:
    desk, clock, said = Desk(), [0.0], list[str]()
    watcher = Watcher(Path.cwd(), desk, said.append, clock=lambda: clock[0], again=60)
    watcher.check()
    assert said == ["inbox inbox: nothing new"]
    put("a.csv", 2)
    for clock[0] in (1.0, 2.0, 60.0):
        assert watcher.check() == 1
    assert desk.files == [["a.csv"]] and desk.events[0]["points"] == 2
    assert said[1:] == ["inbox inbox: 2 new points in 1 file; announced"]
    clock[0], desk.under_way = 62.0, 1
    watcher.check()
    assert len(desk.events) == 1 and said[-1].endswith("a run that takes them in is scheduled or running")
    desk.under_way = 0
    watcher.check()
    assert desk.files == [["a.csv"]] * 2
    digest = watcher._inbox.check(_params()).digests["a.csv"]
    Ledger(Path.cwd()).add(Arrival("a.csv", digest, None, "taken", "", 2, "inbox", now()))
    clock[0] = 1000.0
    watcher.check()
    assert len(desk.events) == 2 and said[-1] == "inbox inbox: nothing new"


def _params() -> Any:
    from tasks.common.config import load_params

    return load_params()


@pytest.mark.usefixtures("project")
def test_new_files_go_with_a_run_that_is_due_and_not_with_one_that_runs() -> None:
    desk = Desk()
    watcher = Watcher(Path.cwd(), desk, lambda line: None)
    put("a.csv")
    desk.due = 1
    watcher.check()
    assert desk.events == []
    desk.due, desk.under_way = 0, 1  # it may have looked into the inbox already
    watcher.check()
    put("b.csv", 3)
    watcher.check()
    assert desk.files == [["a.csv"], ["a.csv", "b.csv"]]


def test_a_corrupt_file_is_told_at_once_and_called_for_by_its_age(project: Callable[..., None]) -> None:
    desk, said = Desk(), list[str]()
    watcher = Watcher(Path.cwd(), desk, said.append)
    Path("inbox/bad.json").write_text("{")
    watcher.check()
    assert desk.events == [] and said[-1].startswith(
        "inbox inbox: bad.json can't be used: file: found broken JSON"
    )
    assert said[-1].endswith("or set points.format")
    project(max_wait_seconds=0)
    watcher.check()
    assert desk.events[0]["reason"] == "1 file that can't be used"


def test_errors_are_told_once_and_tried_again_less_and_less_often(
    project: Callable[..., None], bucket: Bucket
) -> None:
    desk, said = Desk(), list[str]()
    watcher = Watcher(Path.cwd(), desk, said.append)
    project(source=f"s3://{bucket.name}/in")
    bucket.proxy.plan = lambda method, path, nth: "503"
    assert [watcher.check(), watcher.check()] == [1, 2]
    assert (
        len(said) == 1
        and "the inbox can't be checked: s3://" in said[0]
        and "expected an S3 server that responds" in said[0]
    )
    bucket.proxy.plan = lambda method, path, nth: None
    bucket.fill({"in/a.csv": put("a.csv")})
    desk.fails = ConnectionError("no server")
    assert watcher.check() == 4 and said[-1].startswith("the inbox can't be checked: no server")
    desk.fails = None
    assert watcher.check() == 1 and desk.files == [["a.csv"]]
    Path("params.yaml").write_text("operate: [")
    assert watcher.check() == 30
    project(source="absent")
    assert watcher.check() == 2 and "no such folder" in said[-1]
    assert said[-1].endswith("in params.yaml; retries at growing intervals")
    for _ in range(30):
        pause = watcher.check()
    assert pause == 600
    project(source=None)
    assert watcher.check() == 1 and said[-1].startswith("no inbox")


@pytest.mark.usefixtures("project")
def test_it_ends_when_told() -> None:
    stopped = threading.Event()
    watcher = threading.Thread(target=Watcher(Path.cwd(), Desk(), lambda line: None).run, args=(stopped,))
    watcher.start()
    stopped.set()
    watcher.join(10)
    assert not watcher.is_alive()


@pytest.mark.usefixtures("prefect_server", "project")
def test_a_real_server_has_the_event_and_counts_runs() -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.events.filters import EventFilter, EventNameFilter
    from prefect.states import Completed, Running, Scheduled

    api = PrefectApi()
    put("a.csv", 2)
    Watcher(Path.cwd(), api, lambda line: None).check()
    found: list[Any] = []
    end = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        question = {"filter": EventFilter(event=EventNameFilter(name=[EVENT])).model_dump(mode="json")}
        while not found and time.monotonic() < end:
            found = client.request("POST", "/events/filter", json=question).json()["events"]
            time.sleep(0.2)
        assert found[0]["payload"]["reason"] == "2 new points in 1 file"
        assert found[0]["resource"]["prefect.resource.id"] == inbox_id(Path.cwd())
        before = (api.waiting(), api.running())
        line = flow(lambda: None, name=FLOW)
        one = client.create_flow_run(line, state=Scheduled())
        assert (api.waiting(), api.running()) == (before[0] + 1 if before[0] == 0 else 1, before[1])
        client.set_flow_run_state(one.id, Running(), force=True)
        assert api.running() == 1
        client.set_flow_run_state(one.id, Completed(), force=True)
        assert api.running() == before[1]


def test_nothing_is_left_in_the_workspace_but_copies(project: Callable[..., None]) -> None:
    put("a.csv")
    Watcher(Path.cwd(), Desk(), lambda line: None).check()
    shutil.rmtree("workspace/runs")
    assert not any(Path("workspace").iterdir()) and not Path("arrivals").exists()
