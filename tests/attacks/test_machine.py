"""Faults of the machine: clock, disk, signals, limits, locks, links, variables, webhooks, output."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from pycocotools import mask as rle

from data.errors import DataError
from data.remote.inbox import CLOCK_BACK_S, Inbox
from data.storage import atomic_dir, discard_partials, list_files
from flows.cli.console import Console
from flows.cli.main import main
from flows.dvc.records import repair
from flows.dvc.remote_config import RemoteError
from flows.dvc.repo import DvcRepo
from flows.dvc.send import send_all
from flows.processes.run_lock import PATH, Holder, RunLockError, held
from flows.run import notices
from flows.run.name import compose
from flows.run.notices import send
from flows.run.stage_failure import delays
from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tasks.common.stage_main import stage_main, timed, write_json
from tasks.doctor.doctor import quick_check
from tasks.inbox.ledger import Arrival, Ledger
from tasks.tools.evaluate_files import evaluate_files
from tests.attacks.attack import Attack, check
from tests.attacks.test_params import LAUGHS
from tests.tasks.conftest import ROOT

STAGES = (
    "make_demo", "ingest", "import_points", "train_teacher", "train_refiner", "train_rounds", "pseudo_label",
    "train_student", "train_repeats", "evaluate", "compare", "report",
)  # fmt: skip
PARAMS = load_params(ROOT / "params.yaml")
SECRET = "T0KEN-nobody-may-see"  # noqa: S105  (the test's own)
NOBODY = 54321
"""A user's id without a name."""


