"""A DVC stage as a cached Prefect task.

DVC alone decides what is done. The task runs `dvc repro -s STAGE` in a process of its own; Prefect's cache, keyed
on the stage's content, mirrors what dvc.lock says, so that a stage which is done shows as Cached whoever did it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from prefect import get_run_logger, task
from prefect.context import TaskRunContext
from prefect.results import ResultStore, get_result_store
from prefect.states import Completed, Failed

from flows.dvc_repo import DvcRepo, Manifest, read_manifest
from flows.process import stream
from flows.stage_progress import StageProgress

# Lines of dvc itself that tell a reader of the run nothing.
_CHATTER = (
    "Running stage ",
    "> ",
    "Updating lock file ",
    "Generating lock file ",
    "To track the changes with git",
    "\tgit add ",
    "To enable auto staging",
    "\tdvc config core.autostage",
    "Use `dvc push` ",
    "Verifying ",
    "Data and pipelines are up to date",
)
_RAN = "> "
_DVC_RESTORED = "is cached - skipping run, checking out outputs"

RESTORED = "restored from the cache"
"""The message of a stage whose result DVC had from an earlier run with the same inputs."""

Sink = Callable[[str, str], None]
"""Takes (stage, line): where a person watches."""
_sink: Sink | None = None


def watch(sink: Sink | None) -> None:
    """Sends every line of every stage to `sink` too, beside the run's log."""
    global _sink  # noqa: PLW0603  (Prefect runs tasks in threads and gives no other way in)
    _sink = sink


def _content_key(_: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    key: str | None = parameters["key"]
    return key


@task(task_run_name="{stage}", cache_key_fn=_content_key, persist_result=True, retries=0)
def run_stage(stage: str, key: str | None, root: Path, force: bool, upstream: dict[str, Manifest]) -> Any:
    """Runs one DVC stage and returns its entry in dvc.lock.

    Args:
        stage: its name in dvc.yaml.
        key: the hash of its content, see `DvcRepo.key`; None is never cached.
        root: the repository.
        force: run it even if nothing changed.
        upstream: the manifests of the stages above; they draw the edges in Prefect's UI.
    """
    logger = get_run_logger()
    lines: list[str] = []
    log_path = root / ".prefect" / "logs" / f"{stage}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("w", encoding="utf-8") as log_file, StageProgress(stage, logger) as progress:

        def on_line(line: str) -> None:
            lines.append(line)
            log_file.write(line + "\n")
            log_file.flush()
            progress.line(line)
            if line.strip() and not line.startswith(_CHATTER):
                logger.log(logging.INFO, line)
                if _sink is not None:
                    _sink(stage, line)

        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", stage]
        code = stream(command + ["--force"] * force, cwd=root, env=environment(), on_line=on_line)
        progress.end(well=code == 0)
    if code != 0:
        # A returned state, not an exception: a traceback of ours would bury the stage's own message.
        return Failed(message=failure(stage, lines, log_path.relative_to(root)))
    manifest = _manifest(root, stage)
    restored = any(_DVC_RESTORED in line for line in lines)
    return Completed(data=manifest, message=RESTORED) if restored else manifest


def environment() -> dict[str, str]:
    """This process's environment with its own interpreter first on the PATH: stages say plain `python`."""
    # Not resolved: a virtual environment's python is a link whose place matters.
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PATH")])])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


def failure(stage: str, lines: list[str], log_path: Path) -> str:
    """The part of a failed stage's output that says why."""
    tail = f"(its whole output: {log_path})"
    started = max((n for n, line in enumerate(lines) if line.startswith(_RAN)), default=-1)
    own = [
        line for line in lines[started + 1 :] if line.strip() and not line.startswith(("ERROR:", "WARNING:"))
    ]
    said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    if started < 0 or not own:
        return "\n".join([*(said or ["it ended without a word"]), tail])
    message = max((n for n, line in enumerate(own) if line.startswith(f"{stage}: ")), default=-1)
    trace = max((n for n, line in enumerate(own) if line.startswith("Traceback ")), default=-1)
    if trace > message:
        return f"{own[-1]}\n{tail}"
    return "\n".join([*(own[message:] if message >= 0 else own[-20:]), tail])


def mirror(repo: DvcRepo, stage: str, key: str) -> None:
    """Lays what dvc.lock says of a finished stage into Prefect's cache, unless it lies there already.

    So a stage that `dvc repro` has done shows as Cached, and one that it did anew gives the new manifest.
    """
    manifest = read_manifest(repo.root, stage)
    store = cast(ResultStore, get_result_store().update_for_task(run_stage))
    if not (store.exists(key) and store.read(key).result == manifest):
        store.write(manifest, key=key)


def _manifest(root: Path, stage: str) -> Manifest:
    """The stage's entry. Another stage that ends now may be writing dvc.lock: a torn read is tried again."""
    for _ in range(100):
        try:
            manifest = read_manifest(root, stage)
        except Exception:  # half-written YAML fails in many ways
            manifest = None
        if manifest is not None:
            return manifest
        time.sleep(0.05)
    raise RuntimeError(f"dvc.lock has no entry for {stage}, which dvc has just run; look at dvc.lock")
