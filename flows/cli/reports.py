"""The command `points2model reports`: serves reports to a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import Console
from flows.run.report_address import HOST, PORT, VARIABLE
from tasks.common.errors import TaskError

EXAMPLE = "Example: points2model reports   |   points2model reports --port 8080"


def reports(
    host: Annotated[
        str, typer.Option(help="The address to listen on; from other machines all reports need the login.")
    ] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = PORT,
) -> None:
    """Serve this project's reports to a browser, the newest and earlier ones, until Ctrl-C.

    Prefect's UI links to them. `points2model serve` does this too.
    """
    from flows.processes.login import REPORTS, REPORTS_FILE, of_server
    from flows.processes.request_guard import ANY, NAMES
    from flows.serve.report_server import ReportServer, login_place

    console = Console(stderr=True, soft_wrap=True)
    login, is_new = of_server(Path.cwd(), REPORTS_FILE, REPORTS)
    try:
        server = ReportServer(Path.cwd(), login, host, port)
    except OSError as error:
        raise TaskError(f"{host}:{port}: {error}; choose another with --port") from None
    with server:
        console.print(f"reports: {server.address}   (Ctrl-C ends it)")
        shown = f"shown this once: {login}" if is_new and console.is_terminal else login_place()
        console.text(f"{'the newest one needs' if server.is_local else 'all need'} a login: {shown}")
        if host in ANY:
            console.print(f"other host names than this machine's must be listed in {NAMES}")
        if (host, port) != (HOST, PORT):
            base = server.address.rpartition("/")[0]
            console.print(f"set {VARIABLE}={base} where flows run, so that links in Prefect's UI lead here")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("ended")
