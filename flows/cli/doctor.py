"""The command `points2model doctor`, and the checks that `points2model run` makes first."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from data.errors import SHOWN_FAULTS, Fault
from data.messages import plain
from flows.cli.console import Console, JsonOption, log_progress, print_json
from tasks.common.errors import TaskError

if TYPE_CHECKING:
    from tasks.common.config import Params
    from tasks.doctor.finding import Diagnosis, Finding

EXAMPLE = "Example: points2model doctor   |   points2model doctor --quick   |   points2model doctor --json"
WORKSPACE = Path("workspace")
CHECK_THEIR_DATA = ("make_demo", "ingest", "import_points")
"""Targets that train nothing: their own stages check the data."""
MOMENTARY = ("disk", "memory", "temporary", "locked", "remote")
"""Warnings about the state of the machine, which are shown every time."""
REMOTE_SECONDS = 30.0


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Only what takes no time: params, paths, weights, device, disk.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Check all data again, even if no file has changed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check params, data and machine before anything is trained; nothing of the pipeline's is written.

    Errors would end a run, and end this command with code 1. Warnings are doubts about data or settings: val images
    that are trained on, objects too small for the input, classes without masks, too little disk or memory.
    """
    from tasks.doctor.doctor import full_check, quick_check
    from tasks.doctor.finding import Diagnosis
    from tasks.doctor.setup import check_params
    from tasks.reporting.figures import count

    console = Console(stderr=as_json, soft_wrap=not sys.stdout.isatty())
    started = time.monotonic()
    log_progress()
    if quick:
        diagnosis, params = quick_check(Path(), WORKSPACE)
    else:
        diagnosis = full_check(Path(), WORKSPACE, again=again).diagnosis
        params = check_params(Path("params.yaml"), Diagnosis())
        check_outputs(Path(), diagnosis)
    _check_retries(diagnosis)
    check_remote(Path(), params, diagnosis)
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        print_json({**diagnosis.to_json(), "seconds": seconds})
    else:
        show(diagnosis, console)
        for note in diagnosis.notes:
            console.print(f"[dim]{escape(note)}[/dim]")
        errors, warnings = len(diagnosis.errors), len(diagnosis.warnings)
        if errors:
            console.print(f"[red]failed[/] {count(errors, 'error')}, {count(warnings, 'warning')}")
        elif warnings:
            console.print(f"[yellow]no errors[/], {count(warnings, 'warning')}")
        else:
            console.print("[green]no errors, no warnings[/]")
    raise typer.Exit(diagnosis.exit_code)


def before_run(root: Path, target: str, console: Console) -> Diagnosis:
    """The checks of `run` before DVC starts, printed; with errors the run must not go on.

    The set-up is always checked. The user's own data are checked where anything is trained, if one of their files
    has changed since the last check; the demo's data are not. Warnings are printed when they are new.
    """
    from tasks.doctor.doctor import full_check, quick_check
    from tasks.doctor.finding import Diagnosis
    from tasks.doctor.setup import awaits_points, is_made
    from tasks.reporting.figures import count

    diagnosis, params = quick_check(root, WORKSPACE)
    fresh = True
    _check_retries(diagnosis)
    check_remote(root, params, diagnosis)
    remote = [one for one in diagnosis.warnings if one.check == "remote"]
    has_own_data = (
        params is not None
        and not all(map(is_made, (params.ingest.images, params.points.files)))
        and not awaits_points(params, root)
    )
    if not diagnosis.errors and has_own_data and target not in CHECK_THEIR_DATA:
        examined = full_check(root, WORKSPACE)
        diagnosis, fresh = examined.diagnosis, examined.fresh
        diagnosis.warnings += remote
    if fresh:
        show(diagnosis, console)
        return diagnosis
    momentary = [one for one in diagnosis.warnings if one.check in MOMENTARY]
    show(Diagnosis(diagnosis.errors, momentary), console)
    if known := len(diagnosis.warnings) - len(momentary):
        warnings = count(known, "warning")
        console.print(f"[dim]doctor: {warnings} as before; `points2model doctor` shows them[/dim]")
    return diagnosis


