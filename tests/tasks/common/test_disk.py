"""A full disk and a read-only one are told with the folder and what is free there."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.common import disk
from tests.full_disk import on_own_disk
from tests.tasks.conftest import ROOT

ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "{folder}/sub/file"),
            r"^{folder}: No space left.*free of",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded", "{folder}/file"),
            r"^{folder}: Disk quota exceeded \(.*MiB free",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "{folder}/file"),
            r"^{folder}: Read-only file system. Next:",
        ),
        (
            PermissionError(errno.EACCES, "no", "{folder}/file"),
            r"^{folder}: Permission denied. Next: make it writable",
        ),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            r"No space left on device \(.*MiB free of",
        ),
        (caused(ValueError("x"), OSError(errno.ENOSPC, "No space")), "No space left on device"),
        (PermissionError(errno.EPERM, "a process of another's"), None),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "{folder}/file"), None),
        (ValueError("x"), None),
    ],
)
def test_explain(tmp_path: Path, error: Exception, expected: str | None) -> None:
    if isinstance(error, OSError) and error.filename:
        error.filename = error.filename.format(folder=tmp_path)
    told = disk.explain(error)
    if expected is None:
        assert told is None
    else:
        assert told is not None and re.search(expected.format(folder=re.escape(str(tmp_path))), told)


def test_folders_without_room(tmp_path: Path) -> None:
    there = tmp_path / "small"
    there.mkdir()
    (tmp_path / "look.py").write_text(
        "from pathlib import Path\nfrom tasks.common import disk\n"
        "[print(line) for line in disk.tight(Path('small'), Path())]"
    )
    look = f"{sys.executable} look.py"
    fill = "head -c 2000000 /dev/zero > small/filler 2>/dev/null;"
    assert on_own_disk(there, "size=1m", look, tmp_path, ENV).stdout == ""
    full = on_own_disk(there, "size=1m", fill + look, tmp_path, ENV).stdout
    assert full.startswith(f"{there}: 0.0 MiB free of 1.0. Next: free some there")
    many = "touch small/1 small/2 small/3 small/4 small/5 small/6 2>/dev/null;"
    assert (
        "no free inodes, so no file can be made there"
        in on_own_disk(there, "nr_inodes=5", many + look, tmp_path, ENV).stdout
    )
    barred = on_own_disk(there, "ro", look, tmp_path, ENV).stdout
    assert barred.startswith(f"{there}: can't be written. Next: make it writable")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("size=40k", "No space left on device (0.0 MiB free of 0.0"),
        ("ro", "Read-only file system. Next: make it writable"),
    ],
)
def test_a_step_says_so(tmp_path: Path, recipe: dict[str, Any], options: str, told: str) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    ended = on_own_disk(workspace, options, f"{sys.executable} -m tasks.make_demo; exit $?", tmp_path, ENV)
    assert ended.returncode == 1
    assert f"make_demo: {workspace}" in ended.stderr and told in ended.stderr
    assert "Traceback" not in ended.stderr
