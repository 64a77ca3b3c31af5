"""The command line: `points2model run`, `demo`, `split`; commands on single models are in model_commands.py."""

from __future__ import annotations

import difflib
import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, cast

import typer
from rich.markup import escape
from rich.table import Table

from data import strict_yaml
from data.messages import guard_logs, plain
from data.storage import is_s3
from flows.cli import evaluate, experiments, export, models, operate, points, registry, remote, reports, use
from flows.cli.console import Console, print_json
from flows.cli.doctor import EXAMPLE as DOCTOR_EXAMPLE
from flows.cli.doctor import before_run, doctor
from flows.cli.output import guard
from flows.cli.split import EXAMPLE, split
from flows.processes.run_lock import RunLockError, held
from tasks.common import disk
from tasks.common.config import load_params
from tasks.common.errors import TaskError
from tasks.doctor.setup import is_made

METRICS = Path("workspace/evaluation/metrics.json")
REPORT = Path("workspace/report.html")

app = typer.Typer(
    name="points2model",
    help="Point labels in, a trained instance-segmentation model out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

TargetOption = Annotated[str, typer.Option(help="The last stage to bring up to date; a name in dvc.yaml.")]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait where another run is under way here, instead of being refused.")
]
ForceOption = Annotated[
    list[str] | None,
    typer.Option(metavar="STAGE", help="Run this stage even if nothing changed. May be repeated."),
]
PullOption = Annotated[
    bool,
    typer.Option(
        "--pull/--no-pull", help="Fetch what was computed elsewhere from DVC's remote, where one is set."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout; progress goes to stderr.")
]


@dataclass(frozen=True)
class Outcome:
    """What a flow run came to."""

    stages: list[dict[str, Any]]
    seconds: float
    error: str | None


@app.callback()
def _begin() -> None:
    """Point labels in, a trained instance-segmentation model out."""
    guard_logs()


def main() -> None:
    """The command `points2model`. Where its output is lost, or a disk is full, it ends with code 1 and a message."""
    output = guard()
    code: Any = 1
    try:
        Path.cwd()
        app()
    except SystemExit as ended:
        code = ended.code
    except Exception as error:
        told = disk.explain(error, Path("workspace")) or _lost_folder(error)
        if told is None:
            raise
        print(plain(f"failed {told}"), file=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a reader that is gone by now interrupts nothing more
    output.flush()
    sys.exit(1 if output.lost is not None else code)


def _lost_folder(error: Exception) -> str | None:
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the current folder is gone: somebody removed or replaced it; cd to the project's folder"
    return None


@app.command(
    epilog="Example: points2model run   |   points2model run --target train_teacher   |   ... --json"
)
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
    _run(target, tuple(force or ()), wait, pull, as_json)


@app.command(epilog="Example: points2model demo   |   points2model demo --json")
def demo(wait: WaitOption = False, as_json: JsonOption = False) -> None:
    """Run the whole line on the embedded demo data set; nothing is downloaded."""
    console = Console(stderr=True)
    try:
        params = load_params()
    except TaskError as error:
        _fail(console, str(error))
    named = (params.ingest.images, params.points.files)
    if not all(name.startswith("workspace/demo/") for name in named):
        _fail(
            console,
            "params.yaml names data of your own "
            f"(ingest.images: {named[0]}, points.files: {named[1]}), expected paths in workspace/demo; "
            "use `points2model run`, or run the demo in a fresh clone",
        )
    _run("report", (), wait, True, as_json)


app.command(epilog=DOCTOR_EXAMPLE)(doctor)
app.command(epilog=EXAMPLE)(split)


def _run(target: str, force: tuple[str, ...], wait: bool, pull: bool, as_json: bool) -> None:
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    root = Path.cwd()
    if not (root / "dvc.yaml").is_file():
        _fail(console, f"{root}: no dvc.yaml here; cd to the project's folder")
    _check_target(root, target, console)  # before minutes are spent on looking at data
    try:
        with held(root, "by hand", wait=wait, say=lambda line: console.print(escape(line))):
            _run_alone(root, target, force, pull, as_json, console)
    except RunLockError as error:
        _fail(console, str(error))
    except KeyboardInterrupt:
        console.print("stopped; `points2model run` goes on from here")
        raise typer.Exit(130) from None


def _run_alone(
    root: Path, target: str, force: tuple[str, ...], pull: bool, as_json: bool, console: Console
) -> None:
    if not force:
        from flows.run.nothing_to_do import done_stages

        started = time.monotonic()
        done = done_stages(root, target, lambda line: console.print(escape(line)))
        if done is not None:
            _finish(Outcome(done, round(time.monotonic() - started, 1), None), target, as_json, console)
            return
    # A pipeline without our ingest has params of its own, of which nothing is known here.
    if "tasks.ingest" in (root / "dvc.yaml").read_text(encoding="utf-8"):
        _fetch_data(root, target, pull, console)
        diagnosis = before_run(root, target, console)
        if diagnosis.errors:
            message = "nothing was run; mend what is said above, then look with `points2model doctor`"
            if as_json:
                outcome = Outcome([], 0.0, message)
                print_json({**_summary(outcome, target), "doctor": diagnosis.to_json()})
            _fail(console, message)
    _finish(_flow(root, target, force, pull, console), target, as_json, console)


def _finish(outcome: Outcome, target: str, as_json: bool, console: Console) -> None:
    if as_json:
        print_json(_summary(outcome, target))
    else:
        _show(outcome, target, console)
    if outcome.error is not None:
        _fail(console, outcome.error)


def _fetch_data(root: Path, target: str, pull: bool, console: Console) -> None:
    """The user's data that DVC keeps (`dvc add`) and that this checkout lacks: the doctor is to see them."""
    try:
        params = load_params(root / "params.yaml")
    except TaskError:
        return  # the doctor tells it
    named = (params.ingest.images, params.ingest.annotations, params.points.files)
    if all(is_made(name) or is_s3(name) or (root / name).exists() for name in named):
        return
    from flows.dvc.fetch import bring_back
    from flows.dvc.objects import DamageError
    from flows.dvc.remote_config import RemoteError
    from flows.dvc.repo import DvcRepo, PipelineError

    try:
        repo = DvcRepo(root)
        bring_back(repo, list(repo.graph(target)), lambda line: console.print(escape(line)), pull=pull)
    except (DamageError, RemoteError) as error:
        _fail(console, str(error))
    except PipelineError:
        return  # the doctor or DVC tells it


def _check_target(root: Path, target: str, console: Console) -> None:
    try:
        stages = strict_yaml.read(root / "dvc.yaml")["stages"]
    except (OSError, strict_yaml.YamlError, KeyError, TypeError):
        return  # DVC tells it better
    if target.split("@", maxsplit=1)[0] not in stages:
        meant = difflib.get_close_matches(target.replace("-", "_"), stages, n=1)
        hint = f" (did you mean {meant[0]}?)" if meant else ""
        _fail(console, f"dvc.yaml: no stage {target!r}{hint}; the stages are {', '.join(sorted(stages))}")


def _flow(root: Path, target: str, force: tuple[str, ...], pull: bool, console: Console) -> Outcome:
    """Runs the flow in this process, with each stage's lines on the console."""
    from flows.processes.prefect_local import use_local_prefect

    try:
        use_local_prefect(root)
    except TaskError as error:
        _fail(console, str(error))
    # Imported this late since Prefect reads its settings once, and takes a second that --help shouldn't.
    from flows.processes.temporary_server import server_if_none

    server = server_if_none(root)
    from prefect.client.schemas.objects import State
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.dvc.repo import DvcRepo, PipelineError
    from flows.run.pipeline import StageFailed, annotation_to_model
    from flows.run.server import lets_us_in, no_answer
    from flows.run.stage import watch

    started = time.monotonic()
    try:
        unknown = sorted(set(force) - set(DvcRepo(root).graph(target)))
    except PipelineError as error:
        _fail(console, str(error))
    if unknown:
        _fail(console, f"--force {unknown[0]}: no such stage at or above {target!r}")
    watch(lambda stage, line: console.print(f"[dim]{stage:>14} |[/dim] {escape(_without_name(stage, line))}"))
    try:
        if server is not None:
            server.wait()
        elif not lets_us_in():
            raise no_answer()
    except TaskError as error:
        _fail(console, str(error))
    _stop_children_on_signals(console)
    # A heartbeat serves flows that a server watches over; here its thread would only delay the end.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        state = cast(
            State[Any], annotation_to_model(target=target, force=force, pull=pull, return_state=True)
        )
    seconds = round(time.monotonic() - started, 1)
    if state.is_completed():
        return Outcome(state.result(), seconds, None)
    failure = state.result(raise_on_failure=False)
    stages = failure.runs if isinstance(failure, StageFailed) else []
    return Outcome(stages, seconds, state.message or "the flow failed")


def _without_name(stage: str, line: str) -> str:
    return line.removeprefix(f"{stage}: ")


def _stop_children_on_signals(console: Console) -> None:
    """Ctrl-C and `kill` end the running stages first: they live in process groups of their own."""
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
    return {
        "target": target,
        "state": "Failed" if outcome.error is not None else "Completed",
        "seconds": outcome.seconds,
        "stages": outcome.stages,
        "error": outcome.error,
        "metrics": _read_metrics() if done else None,
        "promotion": _read_promotion() if done else None,
        "report": str(REPORT) if done and REPORT.is_file() else None,
    }


def _show(outcome: Outcome, target: str, console: Console) -> None:
    colours = {"Cached": "bright_blue", "Completed": "green", "Failed": "red"}
    table = Table(title="stages", title_justify="left")
    for column, justify in (("stage", "left"), ("state", "left"), ("seconds", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    notes = [stage["message"] if stage["state"] == "Completed" else "" for stage in outcome.stages]
    if any(notes):
        table.add_column()
    for stage, note in zip(outcome.stages, notes, strict=True):
        colour = colours.get(stage["state"], "dim")
        row = [escape(stage["name"]), f"[{colour}]{stage['state']}[/]", f"{stage['seconds']:.1f}"]
        table.add_row(*row, *([escape(note)] if any(notes) else []))
    console.print()
    console.print(table)
    if outcome.error is not None:
        return
    metrics = _read_metrics()
    if target == "report" and metrics is not None:
        from tasks.reporting.figures import summary_table

        console.print(summary_table(metrics))
        _show_promotion(console)
        console.print(f"report: {REPORT}   ({outcome.seconds:.0f} s)")


def _show_promotion(console: Console) -> None:
    from flows.registry.current import standing

    try:
        console.print(escape(standing(Path.cwd())))
    except TaskError as error:  # what was made is there all the same
        console.print(f"[yellow]note[/] {escape(str(error))}")


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


def _fail(console: Console, message: str) -> None:
    console.print(f"[red]failed[/] {escape(message)}")
    raise typer.Exit(1)


app.command("import-checkpoint", epilog=models.IMPORT_EXAMPLE)(models.import_checkpoint)
app.command("import-points", epilog=points.EXAMPLE)(points.import_points)
app.command("models", epilog=registry.MODELS_EXAMPLE)(registry.models)
app.command("promote", epilog=registry.PROMOTE_EXAMPLE)(registry.promote)
app.command("rollback", epilog=registry.ROLLBACK_EXAMPLE)(registry.rollback)
app.command("predict", epilog=models.PREDICT_EXAMPLE)(models.predict)
app.command("evaluate", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command("experiments", epilog=experiments.EXAMPLE)(experiments.experiments)
app.command("use", epilog=use.EXAMPLE)(use.use)
app.command("remote", epilog=remote.EXAMPLE)(remote.remote)
app.command("reports", epilog=reports.EXAMPLE)(reports.reports)
app.command("push", epilog=remote.PUSH_EXAMPLE)(remote.push)
app.command("export", epilog=export.EXAMPLE)(export.export)
app.command("serve", epilog=operate.SERVE_EXAMPLE)(operate.serve)
app.command("watch", epilog=operate.WATCH_EXAMPLE)(operate.watch)


if __name__ == "__main__":
    main()
