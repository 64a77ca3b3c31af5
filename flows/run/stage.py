"""A DVC stage as a cached Prefect task.

DVC alone decides which stages are done. The task runs `dvc repro -s STAGE` in a process of its own. Prefect's cache,
with the stage's content as key, mirrors dvc.lock, so that a finished stage shows as Cached whoever ran it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast
from uuid import UUID

from prefect import get_run_logger, task
from prefect.client.schemas.objects import TaskRun
from prefect.context import TaskRunContext
from prefect.results import ResultStore, get_result_store
from prefect.states import Completed, Failed

from flows.dvc.environment import environment
from flows.dvc.lock import Manifest, read_manifest
from flows.dvc.records import repair
from flows.dvc.repo import DvcRepo, PipelineError
from flows.processes.children import stream, wait
from flows.run.stage_failure import Cause, delays, examine
from flows.run.stage_progress import StageProgress

# Lines of DVC that are of no interest in the log of a run.
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
_DVC_RESTORED = "is cached - skipping run, checking out outputs"

RESTORED = "restored from the cache"
"""The message of a stage whose result DVC had from an earlier run with the same inputs."""

Display = Callable[[str, str], None]
"""Takes (stage, line), such as the console of the command line."""
_display: Display | None = None
_retried: set[UUID] = set()
"""The task runs whose stage failed in a way that may pass, and is tried again."""


def show_lines(display: Display | None) -> None:
    """Shows every line of every stage on `display` from now on, in addition to the run's log."""
    global _display  # noqa: PLW0603  (Prefect runs tasks in threads, without another way to pass it)
    _display = display


def show_line(name: str, line: str) -> None:
    """Shows a line on the display, if there is one."""
    if _display is not None:
        _display(name, line)


def line_logger(name: str) -> Callable[[str], None]:
    """A function that logs lines in the current run's log, and shows them under this name."""
    logger = get_run_logger()

    def log_line(line: str) -> None:
        logger.info("%s", line)
        show_line(name, line)

    return log_line


def _content_key(_: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    key: str | None = parameters["key"]
    return key


def _is_retried(_: Any, run: TaskRun, __: Any) -> bool:
    return run.id in _retried


@task(
    task_run_name="{stage}",
    cache_key_fn=_content_key,
    persist_result=True,
    # The delays before retries are our own: Prefect's sleep would delay a run that is stopped.
    retry_delay_seconds=1,
    retry_condition_fn=_is_retried,
)
def run_stage(stage: str, key: str | None, root: Path, force: bool, upstream: dict[str, Manifest]) -> Any:
    """Runs one DVC stage and returns its entry in dvc.lock; retries some failures (flows/run/stage_failure.py).

    Args:
        stage: its name in dvc.yaml.
        key: the hash of its content, see `DvcRepo.key`; None is never cached.
        root: the repository.
        force: run it even if nothing changed.
        upstream: the manifests of the stages above; they draw the edges in Prefect's UI.
    """
    context = TaskRunContext.get()
    assert context is not None
    run, tried, waits = context.task_run.id, max(1, context.task_run.run_count), delays()
    if run in _retried:
        _retried.discard(run)
        if wait(waits[tried - 2]):
            return Failed(message=Cause.STOPPED.value)
    log_path = root / ".prefect" / "logs" / f"{stage}.log"
    code, lines = _repro(stage, root, force, log_path, "w" if tried == 1 else "a")
    if code != 0:
        failure = examine(stage, code, lines, log_path.relative_to(root), root)
        tries = min(failure.cause.tries, len(waits) + 1)
        if tried < tries:
            _retried.add(run)
            retry = f"{failure.cause.value}; try {tried + 1} of {tries} in {waits[tried - 1]:g} s"
            _log(stage, f"{stage}: {retry}: {failure.message}", logging.WARNING)
            for line in repair(root):
                _log(stage, f"{stage}: {line}", logging.WARNING)
        # A returned state, not an exception: a traceback would hide the stage's own message.
        return Failed(message=failure.message + (f"\n(tried {tried} times)" if tried > 1 else ""))
    manifest = _manifest(root, stage)
    restored = any(_DVC_RESTORED in line for line in lines)
    return Completed(data=manifest, message=RESTORED) if restored else manifest


def _repro(stage: str, root: Path, force: bool, log_path: Path, mode: str) -> tuple[int, list[str]]:
    """`dvc repro -s STAGE`: its exit code, and the lines that it printed."""
    logger = get_run_logger()
    lines: list[str] = []
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(StageProgress(stage, logger))
        log_file: IO[str] | None = None
        with contextlib.suppress(OSError):  # without a log on a full disk: the stage may still succeed
            log_path.parent.mkdir(parents=True, exist_ok=True)
            log_file = stack.enter_context(log_path.open(mode, encoding="utf-8"))

        def on_line(line: str) -> None:
            lines.append(line)
            if log_file is not None:
                with contextlib.suppress(OSError):
                    log_file.write(line + "\n")
                    log_file.flush()
            progress.line(line)
            if line.strip() and not line.startswith(_CHATTER):
                _log(stage, line, logging.INFO)

        command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "-s", stage]
        code = stream(command + ["--force"] * force, cwd=root, env=environment(root), on_line=on_line)
        progress.end(well=code == 0)
    return code, lines


def _log(stage: str, line: str, level: int) -> None:
    get_run_logger().log(level, "%s", line)
    show_line(stage, line)


def mirror(repo: DvcRepo, stage: str, key: str) -> None:
    """Copies a finished stage's entry in dvc.lock to Prefect's cache, unless it is there already.

    A stage that `dvc repro` ran then shows as Cached, and returns the current manifest.
    """
    manifest = read_manifest(repo.root, stage)
    store = cast(ResultStore, get_result_store().update_for_task(run_stage))
    if not (store.exists(key) and store.read(key).result == manifest):
        store.write(manifest, key=key)


def _manifest(root: Path, stage: str) -> Manifest:
    """The stage's entry in dvc.lock. Reading is retried, since another stage that ends may be writing the file."""
    why = f"dvc.lock has no entry for {stage}, which dvc has just run; check dvc.lock"
    for _ in range(100):
        try:
            manifest = read_manifest(root, stage)
        except PipelineError as error:
            manifest, why = None, str(error)
        if manifest is not None:
            return manifest
        time.sleep(0.05)
    raise PipelineError(why)
