"""Commands on a file system of their own that is too small, or read-only: real mounts, which end with the command."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest


def on_own_disk(
    folder: Path, options: str, script: str, cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a shell script with a new, empty file system in memory mounted on `folder`.

    Args:
        folder: where; what lies there is hidden meanwhile.
        options: of the mount, such as `size=1m` or `ro`.
        script: for sh.
        cwd: its folder.
        env: its environment.
    """
    if not _may_mount():
        pytest.skip("no user namespaces here: nothing can be mounted")
    whole = f"mount -t tmpfs -o {options} none '{folder}' && cd '{cwd}' && {{ {script}\n}}"
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", whole],
        env=dict(env), capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@functools.cache
def _may_mount() -> bool:
    try:
        tried = subprocess.run(
            ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0