def check_outputs(root: Path, diagnosis: Diagnosis) -> None:
    """Warns of outputs in the workspace that aren't what dvc.lock says, and that DVC believes whole.

    A run replaces them, `dvc repro` by hand uses them. Reads only what has changed since it was last found whole.
    """
    if not (root / "dvc.lock").is_file() or not (root / ".dvc/config").is_file():
        return
    from flows.dvc.damage import damaged_outputs
    from flows.dvc.objects import DamageError
    from flows.dvc.repo import DvcRepo, PipelineError

    try:
        repo = DvcRepo(root.resolve())
        found = damaged_outputs(repo, repo.stages())
    except DamageError as error:
        where, _, rest = str(error).partition(": ")
        why = rest.partition(", so that")[0]
        step = "check the disk and the rights, or remove it; then `points2model run`"
        diagnosis.warn("outputs", Fault(where, "output", f"a file that {why}", "one that can be read", step))
        return
    except PipelineError:
        return  # other checks, or the run, report it
    for text in found:
        where, _, fault = text.partition(" is damaged: ")
        step = "`points2model run` fetches it, or makes it again"
        diagnosis.warn("outputs", Fault(where, "output", f"damaged: {fault}", "the bytes of that hash", step))


def check_remote(root: Path, params: Params | None, diagnosis: Diagnosis) -> None:
    """Tests the default remote by a real write, if runs push to it (`operate.push`).

    What would fail the push is an error; a server that doesn't respond now may do so when the run ends: a warning.
    """
    if params is None or not params.operate.push or not (root / ".dvc" / "config").is_file():
        return
    from flows.dvc.probe import probe
    from flows.dvc.remote_config import RemoteError, default_remote

    try:
        remote = default_remote(root)
    except RemoteError as error:
        step = "fix that file"
        diagnosis.error("remote", Fault(".dvc", "remote", str(error), "DVC's configuration", step))
        return
    if remote is None:
        step = "run `points2model remote URL`, or set operate.push to false"
        found = "true, and no default remote is set"
        diagnosis.error("remote", Fault("params.yaml", "operate.push", found, "a remote to push to", step))
        return
    result = probe(root, remote.name, None, REMOTE_SECONDS)
    if result.error is None:
        return
    where = remote.files.get("url", ".dvc/config")
    step = "fix that, or set another address with `points2model remote URL --replace`"
    fault = Fault(
        where, f"remote {remote.name}", f"{remote.url} {result.error}", "one that can be written", step
    )
    if result.passing:
        diagnosis.warn("remote", fault)
    else:
        diagnosis.error("remote", fault)


def _check_retries(diagnosis: Diagnosis) -> None:
    from flows.run.stage_failure import DELAYS, delays

    try:
        delays()
    except TaskError as error:
        step = "correct it, or unset it"
        diagnosis.error(
            "environment", Fault("environment", DELAYS, str(error), "seconds with commas between", step)
        )


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Prints the findings: a table on a terminal, else a line each."""
    from rich.table import Table

    from tasks.reporting.figures import count

    rows = [("error", "red", one) for one in diagnosis.errors[:SHOWN_FAULTS]]
    hidden = len(diagnosis.errors) - len(rows)
    rows += [("warning", "yellow", one) for one in diagnosis.warnings]
    if not rows:
        return
    if console.is_terminal:
        table = Table(show_lines=True)
        for column in ("", "where", "what", "next"):
            table.add_column(column, overflow="fold")
        for word, colour, finding in rows:
            where, what, step = (escape(text) for text in _cells(finding))
            table.add_row(f"[{colour}]{word}[/]", where, what, step)
        console.print(table, soft_wrap=False)
    else:
        for word, colour, finding in rows:
            console.print(f"[{colour}]{word}[/] {escape(str(finding))}")
    if hidden:
        console.print(f"and {count(hidden, 'error')} more; `points2model doctor --json` lists all")


def _cells(finding: Finding) -> tuple[str, str, str]:
    fault = finding.fault
    what = [f"found {fault.found}", f"expected {fault.expected}", *finding.examples]
    return f"{plain(fault.file)}\n{plain(fault.record)}", "\n".join(map(plain, what)), plain(fault.next_step)
