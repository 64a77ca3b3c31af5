"""Child processes end when we do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from flows.processes.children import begin, stop_all, stream, wait

# A parent that starts a child, as `dvc repro` does, and prints the child's process id.
FAMILY = """\
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
child.wait()
"""


# The same, but the child has a session of its own, as torchrun gives its processes.
DETACHED = FAMILY.replace("])", "], start_new_session=True)")
# A parent that leaves its child behind.
LEFT = FAMILY.replace("child.wait()", "")
# A child that ignores SIGINT and must be killed.
DEAF = """\
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
import os
print(os.getpid(), flush=True)
time.sleep(60)
"""
# A child that records its interruption.
POLITE = """\
import os, sys, time
from pathlib import Path
try:
    print(os.getpid(), flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    Path("interrupted").touch()
"""
FLOW = """\
import os, sys
from pathlib import Path
from flows.processes import children
children.GRACE = 2.0
command = [sys.executable, "-c", sys.argv[1]]
children.stream(command, cwd=Path(), env=os.environ, on_line=lambda line: print(line, flush=True))
"""
ROOT = Path(__file__).resolve().parents[3]
proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to look at processes")


@contextmanager
def flow(code: str, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that streams such a child, and the process id that the child printed."""
    process = subprocess.Popen(
        [sys.executable, "-c", FLOW, code],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process, process.stdout:
        yield process, int(process.stdout.readline())
        process.kill()


@pytest.fixture(autouse=True)
def running() -> Iterator[None]:
    """Lets children start again after each test."""
    yield
    begin()


def run(code: str, on_line: object, cwd: Path) -> int:
    return stream([sys.executable, "-c", code], cwd=cwd, env=os.environ, on_line=on_line)  # type: ignore[arg-type]


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process ends within `seconds`; a zombie counts as ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("code", "lines", "exit_code"),
    [
        ("print('a'); print('b')", ["a", "b"], 0),
        (
            "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)",
            ["out", "err"],
            3,
        ),
        ("print('10%\\r20%\\r30%')", ["10%", "20%", "30%"], 0),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\n')", ["\N{REPLACEMENT CHARACTER}"], 0),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", [], -9),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", [], -15),
    ],
)
def test_stream(tmp_path: Path, code: str, lines: list[str], exit_code: int) -> None:
    printed: list[str] = []
    assert run(code, printed.append, tmp_path) == exit_code
    assert printed == lines


def test_lines_come_as_they_are_printed(tmp_path: Path) -> None:
    times: list[float] = []
    code = "import time; print(1, flush=True); time.sleep(0.6); print(2)"
    run(code, lambda _: times.append(time.monotonic()), tmp_path)
    assert times[1] - times[0] > 0.3


@proc
def test_stop_all_ends_grandchildren(tmp_path: Path) -> None:
    pids: list[int] = []
    codes: list[int] = []
    worker = threading.Thread(
        target=lambda: codes.append(
            run(FAMILY, lambda line: pids.append(int(line)) if line.isdigit() else None, tmp_path)
        )
    )
    worker.start()
    end = time.monotonic() + 30
    while not pids and time.monotonic() < end:
        time.sleep(0.05)
    stop_all()
    worker.join(timeout=20)
    assert not worker.is_alive()
    assert codes
    assert codes[0] != 0
    assert gone(pids[0])


@proc
def test_an_error_in_the_reader_ends_the_group(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail(line: str) -> None:
        pids.append(int(line))
        raise RuntimeError("reader broke")

    with pytest.raises(RuntimeError, match="reader broke"):
        run(FAMILY, fail, tmp_path)
    assert gone(pids[0])


@proc
@pytest.mark.parametrize("code", [FAMILY, DETACHED, DEAF], ids=["child", "own session", "deaf"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_flow_leaves_nothing_running(tmp_path: Path, code: str, number: signal.Signals) -> None:
    with flow(code, tmp_path) as (process, pid):
        process.send_signal(number)
        process.wait()
        assert gone(pid)


@proc
def test_a_killed_flow_interrupts_before_it_kills(tmp_path: Path) -> None:
    with flow(POLITE, tmp_path) as (process, pid):
        process.kill()
        assert gone(pid)
    assert (tmp_path / "interrupted").exists()


@proc
def test_a_killed_supervisor_ends_the_group(tmp_path: Path) -> None:
    with flow(FAMILY, tmp_path) as (process, pid):
        (supervisor,) = psutil.Process(process.pid).children()
        assert "supervisor.py" in " ".join(supervisor.cmdline())
        supervisor.kill()
        assert gone(pid)
        assert process.wait(30) == 0


@proc
def test_what_a_child_leaves_behind_ends_too(tmp_path: Path) -> None:
    with flow(LEFT, tmp_path) as (process, pid):
        assert process.wait(30) == 0
        assert gone(pid)


def test_no_such_command(tmp_path: Path) -> None:
    printed: list[str] = []
    assert stream(["no-such-command"], cwd=tmp_path, env=os.environ, on_line=printed.append) == 127
    assert printed == ["no-such-command: No such file or directory"]


def test_many_at_once_end_at_once(tmp_path: Path) -> None:
    """Each has a socket of its own: none may keep another's open."""
    begun: list[str] = []
    codes: list[int] = []
    sleep = "print(1, flush=True); import time; time.sleep(60)"

    def one() -> None:
        codes.append(run(sleep, begun.append, tmp_path))

    def until(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        assert condition()

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(begun) == 8)
    stop_all()
    until(lambda: len(codes) == 8)
    assert set(codes) == {1} or set(codes) == {-signal.SIGINT}


def test_after_a_stop_no_child_starts_and_no_wait_blocks(tmp_path: Path) -> None:
    stop_all()
    begun = time.monotonic()
    assert wait(60)
    assert run("import time; time.sleep(60)", print, tmp_path) == -signal.SIGINT
    assert time.monotonic() - begun < 30
    begin()
    assert not wait(0.01)
    assert run("", print, tmp_path) == 0
