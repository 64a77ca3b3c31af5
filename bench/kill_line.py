"""Kills worker, server, flow and steps with SIGKILL at random moments of a run: does the line end the same?

    python -m bench.kill_line PROJECT --scratch FOLDER --kills 5

PROJECT is a checkout with a params.yaml whose line takes a minute or more; what it has made is removed first. SCRATCH
holds Prefect's files and logs, and the undisturbed run's project. A real server and a process worker run beside the
project; what is killed of them is started again at once, as a service manager does, and a run that didn't end well is
triggered again, as docs/failures.md says. Each of the four kinds is killed so often, at moments drawn over the time
that an undisturbed run takes. Then dvc.lock's outputs are compared with those of an undisturbed `dvc repro`. Should the
line end before all have been killed, a further round begins from nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from flows.processes.login import CLIENT, SERVER, new_login
from flows.processes.run_lock import holder

KINDS = ("worker", "server", "step", "flow")
LAST = ("report",)
"""Stages whose outputs hold dates."""
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
STALLED_S = 20.0
"""So long nobody runs though Prefect says so: the run is triggered again."""


def outputs(project: Path) -> dict[str, Any]:
    """What dvc.lock says of the outputs of each stage."""
    stages = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return {name: entry["outs"] for name, entry in stages.items() if name not in LAST}


def clear(project: Path) -> None:
    """The project before anything ever ran."""
    for name in ("workspace", ".dvc/cache", ".dvc/tmp", ".prefect", "dvc.lock"):
        path = project / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@dataclass
class Operated:
    """A project with a Prefect server and a worker, each started anew when it is gone."""

    project: Path
    scratch: Path
    port: int
    login: str = field(default_factory=new_login)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def environment(self) -> dict[str, str]:
        """A clean one, with retries that come soon."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return mine | {
            "PATH": path, "PYTHONPATH": str(self.project), "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(self.scratch / "home"), "PREFECT_API_URL": self.url,
            SERVER: self.login, CLIENT: self.login,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_CLIENT_MAX_RETRIES": "10",
            "POINTS2MODEL_RETRY_SECONDS": "1,2,4",
        }  # fmt: skip

    def keep_up(self) -> None:
        """Starts what isn't there: the server, and once it answers the worker."""
        commands = {
            "server": ["flows.processes.server_process"],
            "worker": ["prefect", "worker", "start", "--pool", "line", "--type", "process"],
        }
        for name, command in commands.items():
            process = self.processes.get(name)
            if (process is None or process.poll() is not None) and (name == "server" or self.answers()):
                with (self.scratch / f"{name}.log").open("ab") as log:
                    self.processes[name] = subprocess.Popen(
                        [sys.executable, "-m", *command],
                        cwd=self.project, env=self.environment(), stdout=log, stderr=log,
                    )  # fmt: skip

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """An answer of the server's; asked again while it is away."""
        end = time.monotonic() + 600
        while True:
            try:
                auth = httpx.BasicAuth(*self.login.split(":"))
                answer = httpx.request(method, f"{self.url}{path}", json=content, auth=auth, timeout=30)
                if answer.status_code < 500:
                    answer.raise_for_status()
                    return answer.json()
            except httpx.TransportError:
                pass
            if time.monotonic() > end:
                raise SystemExit(f"the server doesn't answer: {self.scratch / 'server.log'}")
            self.keep_up()
            time.sleep(0.5)

    def deploy(self) -> str:
        """A deployment that runs in the project; its id."""
        flow = self.ask("POST", "/flows/", {"name": "annotation_to_model"})["id"]
        step = "prefect.deployments.steps.set_working_directory"
        deployment = {
            "name": "killed", "flow_id": flow, "work_pool_name": "line",
            "entrypoint": "flows/run/pipeline.py:annotation_to_model",
            "pull_steps": [{step: {"directory": str(self.project)}}],
        }  # fmt: skip
        while not any(pool["name"] == "line" for pool in self.ask("POST", "/work_pools/filter", {})):
            self.keep_up()  # the worker makes its pool
            time.sleep(0.5)
        return str(self.ask("POST", "/deployments/", deployment)["id"])

    def victim(self, kind: str) -> int | None:
        """The process to kill, None where there is none now."""
        if kind in self.processes:
            process = self.processes[kind]
            return process.pid if process.poll() is None and self.answers() else None
        if kind == "flow":
            runs = holder(self.project)
            return runs.pid if runs is not None and psutil.pid_exists(runs.pid) else None
        for process in psutil.process_iter(["cmdline", "cwd"]):
            line = process.info["cmdline"] or []
            ours = process.info["cwd"] == str(self.project)
            if ours and any(part.startswith("tasks.") for part in line) and "dvc" not in line:
                return int(process.pid)
        return None

    def end(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def undisturbed(project: Path, scratch: Path, env: dict[str, str]) -> tuple[dict[str, Any], float]:
    """Outputs and seconds of a `dvc repro` of the same project elsewhere."""
    there = scratch / "undisturbed"
    shutil.copytree(
        project, there, ignore=shutil.ignore_patterns("workspace", "cache", ".prefect", "dvc.lock")
    )
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "report"],
        cwd=there, env=env | {"PYTHONPATH": str(there)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"the undisturbed run failed: {done.stdout}{done.stderr}")
    return outputs(there), time.monotonic() - begun


