"""The command `points2model reports`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.console import Console
from flows.report_address import HOST, PORT, VARIABLE

EXAMPLE = "Example: points2model reports   |   points2model reports --port 8080"


def reports(
    host: Annotated[str, typer.Option(help="Where to listen; there is no login.")] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = PORT,
) -> None:
    """Serve this project's reports to a browser, the newest and former ones, until Ctrl-C.

    Prefect's UI links to them. `points2model serve` does this too.
    """
    # Imported this late since DVC takes a second that --help shouldn't.
    from flows.dvc_repo import PipelineError
    from flows.report_server import ReportServer

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        server = ReportServer(Path.cwd(), host, port)
    except (PipelineError, OSError) as error:
        told = (
            f"{host}:{port}: {error}; take another with --port" if isinstance(error, OSError) else str(error)
        )
        console.print(f"[red]failed[/] {escape(told)}")
        raise typer.Exit(1) from None
    with server:
        console.print(f"reports: {server.address}   (Ctrl-C ends it)")
        if (host, port) != (HOST, PORT):
            base = server.address.rpartition("/")[0]
            console.print(f"links in Prefect's UI lead there where flows run with {VARIABLE}={base}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("ended")
