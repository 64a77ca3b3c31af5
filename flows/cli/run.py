"""The commands `points2model run` and `points2model demo`."""

from __future__ import annotations

import difflib
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape

from flows.cli.console import Console, JsonOption, check_project, command_console, print_json
from tasks.common.errors import TaskError

if TYPE_CHECKING:
    from tasks.common.config import Params

EXAMPLE = "Example: points2model run   |   points2model run --target train_teacher   |   ... --json"
DEMO_EXAMPLE = "Example: points2model demo   |   points2model demo --json"
METRICS = Path("workspace/evaluation/metrics.json")
REPORT = Path("workspace/report.html")
COLOURS = {"Cached": "bright_blue", "Completed": "green", "Failed": "red"}

TargetOption = Annotated[str, typer.Option(help="The last stage to bring up to date; a name in dvc.yaml.")]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait while another run is under way here; without it, fail.")
]
ForceOption = Annotated[
    list[str] | None,
    typer.Option(metavar="STAGE", help="Run this stage even if nothing changed. May be repeated."),
]
PullOption = Annotated[
    bool,
    typer.Option(
        "--pull/--no-pull", help="Fetch what was computed elsewhere from DVC's remote, if one is set."
    ),
]


@dataclass(frozen=True)
class Request:
    """What a run is to bring up to date, and where."""

    root: Path
    target: str
    force: tuple[str, ...]
    pull: bool


@dataclass(frozen=True)
class Outcome:
    """The result of a run: its stages as dicts of StageRun, how long it took, why it failed, and the findings of the
    checks before it if they are why."""

    stages: list[dict[str, Any]]
    seconds: float
    error: str | None = None
    diagnosis: dict[str, Any] | None = None


def run(
    target: TargetOption = "report",
    force: ForceOption = None,
    wait: WaitOption = False,
    pull: PullOption = True,
    as_json: JsonOption = False,
) -> None:
    """Bring the pipeline up to date: run what changed in data, params.yaml or code, and nothing else.

    The data are those that params.yaml names in `ingest` and `points`.
    """
    _run(Request(Path.cwd(), target, tuple(force or ()), pull), wait, as_json)


def demo(wait: WaitOption = False, as_json: JsonOption = False) -> None:
    """Run the whole pipeline on the embedded demo data set; nothing is downloaded."""
    from tasks.common.config import load_params

    images, _, files = _data_paths(load_params())
    if not all(name.startswith("workspace/demo/") for name in (images, files)):
        raise TaskError(
            "params.yaml names data of your own "
            f"(ingest.images: {images}, points.files: {files}), expected paths in workspace/demo; "
            "use `points2model run`, or run the demo in a fresh clone"
        )
    _run(Request(Path.cwd(), "report", (), True), wait, as_json)


def _data_paths(params: Params) -> tuple[str, str, str]:
    return params.ingest.images, params.ingest.annotations, params.points.files


def _run(request: Request, wait: bool, as_json: bool) -> None:
    from flows.processes.run_lock import held

    console, root = command_console(as_json), request.root
    check_project(root)
    _check_target(root, request.target)  # before the data are checked, which may take minutes
    try:
        with held(root, "by hand", wait=wait, say=console.text):
            outcome = _outcome(request, console)
            if as_json:
                print_json(_summary(outcome, request.target))
            else:
                _show(outcome, request.target, console)
    except KeyboardInterrupt:
        console.print("stopped; `points2model run` goes on from here")
        raise typer.Exit(130) from None
    if outcome.error is not None:
        raise TaskError(outcome.error)


def _check_target(root: Path, target: str) -> None:
    from data import strict_yaml

    try:
        stages = strict_yaml.read(root / "dvc.yaml")["stages"]
    except (OSError, strict_yaml.YamlError, KeyError, TypeError):
        return  # DVC's message is better
    if target.split("@", maxsplit=1)[0] not in stages:
        meant = difflib.get_close_matches(target.replace("-", "_"), stages, n=1)
        hint = f" (did you mean {meant[0]}?)" if meant else ""
        raise TaskError(f"dvc.yaml: no stage {target!r}{hint}; the stages are {', '.join(sorted(stages))}")


def _outcome(request: Request, console: Console) -> Outcome:
    """Runs what there is to run; the caller holds the run lock."""
    root, target = request.root, request.target
    if not request.force and (root / "dvc.lock").is_file():
        from flows.run.nothing_to_do import done_stages

        started = time.monotonic()
        done = done_stages(root, target, console.text)
        if done is not None:
            return Outcome(done, round(time.monotonic() - started, 1))
    # A pipeline without our ingest has params of its own, which can't be checked here.
    if "tasks.ingest" in (root / "dvc.yaml").read_text(encoding="utf-8"):
        from flows.cli.doctor import before_run

        _fetch_data(request, console)
        diagnosis = before_run(root, target, console)
        if diagnosis.errors:
            message = "nothing was run; fix the errors above, then check with `points2model doctor`"
            return Outcome([], 0.0, message, diagnosis.to_json())
    return _flow(request, console)