class Place(NamedTuple):
    """A project as a clone has it, with data of its own demo; the current folder."""

    root: Path

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    project = tmp_path / "project"
    _project(project)
    monkeypatch.chdir(project)
    for name in ("POINTS2MODEL_NOTIFY", "POINTS2MODEL_RETRY_SECONDS", "DVC_STAGE", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(notices, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(tempfile, "tempdir", None)  # what it found before
    return Place(project)


def _project(folder: Path) -> None:
    (folder / ".dvc" / "tmp").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = True\n")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "decisions").mkdir()
    (folder / "dvc.yaml").write_text("stages:\n  report: {cmd: 'true', outs: [out]}\n")


class Ended(NamedTuple):
    """How a forked child ended: its exit code, negative where a signal ended it, and what it printed."""

    code: int
    text: str


@contextmanager
def child(act: Callable[[], Any], output: int | None = None) -> Iterator[tuple[int, Callable[[], Ended]]]:
    """Runs `act` in a fork of this process: its id, and a function that waits for its end.

    `output`: a descriptor in place of its stdout. What it prints is kept otherwise.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.dup2(writer if output is None else output, 1)
            os.dup2(writer, 2)
            sys.stdout, sys.stderr = (
                os.fdopen(1, "w"),
                os.fdopen(2, "w", buffering=1, errors="backslashreplace"),
            )
            logging.getLogger().handlers.clear()
            # As in a process of its own: other tests of this one may have set handlers.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            act()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    done: list[Ended] = []

    def wait() -> Ended:
        if not done:
            with os.fdopen(reader, "r", errors="replace") as lines:
                text = lines.read()
            done.append(Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text))
        return done[0]

    try:
        yield pid, wait
    finally:
        if not done:
            os.kill(pid, signal.SIGKILL)
            wait()


def ran(act: Callable[[], Any], output: int | None = None) -> Ended:
    with child(act, output) as (_, wait):
        return wait()


def refused(ended: Ended) -> str:
    """What a child printed; raises it as a TaskError if the child ended with code 1."""
    if ended.code == 1:
        raise TaskError(ended.text)
    assert ended.code == 0, ended
    return ended.text


def doctor(place: Place) -> str:
    """All findings of the doctor about the set-up; raises if there is an error, with which `run` ends."""
    diagnosis, _ = quick_check(Path(), Path("workspace"))
    text = "\n".join(str(one.fault) for one in [*diagnosis.errors, *diagnosis.warnings])
    if diagnosis.errors:
        raise TaskError(text)
    return text


def with_file(name: str, text: str | bytes, look: Callable[[Place], str] = doctor) -> Callable[[Place], str]:
    def act(place: Place) -> str:
        place.write(name, text)
        return look(place)

    return act


def with_variable(name: str, text: str, look: Callable[[Place], str] = doctor) -> Callable[[Place], str]:
    def act(place: Place) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, text)
            return look(place)

    return act


# Stages: the path that all of them share (tasks/common/stage_main.py), with a step that writes as they do.


def start(stage: str, run: Callable[[Any, Path], None], number: int = signal.SIGINT) -> None:
    """As the stage's command; signals other than SIGINT are sent to the part without its message."""
    if number != signal.SIGINT:
        timed(stage, run, PARAMS, Path("workspace"))
        return
    sys.argv = [stage]
    stage_main(stage, run)


def write_out(workspace: Path, ready: Callable[[], None] = lambda: None) -> None:
    discard_partials(workspace, "out")
    with atomic_dir(workspace / "out") as folder:
        write_json(folder / "first.json", list(range(1000)))
        ready()
        write_json(folder / "second.json", 2)


def killed(stage: str, number: int) -> Ended:
    """A step that gets a signal while it writes its outputs."""
    reader, writer = os.pipe()

    def ready() -> None:
        os.write(writer, b"x")
        time.sleep(60)

    with child(lambda: start(stage, lambda _, workspace: write_out(workspace, ready), number)) as (pid, wait):
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        os.kill(pid, number)
        ended = wait()
    os.close(reader)
    return ended


def signals(stage: str) -> Callable[[Place], str]:
    """SIGTERM, SIGINT and SIGKILL: the old outputs stay whole, and the next run goes on and leaves no other files."""

    def act(place: Place) -> str:
        place.write("workspace/out/first.json", "old")
        text = ""
        for number, code in ((signal.SIGTERM, -15), (signal.SIGINT, 130), (signal.SIGKILL, -9)):
            ended = killed(stage, number)
            assert ended.code == code
            assert [path.read_text() for path in (place.root / "workspace/out").iterdir()] == ["old"]
            text += ended.text
        assert ran(lambda: start(stage, lambda _, workspace: write_out(workspace), 0)).code == 0
        left = sorted(path.name for path in (place.root / "workspace").iterdir())
        assert left == ["out", "runs"] and (place.root / "workspace/out/second.json").read_text() == "2\n"
        return text

    return act


def full_disk(stage: str) -> Callable[[Place], str]:
    """A limit on the size of files, which fails as a full disk does."""

    def act(place: Place) -> str:
        place.write("workspace/out/first.json", "old")

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
            start(stage, lambda _, workspace: write_out(workspace))

        ended = ran(limited)
        assert [path.name for path in (place.root / "workspace").iterdir()] == ["out"]
        assert (place.root / "workspace/out/first.json").read_text() == "old"
        return refused(ended)

    return act


def level_of_logs(place: Place) -> str:
    return refused(ran(lambda: start("ingest", lambda _, workspace: write_out(workspace))))


# Webhooks


def webhook(serve: Callable[[socket.socket], None], *, arrives: bool = False) -> Callable[[Place], str]:
    """A notice to a server that handles a connection by `serve`; `arrives`: whether it counts as sent."""

    def act(place: Place) -> str:
        lines: list[str] = []
        log = logging.getLogger("attack")
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        log.addHandler(handler)
        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=_answer, args=(server, serve), daemon=True)
            thread.start()
            url = f"http://127.0.0.1:{server.getsockname()[1]}/hook/{SECRET}"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(notices.ADDRESS, url)
                began = time.monotonic()
                sent = send("Failed", "why", "brisk-owl", None, log)
        log.removeHandler(handler)
        assert time.monotonic() - began < 5 and sent == arrives
        return "\n".join(lines)

    return act


def _answer(server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with contextlib.suppress(OSError):
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            serve(connection)


def sends(response: str) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(response.replace("\n", "\r\n").encode())


def drips(connection: socket.socket) -> None:
    for _ in range(100):
        connection.sendall(b"H")
        time.sleep(0.1)


def flood(place: Place) -> str:
    sent = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1000):
            connection.sendall(bytes(10**6))
            sent.append(1)

    text = webhook(serve, arrives=True)(place)
    time.sleep(0.1)
    assert len(sent) < 100
    return text


def redirects(place: Place) -> str:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.2)
        to = f"http://127.0.0.1:{other.getsockname()[1]}/{SECRET}"
        text = webhook(sends(f"HTTP/1.1 307 Elsewhere\nLocation: {to}\nContent-Length: 0\n\n"))(place)
        with pytest.raises(TimeoutError):
            other.accept()
    return text


# Clock


