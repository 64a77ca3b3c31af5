"""Runs under a real server and worker that are cancelled or killed: nothing runs on, and the state is the right one.

The tests share a server and a project and go through its life in order; each can also be run alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.processes.run_lock import holder
from flows.run.notices import ADDRESS
from tests.flows.conftest import Toy
from tests.flows.processes.test_children import ROOT, gone
from tests.prefect_processes import Prefect, prefect_processes, wait_for

pytestmark = [pytest.mark.line, pytest.mark.timeout(1200)]

SOON = 240


@dataclass
class Operated:
    """A toy project with a server, a worker and a webhook."""

    toy: Toy
    prefect: Prefect
    env: dict[str, str]
    deployment: str = ""
    notices: list[Any] = field(default_factory=list)

    def start_worker(self) -> None:
        command = ("prefect", "worker", "start", "--pool", "line", "--type", "process")
        self.prefect.start("worker", *command, cwd=self.toy.root, env=self.env)

    def begin(self) -> tuple[str, int]:
        """A run whose stage a sleeps: the run's id, and the sleeper's process id."""
        pid_file = self.toy.path("sleeper.pid")
        pid_file.unlink(missing_ok=True)
        self.toy.set(a="sleep")
        run = self.trigger()
        wait_for("sleeping step", lambda: pid_file.exists() and pid_file.read_text(), SOON)
        return run, int(pid_file.read_text())

    def trigger(self) -> str:
        return str(self.prefect.ask(f"/deployments/{self.deployment}/create_flow_run")["id"])

    def state(self, run: str) -> str:
        """What Prefect says of a run; nothing in the second of its making."""
        return next((str(one["state_type"]) for one in self.prefect.runs() if one["id"] == run), "")

    def ends(self, run: str) -> str:
        """The state in which a run ends."""
        final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        return wait_for(f"end of {run}", lambda: (now := self.state(run)) in final and now, SOON)


@pytest.fixture(scope="module")
def operated(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    toy = Toy(tmp_path_factory.mktemp("toy") / "stopped")
    shutil.copytree(blank, toy.root)
    notices: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notices.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as webhook,
        prefect_processes(tmp_path_factory.mktemp("prefect")) as prefect,
    ):
        threading.Thread(target=webhook.serve_forever, daemon=True).start()
        env = prefect.env(
            {
                "PYTHONPATH": str(ROOT),
                "PREFECT_WORKER_QUERY_SECONDS": "1",
                ADDRESS: f"http://127.0.0.1:{webhook.server_address[1]}/",
            }
        )
        operated = Operated(toy, prefect, env, notices=notices)
        operated.start_worker()
        wait_for(
            "work pool",
            lambda: [one for one in prefect.ask("/work_pools/filter") if one["name"] == "line"],
            SOON,
        )
        flow = prefect.ask("/flows/", name="annotation_to_model")["id"]
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(toy.root)}}
        operated.deployment = prefect.ask(
            "/deployments/", name="stopped", flow_id=flow, work_pool_name="line", pull_steps=[step],
            entrypoint=f"{ROOT}/flows/run/pipeline.py:annotation_to_model", parameters={"target": "a"},
        )["id"]  # fmt: skip
        yield operated
        webhook.shutdown()


def test_a_cancelled_run_ends_its_children(operated: Operated) -> None:
    run, pid = operated.begin()
    operated.prefect.ask(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    assert operated.ends(run) == "CANCELLED"
    assert gone(pid, 30)
    wait_for("free lock", lambda: holder(operated.toy.root) is None, 60)
    wait_for("notice", lambda: [one for one in operated.notices if one["state"].startswith("Cancel")], 60)


def test_a_killed_run_is_crashed_and_its_children_end(operated: Operated) -> None:
    run, pid = operated.begin()
    runs = holder(operated.toy.root)
    assert runs is not None and runs.run_id == run
    os.kill(runs.pid, signal.SIGKILL)
    assert gone(pid, 30)
    assert operated.ends(run) == "CRASHED"
    wait_for("notice", lambda: [one for one in operated.notices if one["state"] == "Crashed"], 60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_with_its_worker_gone_it_is_crashed_when_the_next_begins(
    operated: Operated, number: signal.Signals
) -> None:
    """A worker that is stopped kills its run, without a report to the server."""
    run, pid = operated.begin()
    runs = holder(operated.toy.root)
    assert runs is not None
    operated.prefect.stop("worker", number, SOON)
    if number == signal.SIGKILL:
        os.kill(runs.pid, signal.SIGKILL)
    assert gone(pid, 60)
    assert operated.state(run) == "RUNNING"
    operated.toy.set(a=int(number))
    operated.start_worker()
    assert operated.ends(operated.trigger()) == "COMPLETED"
    assert operated.ends(run) == "CRASHED"
