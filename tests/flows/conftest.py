"""A small real pipeline: real DVC, real Prefect, stages that cost nothing."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

DVC_YAML = """\
stages:
  a:
    desc: The first
    cmd: python step.py a
    deps: [step.py, in.txt]
    params: [a]
    outs: [ws/a]
  b:
    cmd: python step.py b ws/a
    deps: [step.py, ws/a]
    params: [b]
    outs: [ws/b]
    meta: {gpu: true}
  c:
    cmd: python step.py c ws/a
    deps: [step.py, ws/a]
    params: [c]
    outs: [ws/c]
  report:
    cmd: python step.py report ws/b ws/c
    deps: [step.py, ws/b, ws/c]
    outs: [ws/report]
  stranger:
    cmd: exit 3
    outs: [ws/stranger]
"""

STEP = """\
import os, sys, time, yaml
from pathlib import Path
name, *inputs = sys.argv[1:]
does = str(yaml.safe_load(open("params.yaml")).get(name))
print(f"{name}: reads {inputs}", file=sys.stderr)
with open("ran.txt", "a") as ran:
    ran.write(name + "\\n")
if does == "fail":
    sys.exit(f"{name}: 2 faults\\n  - one\\n  - two")
if does == "raise":
    raise ValueError("not so")
if does in ("away", "killed", "always away", "always killed"):
    tries = Path(f"{name}.tries")
    tries.write_text((tries.read_text() if tries.exists() else "") + "x")
    if len(tries.read_text()) < 3 - ("killed" in does) or "always" in does:
        print(f"{name}: nobody there", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9) if "killed" in does else sys.exit(75)
if does == "meet":  # only ends while the other one runs too
    Path(f"{name}.here").touch()
    end = time.monotonic() + 60
    while len(list(Path(".").glob("*.here"))) < 2:
        assert time.monotonic() < end, "alone"
        time.sleep(0.05)
if does == "sleep":
    Path("sleeper.pid").write_text(str(os.getpid()))
    time.sleep(120)
if does == "take your time":
    began = time.time()
    time.sleep(4)
    Path("span.txt").write_text(f"{began} {time.time()}")
Path("ws").mkdir(exist_ok=True)
if does == "big":
    Path("ws", name).write_bytes(bytes(50_000_000))
# hidden.txt is what a stage doesn't declare: with it the same inputs give another output
hidden = Path("hidden.txt").read_text() if Path("hidden.txt").exists() else ""
Path("ws", name).write_text(f"{name} {does} {hidden}" + "".join(Path(i).read_text() for i in inputs))
"""


@dataclass
class Toy:
    """The pipeline a -> b, c -> report in a folder of its own, and a stranger that fails if it ever runs."""

    root: Path

    def set(self, **params: object) -> None:
        """Writes params.yaml; what isn't given is 1."""
        values = {"a": 1, "b": 1, "c": 1, **params}
        self.path("params.yaml").write_text("".join(f"{key}: {value}\n" for key, value in values.items()))

    def path(self, name: str) -> Path:
        return self.root / name

    def ran(self) -> list[str]:
        """The stages whose command ran since the last call."""
        path = self.path("ran.txt")
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names

    def dvc(self, *arguments: str) -> str:
        """Runs dvc as a user does and returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.root, env=_environment(self.root), capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def cli(self, *arguments: str, merge: bool = True, new_session: bool = False) -> subprocess.Popen[str]:
        """Starts `points2model` as a user does; `merge` sends errors where the output goes."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli.main", *arguments],
            cwd=self.root, env=_environment(self.root), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE, start_new_session=new_session,
        )  # fmt: skip

    def outputs(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.path("ws").iterdir() if path.name[0] != "."}


def _environment(root: Path) -> dict[str, str]:
    from flows.dvc.environment import environment

    return {**environment(root), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy pipeline of which nothing has run; to be copied."""
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("toy") / "blank"
    folder.mkdir()
    Repo.init(str(folder), no_scm=True).close()
    toy = Toy(folder)
    for name, text in {"dvc.yaml": DVC_YAML, "step.py": STEP, "in.txt": "in\n"}.items():
        toy.path(name).write_text(text)
    toy.set()
    return folder


@pytest.fixture
def toy(blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A toy pipeline of which nothing has run yet; the current folder."""
    shutil.copytree(blank, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Toy(tmp_path)


@pytest.fixture(scope="session")
def finished(blank: Path, prefect_server: None) -> Path:
    """A toy pipeline that the flow has run once; to be copied."""
    from flows.run.pipeline import annotation_to_model

    folder = blank.parent / "finished"
    shutil.copytree(blank, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runs = annotation_to_model()
    assert [run["state"] for run in runs] == ["Completed"] * 4
    Toy(folder).ran()
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A toy pipeline that the flow has run once, as a folder of its own; the current one."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Toy(tmp_path)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What flow runs and task runs log in this process; Prefect's loggers don't always hand it on to pytest's."""
    from prefect.logging.configuration import setup_logging

    setup_logging()  # else the first flow does, which takes handlers away
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Keep()
    loggers = [
        logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.notices")
    ]
    for logger in loggers:
        logger.addHandler(handler)
    yield lines
    for logger in loggers:
        logger.removeHandler(handler)