def inbox_and_clock(place: Place) -> str:
    """Files that arrived before the clock was set back a day."""
    place.write("inbox/a.csv", "x,y")
    now = time.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now - 86400)
        (one,) = Inbox(str(place.root / "inbox")).list().files.values()
        patch.setattr(time, "time", lambda: now - CLOCK_BACK_S / 2)  # another server's clock
        (near,) = Inbox(str(place.root / "inbox")).list().files.values()
    assert one.age > 86000 and near.age < 0
    return "listed"


def ledger_and_clock(place: Place) -> str:
    """A version of a file that arrived after the clock was set back."""
    ledger = Ledger(place.root)
    ledger.add(Arrival("a.csv", "1" * 64, None, "taken", "", 1, "inbox", "2099-01-01T00:00:00.000+00:00"))
    for digest in "23":
        ledger.add(Arrival("a.csv", digest * 64, None, "taken", "", 1, "inbox", ledger.moment()))
    last = Ledger(place.root).last_taken("a.csv")
    assert last is not None and last.sha256 == "3" * 64
    return last.when


# Locks


def hold(place: Place) -> str:
    with held(place.root, "attack", wait=False, say=lambda line: None) as taken:
        return str(taken.holder)


def lock_file(make: Callable[[Path], Any]) -> Callable[[Place], str]:
    def act(place: Place) -> str:
        path = place.root / PATH
        path.parent.mkdir()
        make(path)
        return hold(place)

    return act


def lock_that_leads_elsewhere(place: Place) -> str:
    precious = place.write("precious.txt", "precious")
    try:
        return lock_file(lambda path: path.symlink_to(precious))(place)
    finally:
        assert precious.read_text() == "precious"


def two_at_once(place: Place) -> str:
    path = place.write(str(PATH), "")
    holder = Holder("a\x1b[2Jb", "here", os.getpid(), "2099-01-01T00:00:00+00:00", "by\nhand")
    path.write_text(json.dumps({"holder": vars(holder), "died": []}))
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        return hold(place)


def repair_lines(place: Place) -> str:
    return "\n".join(repair(place.root))


def repaired(place: Place) -> str:
    """What a run reports about DVC's own files before it starts."""
    text = repair_lines(place)
    assert not (place.root / ".dvc/tmp/rwlock").exists()
    return text


def tries(place: Place) -> str:
    return str(delays())


# Output


def output(*arguments: str, to: str = "/dev/full") -> Callable[[Place], str]:
    """A command whose stdout can't be written; `to` "": its reader has ended."""

    def act(place: Place) -> str:
        def command() -> None:
            sys.argv = ["points2model", *arguments]
            main()

        if to:
            descriptor = os.open(to, os.O_WRONLY)
        else:
            reader, descriptor = os.pipe()
            os.close(reader)
        try:
            return refused(ran(command, descriptor))
        finally:
            os.close(descriptor)

    return act


def folder_that_is_gone(place: Place) -> str:
    def command() -> None:
        gone = place.root / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        sys.argv = ["points2model", "models"]
        main()

    return refused(ran(command))


def tables_in_no_columns(place: Place) -> str:
    from rich.table import Table

    file = io.StringIO()
    table = Table("stage", "state")
    table.add_row("ingest", "Completed")
    Console(file=file).print(table)
    return file.getvalue()


def name_of_run(place: Place) -> str:
    time.tzset()
    try:
        return compose("by hand", "report")
    finally:
        os.environ.pop("TZ")
        time.tzset()


# Users and limits


def as_nobody(place: Place) -> str:
    """A user without a home and a name, in another user's project."""
    text = (place.root / "params.yaml").read_text()
    place.write("params.yaml", text.replace("    name: efficientnet_lite0", "    name: resnet50"))
    with contextlib.suppress(TaskError):
        doctor(place)  # imports all modules now, since that user may not read them

    def command() -> None:
        os.environ.pop("HOME", None)
        os.environ.pop("XDG_CACHE_HOME", None)
        place.root.chmod(0o555)
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        print(doctor(place))

    ended = ran(command)
    place.root.chmod(0o755)
    assert ended.code == 70 and "tasks.common.errors.TaskError: " in ended.text
    raise TaskError(ended.text.rpartition("tasks.common.errors.TaskError: ")[2])


def umask(mask: int) -> Callable[[Place], str]:
    def act(place: Place) -> str:
        before = os.umask(mask)
        try:
            return doctor(place)
        finally:
            os.umask(before)

    return act


def few_files(place: Place) -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        return doctor(place)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Paths


