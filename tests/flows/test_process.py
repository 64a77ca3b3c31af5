"""Child processes end when we do."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.process import stop_all, stream

# A parent that starts a child, as `dvc repro` does, and tells the child's process id.
FAMILY = """\
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
child.wait()
"""


def run(code: str, on_line: object, cwd: Path) -> int:
    return stream([sys.executable, "-c", code], cwd=cwd, env=os.environ, on_line=on_line)  # type: ignore[arg-type]


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process ends within `seconds`; a zombie that nobody collects counts as ended."""
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
    ],
)
def test_stream(tmp_path: Path, code: str, lines: list[str], exit_code: int) -> None:
    seen: list[str] = []
    assert run(code, seen.append, tmp_path) == exit_code
    assert seen == lines


def test_lines_come_as_they_are_printed(tmp_path: Path) -> None:
    times: list[float] = []
    code = "import time; print(1, flush=True); time.sleep(0.6); print(2)"
    run(code, lambda _: times.append(time.monotonic()), tmp_path)
    assert times[1] - times[0] > 0.3


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to look at processes")
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


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to look at processes")
def test_an_error_in_the_reader_ends_the_group(tmp_path: Path) -> None:
    pids: list[int] = []

    def fail(line: str) -> None:
        pids.append(int(line))
        raise RuntimeError("reader broke")

    with pytest.raises(RuntimeError, match="reader broke"):
        run(FAMILY, fail, tmp_path)
    assert gone(pids[0])
