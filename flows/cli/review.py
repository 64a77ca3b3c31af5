"""The command `points2model review`: the page on which a person looks at pseudo masks and decides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import Console
from tasks.common.errors import TaskError

EXAMPLE = "Example: points2model review   |   points2model review --reviewer anna --port 4245 --no-open"


def review(
    reviewer: Annotated[
        str | None,
        typer.Option(help="Whose decisions they are, and the name of their file; by default the user's."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 4244,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Look at pseudo masks, the worst first, and accept, reject or change them, on a page of this machine.

    Each decision is saved at once, in the folder of review.decisions; the next run honours it. Ctrl-C ends it.
    """
    from flows.processes.login import of_server
    from flows.serve.review.app import Project
    from flows.serve.review.server import (
        FILE,
        VARIABLE,
        address,
        listener,
        make_server,
        open_browser,
        user_name,
    )
    from tasks.common.config import load_params

    console = Console(stderr=True, soft_wrap=True)
    root = Path.cwd()
    name = user_name() if reviewer is None else reviewer
    if reviewer is None and not name:
        raise TaskError("this user has no name; choose one with --reviewer, e.g. --reviewer anna")
    project = Project(load_params(), root, name)
    project.desk()
    login, is_new = of_server(root, FILE, VARIABLE)
    with listener(port) as listening:
        place = address(listening)
        server = make_server(project, login, listening.getsockname()[1])
        console.text(f"review: {place}   (Ctrl-C ends it)")
        opened = open_page and open_browser(root, place, login)
        if not opened:
            shown = f"shown this once: {login}" if is_new and console.is_terminal else f"it is in {FILE}"
            console.text(f"the page needs a login: {shown}")
        server.run([listening])
    console.print("ended; each decision is saved. The next `points2model run` honours them")
