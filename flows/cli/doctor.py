"""The command `points2model doctor`, and the look that `points2model run` takes first."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from data.errors import SHOWN_FAULTS, Fault
from data.messages import guard_logs, plain
from flows.cli.console import Console, print_json
from flows.cli.doctor_outputs import check_outputs
from flows.cli.doctor_remote import check_remote
from flows.run.stage_failure import DELAYS, delays
from tasks.common.errors import TaskError
from tasks.doctor.doctor import full_check, quick_check
from tasks.doctor.finding import Diagnosis, Finding
from tasks.doctor.setup import awaits_points, check_params, is_made
from tasks.reporting.figures import count

EXAMPLE = "Example: points2model doctor   |   points2model doctor --quick   |   points2model doctor --json"
WORKSPACE = Path("workspace")
LOOKS_NOT_AT_DATA = ("make_demo", "ingest", "import_points")
"""Targets that train nothing: their own steps tell what is wrong with the data."""

PASSING = ("disk", "memory", "temporary", "locked", "remote")
"""Warnings about this moment, which are told each time."""


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Only what takes no time: params, paths, weights, device, disk.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Look at all data anew, even if no file changed since.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Check params, data and machine before anything is trained; nothing of the pipeline's is written.

    Errors would end a run, and end this with code 1. Warnings are doubts about the data or the settings: images of val
    that are trained on, objects too small for the input, classes without masks, too little disk or memory.
    """
    console = Console(stderr=as_json, highlight=False, soft_wrap=not sys.stdout.isatty())
    started = time.monotonic()
    _log_progress()
    if quick:
        diagnosis, params = quick_check(Path(), WORKSPACE)
    else:
        diagnosis = full_check(Path(), WORKSPACE, again=again).diagnosis
        params = check_params(Path("params.yaml"), Diagnosis())
        check_outputs(Path(), diagnosis)
    _check_tries(diagnosis)
    check_remote(Path(), params, diagnosis)
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        print_json({**diagnosis.to_json(), "seconds": seconds})
    else:
        show(diagnosis, console)
        for note in diagnosis.notes:
            console.print(f"[dim]{escape(note)}[/dim]")
        console.print(_verdict(diagnosis))
    raise typer.Exit(diagnosis.exit_code)


def before_run(root: Path, target: str, console: Console) -> Diagnosis:
    """What `run` looks at before DVC starts, printed; with errors it must not go on.

    The set-up always. The user's own data where anything is trained, and only if a file of them changed since the last
    look; what the demo stage draws, its own steps check. Warnings are printed when they are new.
    """
    diagnosis, params = quick_check(root, WORKSPACE)
    own = params is not None and not all(map(is_made, (params.ingest.images, params.points.files)))
    own = own and not (params is not None and awaits_points(params, root))
    fresh = True
    _check_tries(diagnosis)
    check_remote(root, params, diagnosis)
    remote = [one for one in diagnosis.warnings if one.check == "remote"]
    if not diagnosis.errors and own and target not in LOOKS_NOT_AT_DATA:
        examined = full_check(root, WORKSPACE)
        diagnosis, fresh = examined.diagnosis, examined.fresh
        diagnosis.warnings += remote
    if fresh:
        show(diagnosis, console)
        return diagnosis
    passing = [one for one in diagnosis.warnings if one.check in PASSING]
    show(Diagnosis(diagnosis.errors, passing), console)
    if known := len(diagnosis.warnings) - len(passing):
        warnings = count(known, "warning")
        console.print(f"[dim]doctor: {warnings} as before; `points2model doctor` shows them[/dim]")
    return diagnosis


def _check_tries(diagnosis: Diagnosis) -> None:
    try:
        delays()
    except TaskError as error:
        step = "correct it, or unset it"
        diagnosis.error(
            "environment", Fault("environment", DELAYS, str(error), "seconds with commas between", step)
        )


def show(diagnosis: Diagnosis, console: Console) -> None:
    """The findings: a table on a terminal, else a line each."""
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
            examples = f" Such as: {'; '.join(map(plain, finding.examples))}." if finding.examples else ""
            console.print(f"[{colour}]{word}[/] {escape(str(finding.fault) + examples)}")
    if hidden:
        console.print(f"and {count(hidden, 'error')} more; `points2model doctor --json` lists all")


def _cells(finding: Finding) -> tuple[str, str, str]:
    fault = finding.fault
    what = [f"found {fault.found}", f"expected {fault.expected}", *finding.examples]
    return f"{plain(fault.file)}\n{plain(fault.record)}", "\n".join(map(plain, what)), plain(fault.next_step)


def _verdict(diagnosis: Diagnosis) -> str:
    errors, warnings = len(diagnosis.errors), len(diagnosis.warnings)
    if errors:
        return f"[red]failed[/] {count(errors, 'error')}, {count(warnings, 'warning')}"
    if warnings:
        return f"[yellow]no errors[/], {count(warnings, 'warning')}"
    return "[green]nothing to mend[/]"


def _log_progress() -> None:
    """Progress of long checks goes to stderr; on a terminal as a bar."""
    guard_logs()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "dvc"):
        logging.getLogger(name).setLevel(logging.WARNING)