def _fetch_data(request: Request, console: Console) -> None:
    """Fetches the user's data that DVC keeps (`dvc add`) and that this checkout lacks, so that they can be checked."""
    from data.storage import is_s3
    from tasks.common.config import load_params
    from tasks.doctor.setup import is_made

    root = request.root
    try:
        names = _data_paths(load_params(root / "params.yaml"))
    except TaskError:
        return  # the doctor reports it
    if all(is_made(name) or is_s3(name) or (root / name).exists() for name in names):
        return
    from flows.dvc.fetch import restore_outputs
    from flows.dvc.objects import DamageError
    from flows.dvc.repo import DvcRepo, PipelineError

    try:
        repo = DvcRepo(root)
        restore_outputs(repo, list(repo.graph(request.target)), console.text, pull=request.pull)
    except DamageError:
        raise
    except PipelineError:
        return  # the doctor or DVC reports it


def _check_forced(request: Request) -> None:
    if not request.force:
        return
    from flows.dvc.repo import DvcRepo

    unknown = sorted(set(request.force) - set(DvcRepo(request.root).graph(request.target)))
    if unknown:
        raise TaskError(f"--force {unknown[0]}: no such stage at or above {request.target!r}")


def _flow(request: Request, console: Console) -> Outcome:
    """Runs the flow in this process, with each stage's lines on the console."""
    _check_forced(request)  # before Prefect, which takes seconds
    from flows.processes.prefect_local import use_local_prefect

    use_local_prefect(request.root)  # before Prefect is imported, which reads its settings then
    from flows.processes.temporary_server import server_if_none

    server = server_if_none(request.root)  # it starts while Prefect is imported here
    from prefect.client.schemas.objects import State
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.run.pipeline import StageFailed, annotation_to_model
    from flows.run.server import check_server
    from flows.run.stage import show_lines

    started = time.monotonic()
    show_lines(
        lambda stage, line: console.print(
            f"[dim]{stage:>14} |[/dim] {escape(line.removeprefix(f'{stage}: '))}"
        )
    )
    if server is not None:
        server.wait()
    else:
        check_server()
    _stop_children_on_signals(console)
    # A heartbeat is of use if a server supervises flows; here its thread would only delay the end.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        ended = annotation_to_model(
            target=request.target, force=request.force, pull=request.pull, return_state=True
        )
    state, seconds = cast(State[Any], ended), round(time.monotonic() - started, 1)
    if state.is_completed():
        return Outcome(state.result(), seconds)
    failure = state.result(raise_on_failure=False)
    stages = failure.runs if isinstance(failure, StageFailed) else []
    return Outcome(stages, seconds, state.message or "the flow failed")


def _stop_children_on_signals(console: Console) -> None:
    """Ctrl-C and `kill` end the running stages first, which are in process groups of their own."""
    from flows.processes.children import stop_all
    from flows.run.notices import mute

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not cut this short
        mute()
        console.print("stopping the running stages ...")
        stop_all()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _summary(outcome: Outcome, target: str) -> dict[str, Any]:
    done = outcome.error is None and target == "report"
    summary = {
        "target": target,
        "state": "Failed" if outcome.error is not None else "Completed",
        "seconds": outcome.seconds,
        "stages": outcome.stages,
        "error": outcome.error,
        "metrics": _read_metrics() if done else None,
        "promotion": _read_promotion() if done else None,
        "report": str(REPORT) if done and REPORT.is_file() else None,
    }
    return summary if outcome.diagnosis is None else {**summary, "doctor": outcome.diagnosis}


def _read_promotion() -> dict[str, Any] | None:
    from flows.registry.current import standing_of

    try:
        return standing_of(Path.cwd())
    except TaskError as error:
        return {"error": str(error)}


def _read_metrics() -> dict[str, Any] | None:
    if not METRICS.is_file():
        return None
    metrics: dict[str, Any] = json.loads(METRICS.read_text(encoding="utf-8"))
    return metrics


def _show(outcome: Outcome, target: str, console: Console) -> None:
    from rich.table import Table

    if not outcome.stages:
        return
    table = Table(title="stages", title_justify="left")
    table.add_column("stage")
    table.add_column("state")
    table.add_column("seconds", justify="right")
    notes = [stage["message"] if stage["state"] == "Completed" else "" for stage in outcome.stages]
    if any(notes):
        table.add_column()
    for stage, note in zip(outcome.stages, notes, strict=True):
        colour = COLOURS.get(stage["state"], "dim")
        row = [escape(stage["name"]), f"[{colour}]{stage['state']}[/]", f"{stage['seconds']:.1f}"]
        table.add_row(*row, *([escape(note)] if any(notes) else []))
    console.print()
    console.print(table)
    metrics = _read_metrics()
    if outcome.error is None and target == "report" and metrics is not None:
        _show_results(metrics, console)
        console.print(f"report: {REPORT}   ({outcome.seconds:.0f} s)")


def _show_results(metrics: dict[str, Any], console: Console) -> None:
    from flows.registry.current import standing
    from tasks.reporting.figures import summary_table

    console.print(summary_table(metrics))
    try:
        console.text(standing(Path.cwd()))
    except TaskError as error:  # the results are there all the same
        console.note(str(error))
