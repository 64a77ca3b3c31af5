"""A trial of a remote with DVC's own client and settings."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.fs import get_cloud_fs

from flows.dvc.remote_errors import explain, is_passing

PROBE = "points2model-probe-"


@dataclass(frozen=True)
class Probe:
    """The result of a trial of a remote. `error`: why it can't be used; `warning`: a fault that doesn't prevent its
    use; `passing`: whether a later trial may succeed."""

    readable: bool
    writable: bool
    error: str | None = None
    warning: str | None = None
    passing: bool = False
    seconds: float = 0.0


def probe(
    root: Path, name: str, options: dict[str, str] | None, seconds: float, *, write: bool = True
) -> Probe:
    """Writes, reads, lists and deletes a small file in a remote, with DVC's own client and settings.

    Args:
        root: the project's folder.
        name: of the remote; it need not be in DVC's configuration if `options` are given.
        options: `url` and others, which override the configuration; None: as configured.
        seconds: the time limit. The clients themselves try a silent server for many minutes.
        write: False: only list the remote.
    """
    results: list[Probe] = []
    started = time.monotonic()
    thread = threading.Thread(target=lambda: results.append(_probe(root, name, options, write)), daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        return Probe(False, False, f"no response in {seconds:.0f} s", None, True, seconds)
    return replace(results[0], seconds=round(time.monotonic() - started, 1))


def _probe(root: Path, name: str, options: dict[str, str] | None, write: bool) -> Probe:
    config = None if options is None else {"remote": {name: options}}
    readable, writable, doing = False, False, "be set up"
    try:
        cls, settings, folder = get_cloud_fs(Config(str(root / ".dvc"), config=config), name=name)
        fs = cls(**settings)
        path, content = fs.join(folder, PROBE + uuid.uuid4().hex), uuid.uuid4().bytes
        if write:
            doing = "be written"
            fs.makedirs(folder, exist_ok=True)
            fs.pipe_file(path, content)
            writable, doing = True, "be read"
            if fs.cat_file(path) != content:
                return Probe(
                    False, True, "can't be used: a file that was read back differs from the written one"
                )
        doing = "be read"
        _list(fs, folder)
        readable = True
    except Exception as error:
        passing = is_passing(error)
        if doing == "be written" and not passing:
            with contextlib.suppress(Exception):
                _list(fs, folder)
                readable = True
        return Probe(readable, writable, f"can't {doing}: {explain(error)}", None, passing)
    if not write:
        return Probe(True, False)
    try:
        fs.remove(path)
    except Exception as error:
        left = f"can't delete ({explain(error)}): {path} stays there, and `dvc gc --cloud` won't work"
        return Probe(True, True, None, left)
    return Probe(True, True)


def _list(fs: Any, folder: str) -> None:
    """Lists the remote. A prefix without objects is accepted, a missing bucket isn't."""
    try:
        fs.ls(folder, detail=False)
    except FileNotFoundError:
        if fs.protocol == "s3":
            fs.ls(folder.split("/", maxsplit=1)[0], detail=False)
        else:
            raise
