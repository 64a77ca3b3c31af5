"""The flow from annotations to a scored student: dvc.yaml's graph, run by Prefect."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from data.messages import guard_logs
from flows.dvc.damage import remove_damaged
from flows.dvc.fetch import fetch_earlier_run, restore_outputs
from flows.dvc.repo import DvcRepo, StageNode, direct_upstream
from flows.registry.decide import COMPARES, begin_round
from flows.run.artifacts import intake_notes, publish
from flows.run.gpu_limit import GPU_TAG
from flows.run.guard import exclusive_run
from flows.run.intake import take_in_new_points
from flows.run.name import rename_run, run_name
from flows.run.notices import notify_about_state
from flows.run.promotion_task import LAST, promote
from flows.run.push import NAME as PUSH
from flows.run.push import is_pushed, send_results
from flows.run.stage import RESTORED, line_logger, mirror, run_stage
from flows.run.stage_failure import delays
from tasks import code
from tasks.common import installed_tool
from tasks.common.code_identity import ROOT, Sources, identities
from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tasks.common.stage_main import WORKSPACE
from tasks.promotion.checkpoint_start import record_checkpoints


@dataclass(frozen=True)
class StageRun:
    """The result of a stage: its state, `Cached` (nothing to do), `Completed`, `Failed` or `Not run`; a message or "";
    the hashes of its outputs, by path."""

    name: str
    state: str
    seconds: float
    message: str
    outs: dict[str, str]


class StageFailed(Exception):
    """A stage failed. Its text is the stage's own message; `runs` has the results of all stages."""

    def __init__(self, message: str, runs: list[dict[str, Any]]) -> None:
        super().__init__(message, runs)  # both, so that it can be pickled
        self.message, self.runs = message, runs

    def __str__(self) -> str:
        return self.message


# Threads, since each stage runs in a process of its own.
RUNNER = cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=8))


@flow(
    name="annotation_to_model",
    flow_run_name=run_name,
    task_runner=RUNNER,
    persist_result=False,
    on_failure=[notify_about_state],
    on_crashed=[notify_about_state],
    on_cancellation=[notify_about_state],
)
def annotation_to_model(
    target: str = "report", force: tuple[str, ...] = (), reason: str = "by hand", pull: bool = True
) -> Any:
    """Brings stage `target` of dvc.yaml and all stages that it depends on up to date; returns their StageRuns as dicts.

    Runs in the project's folder, one run at a time: a second one waits. Stages that don't depend on each other run in
    parallel. After a failure, running stages finish, and no further one starts.

    Args:
        target: the last stage; only its ancestors run.
        force: stages to run even if nothing changed.
        reason: why it runs, in words: "by hand", "schedule", "12 new points in 3 files".
        pull: fetch missing results of earlier runs from DVC's remote, if one is set.
    """
    guard_logs()
    try:
        with exclusive_run(Path.cwd(), reason):
            return _up_to_date(target, force, reason, pull)
    except TaskError as error:
        return Failed(message=str(error), data=StageFailed(str(error), []))


def _up_to_date(target: str, force: tuple[str, ...], reason: str, pull: bool) -> Any:
    """The body of the flow, while no other run is under way."""
    get_run_logger().info("annotation_to_model: %s", reason)
    if message := _record_upgrade(Path.cwd()):
        line_logger("code")(message)
    _record_checkpoints(Path.cwd())
    repo = DvcRepo(Path.cwd())
    nodes = repo.graph(target)
    restore_outputs(repo, list(nodes), line_logger("fetch"), pull=pull)
    started_stages = StartedStages({}, {})
    intake = take_in_new_points(
        repo, nodes, lambda needed: _run_all(repo, needed, set(force), started_stages)
    )
    if intake.of("taken"):
        reason = str(intake)
        rename_run(reason)
    try:
        if message := begin_round(repo, list(nodes), force):
            get_run_logger().info("%s", message)
    except (TaskError, OSError) as error:
        done = [asdict(run) for run in started_stages.runs.values()]
        return Failed(message=str(error), data=StageFailed(str(error), done))
    runs = _run_all(repo, nodes, set(force), started_stages)
    ended, notes = _end_round(repo, reason, started_stages)
    runs += ended
    if is_pushed(repo.root) and not any(run.state == "Failed" for run in runs):
        runs.append(_push(repo.root))
    failed = "\n".join(f"{run.name}: {run.message}" for run in runs if run.state == "Failed")
    result = [asdict(run) for run in runs]
    publish(repo.root, result, [*intake_notes(intake), *notes])
    return Failed(message=failed, data=StageFailed(failed, result)) if failed else result


def _record_checkpoints(root: Path) -> None:
    """Before DVC compares: the hashes of the checkpoints that trainings start from."""
    try:
        params = load_params(root / "params.yaml")
    except TaskError:  # the stages report its faults
        return
    for line in record_checkpoints(root, params):
        get_run_logger().info("%s", line)