def measure(operated: Operated, kills: int, seed: int) -> dict[str, Any]:
    """Runs the line and kills; says how it went."""
    draw = random.Random(seed)
    clear(operated.project)
    expected, seconds = undisturbed(operated.project, operated.scratch, operated.environment())
    operated.keep_up()
    deployment = operated.deploy()
    left = [kind for kind in KINDS for _ in range(kills)]
    draw.shuffle(left)
    most = 2 * seconds / max(1, len(left))
    done: list[tuple[str, float]] = []
    ends: dict[str, int] = {}
    runs = rounds = different = 0
    begun = time.monotonic()

    def trigger() -> str:
        nonlocal runs
        runs += 1
        return str(operated.ask("POST", f"/deployments/{deployment}/create_flow_run", {})["id"])

    while left or not rounds:
        clear(operated.project)
        rounds += 1
        run, seen = trigger(), time.monotonic()
        next_kill = time.monotonic() + draw.uniform(0, most)
        while True:
            operated.keep_up()
            if left and time.monotonic() > next_kill and (pid := operated.victim(left[-1])) is not None:
                psutil.Process(pid).kill()
                done.append((left.pop(), round(time.monotonic() - begun, 1)))
                print(f"killed {done[-1][0]} at {done[-1][1]} s", file=sys.stderr, flush=True)
                next_kill = time.monotonic() + draw.uniform(0, most)
                continue
            state = operated.ask("GET", f"/flow_runs/{run}")["state_type"]
            if holder(operated.project) is not None or state in ("SCHEDULED", "PENDING"):
                seen = time.monotonic()
            if state == "COMPLETED":
                break
            if state in FINAL or time.monotonic() - seen > STALLED_S:
                ends[state] = ends.get(state, 0) + 1
                print(f"a run ended {state}; triggered again", file=sys.stderr, flush=True)
                run, seen = trigger(), time.monotonic()
            time.sleep(0.3)
        different += outputs(operated.project) != expected
    states: dict[str, int] = {}
    for row in operated.ask("POST", "/flow_runs/filter", {"limit": 200}):
        states[row["state_type"]] = states.get(row["state_type"], 0) + 1
    return {
        "kills": {kind: sum(one == kind for one, _ in done) for kind in KINDS},
        "undisturbed_seconds": round(seconds, 1),
        "seconds": round(time.monotonic() - begun, 1),
        "rounds": rounds,
        "rounds_that_ended_otherwise": different,
        "runs": runs,
        "states": states,
        "when": done,
    }


def main() -> None:
    """The command line; prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    operated = Operated(arguments.project.resolve(), arguments.scratch.resolve(), port)
    try:
        print(json.dumps(measure(operated, arguments.kills, arguments.seed)))
    finally:
        operated.end()


if __name__ == "__main__":
    main()