def called(name: str) -> Callable[[Place], str]:
    """A project in a folder of that name: the findings of the doctor, and the graph by DVC."""

    def act(place: Place) -> str:
        project = place.root.parent / name
        _project(project)
        os.chdir(project)
        text = doctor(Place(project))
        assert list(DvcRepo(Path.cwd()).graph("report")) == ["report"]
        return text

    return act


def behind_a_link(place: Place) -> str:
    link = place.root.parent / "link"
    link.symlink_to(place.root)
    os.chdir(link)
    assert list(DvcRepo(Path.cwd()).graph("report")) == ["report"]
    return doctor(place)


def another_encoding(place: Place) -> str:
    """A locale without the letters of the path, in a Python that keeps to the locale."""
    project = place.root.parent / "größe"
    project.mkdir()
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": str(ROOT),
    }
    script = (
        "from pathlib import Path\nfrom tasks.common.project_files import faults\nprint(*faults(Path.cwd()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    raise TaskError(done.stdout + done.stderr)


def images_in_a_circle(place: Place) -> str:
    place.write("images/a.png", "")
    (place.root / "images/again").symlink_to(place.root / "images")
    (place.root / "images/itself").symlink_to(place.root / "images/itself")
    return " ".join(list_files(place.root / "images"))


def link_to_itself(name: str) -> Callable[[Place], str]:
    def act(place: Place) -> str:
        (place.root / name).symlink_to(place.root / name)
        return doctor(place)

    return act


def repository(place: Place) -> str:
    """What `promote`, `reports` and the flow report, which open DVC's repository."""
    return " ".join(DvcRepo(place.root).stages())


def piped(name: str, look: Callable[[Place], str]) -> Callable[[Place], str]:
    """A file of DVC is a named pipe, which would block its reader for ever."""

    def act(place: Place) -> str:
        (place.root / name).unlink(missing_ok=True)
        os.mkfifo(place.root / name)
        return look(place)

    return act


def push(place: Place) -> str:
    return send_all(place.root, lambda line: None)


# Scores


def scored(truth: Any, results: Any) -> Callable[[Place], str]:
    def act(place: Place) -> str:
        files = place.write("truth.json", json.dumps(truth)), place.write("results.json", json.dumps(results))
        return str(evaluate_files(*files, max_detections=100, size_bounds=(32, 96)))

    return act


def mask(height: int = 20, width: int = 30) -> dict[str, Any]:
    pixels = np.zeros((height, width), np.uint8, order="F")
    pixels[2:9, 3:9] = 1
    found = rle.encode(pixels)
    return {"size": found["size"], "counts": found["counts"].decode()}


TRUTH = {
    "images": [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}],
    "categories": [{"id": 3, "name": "disc"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0, "area": 42, "bbox": [3, 2, 6, 7],
                     "segmentation": mask()}],
}  # fmt: skip
RESULT = {"image_id": 1, "category_id": 3, "score": 0.9, "segmentation": mask()}
NOT_SENT = ("operate.notify: the webhook on 127.0.0.1 ",)
FULL = ("output can't be written: No space left on device",)
MERGED = "<<<<<<< HEAD\nschema: '2.0'\n=======\nschema: '2.0'\n>>>>>>> main\n"
ONE_SIDE = ("line 1: found marks of a merge that isn't resolved", "git checkout --ours")
NOT_A_FILE = (
    "run.lock: found a link, a folder or a device, expected a regular file",
    "remove it, and run again",
)

