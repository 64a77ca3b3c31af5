"""The command `points2model reports`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.console import Console
from flows.processes.login import REPORTS, REPORTS_FILE, of_server
from flows.processes.request_guard import ANY, NAMES
from flows.run.report_address import HOST, PORT, VARIABLE
from tasks.common.errors import TaskError

EXAMPLE = "Example: points2model reports   |   points2model reports --port 8080"


def reports(
    host: Annotated[
        str, typer.Option(help="Where to listen; from other machines all reports need the login.")
    ] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = PORT,
) -> None:
    """Serve this project's reports to a browser, the newest and former ones, until Ctrl-C.

    Prefect's UI links to them. `points2model serve` does this too.
    """
    # Imported this late since DVC takes a second that --help shouldn't.
    from flows.dvc.repo import PipelineError
    from flows.serve.report_server import ReportServer, login_place

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        login, is_new = of_server(Path.cwd(), REPORTS_FILE, REPORTS)
        server = ReportServer(Path.cwd(), login, host, port)
    except (PipelineError, TaskError, OSError) as error:
        told = (
            f"{host}:{port}: {error}; take another with --port" if isinstance(error, OSError) else str(error)
        )
        console.print(f"[red]failed[/] {escape(told)}")
        raise typer.Exit(1) from None
    with server:
        console.print(f"reports: {server.address}   (Ctrl-C ends it)")
        shown = f"shown this once: {login}" if is_new and console.is_terminal else login_place()
        what = "the newest one asks" if server.is_local else "all of them ask"
        console.print(f"{what} for a login: {escape(shown)}")
        if host in ANY:
            console.print(f"by other names than this machine's it is reached where {NAMES} has them")
        if (host, port) != (HOST, PORT):
            base = server.address.rpartition("/")[0]
            console.print(f"links in Prefect's UI lead there where flows run with {VARIABLE}={base}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("ended")
