"""Runs on disks that are full or read-only: real ones, mounted for the test."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import Toy, _environment
from tests.full_disk import on_own_disk

pytestmark = pytest.mark.line

RUN = f"{sys.executable} -m flows.cli.main run --target c"


@pytest.fixture
def environment(tmp_path: Path, prefect_server: None) -> dict[str, str]:
    """That of a command line which reports to the tests' server."""
    from prefect.settings import PREFECT_API_URL

    return {**_environment(tmp_path / "disk"), "PREFECT_API_URL": str(PREFECT_API_URL.value())}


def on_disk(
    toy: Toy, folder: Path, options: str, script: str, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a script in a copy of the toy that lies on a disk of its own."""
    folder.mkdir()
    return on_own_disk(folder, options, f"cp -r {toy.root}/. . && {{ {script} ; }}", folder, env)


def test_a_full_disk_is_told_and_with_room_it_goes_on(
    blank: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    source, disk = tmp_path / "toy", tmp_path / "disk"
    shutil.copytree(blank, source)
    toy = Toy(source)
    toy.set(a=1, c="big")
    script = f"{RUN} ; echo first $? ; rm -f ws/c ; sed -i 's/c: big/c: 2/' params.yaml ; {RUN} --json; echo second $?"
    done = on_disk(toy, disk, "size=30m", script, environment)
    assert "first 1" in done.stdout and "second 0" in done.stdout, done.stdout + done.stderr
    first = done.stdout.partition("first 1")[0]
    assert "failed c: OSError: [Errno 28] No space left on device" in first
    assert f"{disk}: 0.0 MiB free of 30.0. Next: free some there" in first
    assert '"state": "Cached"' in done.stdout and '"state": "Completed"' in done.stdout


def test_a_read_only_project_is_told_at_once(
    blank: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    toy = Toy(blank)
    disk = tmp_path / "disk"
    done = on_disk(toy, disk, "size=30m", f"mount -o remount,ro {disk} && {RUN}", environment)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert f"{disk}/.prefect" in said and "Read-only file system; a run writes its lock" in said
    assert "Traceback" not in said


def test_a_read_only_workspace_is_told(blank: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    project = tmp_path / "toy"
    shutil.copytree(blank, project)
    (project / "ws").mkdir()
    done = on_own_disk(project / "ws", "ro", RUN, project, environment)
    assert done.returncode == 1
    assert "failed a: " in done.stdout and "Read-only file system: 'ws/a'" in done.stdout


def test_a_full_tmp_is_no_obstacle_or_told(blank: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    project, temporary = tmp_path / "toy", tmp_path / "tmp"
    shutil.copytree(blank, project)
    temporary.mkdir()
    fill = f"head -c 1000000 /dev/zero > {temporary}/filler 2>/dev/null;"
    done = on_own_disk(temporary, "size=64k", fill + RUN, project, {**environment, "TMPDIR": str(temporary)})
    assert done.returncode == 0, done.stdout + done.stderr
    toy = Toy(project)
    toy.set(a="fail")
    done = on_own_disk(temporary, "size=64k", fill + RUN, project, {**environment, "TMPDIR": str(temporary)})
    assert done.returncode == 1
    assert f"{temporary}: 0.0 MiB free" in done.stdout