ATTACKS = [
    *(Attack(f"signals amid {stage}", signals(stage), (f"{stage}: stopped; run it again to go on",), refused=False)
      for stage in STAGES),
    *(Attack(f"a disk that is full in {stage}", full_disk(stage), (f"{stage}: ", "File too large", "Next: free some"))
      for stage in STAGES),

    Attack("a webhook that hangs", webhook(lambda _: time.sleep(3)), NOT_SENT, (SECRET,), refused=False),
    Attack("a webhook that drips", webhook(drips), (*NOT_SENT, "respond within"), (SECRET,), refused=False),
    Attack("a webhook that sends a gigabyte", flood, (), (SECRET,), refused=False),
    Attack("a webhook that leads elsewhere", redirects, (*NOT_SENT, "307"), (SECRET,), refused=False),
    Attack("a webhook that leads to a file", webhook(sends("HTTP/1.1 302 No\nLocation: file:///etc/passwd\n\n")),
           (*NOT_SENT, "302"), (SECRET, "passwd"), refused=False),
    Attack("a webhook out of order", webhook(sends("HTTP/1.1 500 No\nContent-Length: 0\n\n")), (*NOT_SENT, "500"),
           (SECRET,), refused=False),
    Attack("a webhook that speaks no HTTP", webhook(sends("220 mail ready\n")), NOT_SENT, (SECRET,), refused=False),
    Attack("a webhook that hangs up", webhook(lambda _: None), NOT_SENT, (SECRET,), refused=False),

    Attack("a clock set back under an inbox", inbox_and_clock, ("listed",), refused=False),
    Attack("a clock set back under the ledger", ledger_and_clock, ("2099-01-01T00:00:00.002",), refused=False),
    Attack("a ledger without a time", with_file("arrivals/2026-01/a.json", json.dumps({
        "name": "a", "sha256": "", "etag": None, "state": "taken", "reason": "", "points": 1, "inbox": "", "when": 5}),
        lambda place: str(Ledger(place.root))), ("a.json: found", "restore it with git")),

    Attack("a lock that is a folder", lock_file(Path.mkdir), NOT_A_FILE),
    Attack("a lock that is a link to a file", lock_that_leads_elsewhere, NOT_A_FILE),
    Attack("a lock that is a pipe", lock_file(os.mkfifo), NOT_A_FILE),
    Attack("a lock that is a link to itself", lock_file(lambda path: path.symlink_to(path)), NOT_A_FILE),
    Attack("a lock's folder that is a file", with_file(".prefect", "", hold), ("run.lock: ",)),
    Attack("a lock full of brackets", lock_file(lambda path: path.write_text("[" * 10**6)), ("attack",), refused=False),
    Attack("a lock whose holder's process is a word", lock_file(lambda path: path.write_text(json.dumps({"holder": {
        "user": "a", "host": socket.gethostname(), "pid": "one", "since": "", "reason": ""}, "died": []}))),
        ("attack",), refused=False),
    Attack("a second run while one is under way", two_at_once, ("another run is under way", "2099-01-01", "--wait"),
           ("\x1b",)),

    Attack("a lock of DVC's that is a list", with_file(".dvc/tmp/rwlock", "[]", repaired), ("rwlock was not as dvc",),
           refused=False),
    Attack("a lock of DVC's that is torn", with_file(".dvc/tmp/rwlock", '{"write": {', repaired), ("removed",),
           refused=False),
    Attack("a lock of DVC's that holds lists, in the doctor", with_file(".dvc/tmp/rwlock", '{"write": [1], "read": 3}'),
           refused=False),
    Attack("a lock of DVC's of an endless process", with_file(".dvc/tmp/rwlock", json.dumps(
        {"write": {"a": {"pid": 10**30, "cmd": ""}}})), refused=False),
    Attack("a merge in dvc.lock", with_file("dvc.lock", MERGED), ("dvc.lock: ", *ONE_SIDE, "DVC's cache")),
    Attack("a merge in dvc.lock, in the flow", with_file("dvc.lock", MERGED, repository), ("dvc.lock: ", *ONE_SIDE)),
    Attack("a merge in dvc.lock, in a repair", with_file("dvc.lock", MERGED, repair_lines),
           hidden=("half-written",), refused=False),
    Attack("a dvc.lock of another schema", with_file("dvc.lock", "schema: '3.0'\nstages: {}\n"),
           ("dvc.lock: schema: found '3.0'", "install the version of dvc")),
    Attack("a dvc.lock that is a pipe", piped("dvc.lock", repository), ("dvc.lock: ", "not a regular file")),
    Attack("a dvc.lock that is a pipe, in the doctor", piped("dvc.lock", doctor), ("dvc.lock: ", "not a regular file")),
    Attack("a .dvc/config that is a pipe", piped(".dvc/config", doctor), (".dvc/config: ", "not a regular file")),
    Attack("a dvc.lock without end", with_file("dvc.lock", b"#" * (2**26 + 1)), ("dvc.lock: ", "more than 67,108,864")),
    Attack("a dvc.lock that is no text", with_file("dvc.lock", b"\xff\xfe\x00"), ("dvc.lock: ", "can't be read")),
    Attack("params that expand to billions, in a push", with_file("params.yaml", LAUGHS, repository),
           ("params.yaml: file: found no YAML that can be used", "more than 100,000 values")),
    Attack("a merge in dvc.yaml", with_file("dvc.yaml", MERGED, repository), ("dvc.yaml: ", *ONE_SIDE)),
    Attack("a broken .dvc/config", with_file(".dvc/config", "[core\nx"), (".dvc/config: ", "git checkout .dvc/config")),
    Attack("a broken .dvc/config, in the flow", with_file(".dvc/config", "[core\nx", repository), (".dvc/config: ",)),
    Attack("a broken .dvc/config, in a push", with_file(".dvc/config", "[core\nx", push),
           ("DVC's configuration can't be read", ".dvc/config")),
    Attack("a broken .dvc/config.local", with_file(".dvc/config.local", "[[x]"), (".dvc/config.local: ",)),
    Attack("a cache of DVC's where nothing can be written", with_file(".dvc/config", "[cache]\n    dir = /proc/none\n"),
           ("DVC's cache: found not writable", "make /proc writable")),

    Attack("a full disk behind the doctor's output", output("doctor", "--quick"), FULL),
    Attack("a full disk behind the doctor's JSON", output("doctor", "--quick", "--json"), FULL),
    Attack("a full disk behind the models' list", output("models"), FULL),
    Attack("a full disk behind a run's output", output("run", "--target", "repor"), FULL),
    Attack("a reader of the doctor's JSON that is gone", output("doctor", "--quick", "--json", to=""),
           hidden=("failed", "Abort")),
    Attack("a current folder that is gone", folder_that_is_gone, ("the current folder is gone", "cd to the project")),

    Attack("a user without home, name and rights", as_nobody, ("not writable",)),
    Attack("an umask that bars its own user", umask(0o777), ("umask: found 0777", "umask 022")),
    Attack("an umask that bars all others", umask(0o077), refused=False),
    Attack("few open files", few_files, ("200 files may be open", "ulimit -n 256"), refused=False),
    Attack("a TMPDIR that isn't there", with_variable("TMPDIR", "/nowhere"), ("/nowhere: TMPDIR",), refused=False),
    Attack("a TMPDIR where nothing can be written", with_variable("TMPDIR", "/proc"), ("/proc: TMPDIR",),
           refused=False),
    Attack("a workspace that is a link to itself", link_to_itself("workspace"), ("workspace",)),
    Attack("data that are a link to themselves", with_file("params.yaml", (ROOT / "params.yaml").read_text().replace(
        "images: workspace/demo/dataset/images", "images: mine"), link_to_itself("mine")),
        ("ingest.images: found no such",)),
    Attack("images in a circle of links", images_in_a_circle, ("a.png",), refused=False),

    Attack("a project called {x}", called("a{x}b"), ("path: found '{' and '}' in it", "rename the folder")),
    *(Attack(f"a project called {name!r}"[:60], called(name), refused=False)
      for name in ("a b", "it's \"so\"", "%s%d", "a#b", "a\nb", "-rf", "x" * 200, "[red]x[/]", "größe", "$HOME;*")),
    Attack("a project behind a link", behind_a_link, refused=False),
    Attack("a project whose letters the locale lacks", another_encoding,
           ("path: found letters in it", "LC_ALL=C.UTF-8")),

    Attack("tries after no number of seconds", with_variable("POINTS2MODEL_RETRY_SECONDS", "soon", tries),
           ("found 'soon', expected seconds",)),
    Attack("tries after endless seconds", with_variable("POINTS2MODEL_RETRY_SECONDS", "nan,inf", tries),
           ("expected seconds",)),
    Attack("a level of logs that isn't", with_variable("POINTS2MODEL_LOG_LEVEL", "%(x)s", level_of_logs),
           refused=False),
    Attack("a terminal of no columns", with_variable("COLUMNS", "0", tables_in_no_columns), ("ingest",),
           refused=False),
    Attack("a terminal of no number of columns", with_variable("COLUMNS", "wide", tables_in_no_columns), ("ingest",),
           refused=False),
    Attack("a time zone that isn't", with_variable("TZ", "garbage", name_of_run), ("by hand",),
           refused=False),

    Attack("results on images of another truth", scored(TRUTH, [{**RESULT, "image_id": 7}]), ("result #0", "7")),
    Attack("results of another truth's classes", scored(TRUTH, [{**RESULT, "category_id": 9}]), ("result #0", "9")),
    Attack("results of another size", scored(TRUTH, [{**RESULT, "segmentation": mask(30, 20)}]), ("result #0",)),
    Attack("the truth in place of results", scored(TRUTH, TRUTH), ("results.json",)),
    Attack("results in place of the truth", scored([RESULT], [RESULT]), ("truth.json",)),
    Attack("no results at all", scored(TRUTH, []), ("'detections': 0",), refused=False),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_machine(place: Place, attack: Attack) -> None:
    check(attack, place, (DataError, TaskError, RunLockError, RemoteError))