def _record_upgrade(root: Path) -> str | None:
    """In a project apart from the code, records that another version is installed; returns a line on it."""
    found = installed_tool.change(root)
    if found is None:
        return None
    folder, stale = root / WORKSPACE / code.FOLDER, []
    for stage, parts in identities(code.stages(), Sources(ROOT)).items():
        with contextlib.suppress(OSError, ValueError):
            if json.loads((folder / f"{stage}.json").read_text(encoding="utf-8")) != parts:
                stale.append(stage)
    installed_tool.write(root)
    before, now = map(installed_tool.named, found)
    what = f"the code of {', '.join(stale)} differs: they run again" if stale else "no stage's code differs"
    return f"{installed_tool.FILE}: {now} is installed, {before} before: {what}"


def _end_round(repo: DvcRepo, reason: str, started_stages: StartedStages) -> tuple[list[StageRun], list[str]]:
    """Ends the round (see flows/registry/decide.py) if the report is done. A failed promotion is returned as a failed
    stage, any other as a note for the run's summary."""
    report = started_stages.runs.get(LAST)
    if report is None or report.state == "Failed" or COMPARES not in started_stages.runs:
        return [], []
    state = promote(repo.root, reason, started_stages.futures[LAST], return_state=True)
    if state.is_completed():
        return [], [f"Promotion: {state.message}"]
    return [StageRun("promote", "Failed", 0.0, state.message or "", {})], []


def _push(root: Path) -> StageRun:
    started = time.monotonic()
    state = send_results(root, return_state=True)
    name = "Completed" if state.is_completed() else "Failed"
    return StageRun(PUSH, name, round(time.monotonic() - started, 1), state.message or state.name or "", {})


class StartedStages(NamedTuple):
    """The stages that this run has started, and the results of those that have ended, by name."""

    futures: dict[str, PrefectFuture[Any]]
    runs: dict[str, StageRun]


def _run_all(
    repo: DvcRepo, nodes: dict[str, StageNode], force: set[str], started_stages: StartedStages
) -> list[StageRun]:
    """Starts each stage when all stages that it depends on are done, since only then DVC can determine whether it is up
    to date.

    Stages with a result in `started_stages` aren't started again; those that are started here are added to it.
    """
    futures, runs = started_stages
    waiting = {name: node for name, node in nodes.items() if name not in runs}
    done_keys = repo.done_keys([name for name in waiting if name not in force])
    running: dict[PrefectFuture[Any], tuple[str, float]] = {}
    again: set[str] = set()
    failed = any(run.state == "Failed" for run in runs.values())
    while running or (waiting and not failed):
        ready = [] if failed else [n for n in waiting.values() if all(above in runs for above in n.upstream)]
        for node in ready:
            del waiting[node.name]
            upstream = {above: futures[above] for above in direct_upstream(nodes, node)}
            all_cached = all(runs[above].state == "Cached" for above in node.upstream)
            key = done_keys.get(node.name) if all_cached else None
            futures[node.name] = _submit(repo, node, upstream, node.name in force, key)
            running[futures[node.name]] = (node.name, time.monotonic())
        done = next(as_completed(list(running)))
        name, started = running.pop(done)
        done.wait()  # so that the future has its final state without a request to the server
        run = _stage_run(name, done, time.monotonic() - started)
        # Older outputs were checked by `restore_outputs`.
        damaged = run.state == "Completed" and remove_damaged(repo, [name], line_logger(name))
        if damaged and name not in again:
            # DVC restored it from a damaged object, or made it a link to one, which is removed now.
            again.add(name)
            upstream = {above: futures[above] for above in direct_upstream(nodes, nodes[name])}
            futures[name] = _submit(repo, nodes[name], upstream, name in force)
            running[futures[name]] = (name, started)
            continue
        if damaged:
            message = f"{', '.join(damaged)}: damaged again just after it was made; check the disk"
            run = StageRun(name, "Failed", run.seconds, message, {})
        runs[name] = run
        failed = failed or runs[name].state == "Failed"
    return [runs.get(name, StageRun(name, "Not run", 0.0, "", {})) for name in nodes]


def _stage_run(name: str, future: PrefectFuture[Any], seconds: float) -> StageRun:
    state, seconds = future.state, round(seconds, 1)
    if not state.is_completed():
        return StageRun(name, "Failed", seconds, state.message or state.name or "", {})
    restored = state.message if state.message == RESTORED else ""
    return StageRun(name, state.name or "Completed", seconds, restored, future.result()["outs"])


def _submit(
    repo: DvcRepo, node: StageNode, upstream: dict[str, Any], force: bool, done_key: str | None = None
) -> PrefectFuture[Any]:
    """Starts a stage's task; `done_key` is its key if it is known to be up to date."""
    key = done_key or repo.key(node.name)
    done = not force and key is not None and (done_key is not None or repo.is_done(node.name))
    if done and key is not None:
        mirror(repo, node.name, key)
    elif not force:
        fetch_earlier_run(repo, node.name)
    tags = [GPU_TAG] if node.gpu else []
    task = run_stage.with_options(refresh_cache=not done, tags=tags, retries=len(delays()))
    return task.submit(node.name, key, repo.root, force, upstream)
