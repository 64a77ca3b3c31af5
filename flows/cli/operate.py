"""The commands that keep the line going: `points2model serve` and `points2model watch`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from flows.cli.console import Console
from flows.processes.login import API, CLIENT, FILE, SERVER, of_server
from flows.run.report_address import PORT as REPORTS_PORT
from tasks.common.config import Params, load_params
from tasks.common.errors import TaskError

SERVE_EXAMPLE = "Example: points2model serve   |   points2model serve --port 4201 --reports-port 4244"
WATCH_EXAMPLE = "Example: PREFECT_API_URL=http://127.0.0.1:4200/api points2model watch"


def serve(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Of the server and its UI, on 127.0.0.1.")
    ] = 4200,
    reports_port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Where reports are served, on 127.0.0.1; 0 takes a free one."),
    ] = REPORTS_PORT,
    name: Annotated[
        str, typer.Option(help="The deployment's name: one of its own for each project on a shared server.")
    ] = "serve",
) -> None:
    """Run the line when it should run: on operate.schedule, when points arrive in operate.inbox, and by hand.

    Starts a Prefect server with its UI and a login, unless PREFECT_API_URL names one, and all that works with it;
    Ctrl-C ends all. A run that is under way is cancelled then, and the next one goes on where it was. By hand: `prefect
    deployment run annotation_to_model/serve`, or the UI.
    """
    console = _console()
    params = _params(console)
    # A service's own log: what Prefect and the runs say belongs to it.
    for variable in ("PREFECT_LOGGING_LEVEL", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"):
        os.environ.setdefault(variable, "INFO")
    from flows.processes.prefect_local import use_local_prefect

    login = None
    try:
        if API not in os.environ:
            login = _login(console, port)
        use_local_prefect(Path.cwd())
    except TaskError as error:
        _fail(console, str(error))
    from flows.serve.serve import serve as serve_line

    stopped = _stopped_by_signals()
    try:
        serve_line(
            Path.cwd(), params, port=None if login is None else port, login=login, reports_port=reports_port,
            name=name, say=_say(console), stopped=stopped,
        )  # fmt: skip
    except TaskError as error:
        _fail(console, str(error))


def watch() -> None:
    """Watch operate.inbox and tell the Prefect server of PREFECT_API_URL when enough new points wait; Ctrl-C ends it.

    For a set-up with a worker (docs/orchestration.md); `points2model serve` watches by itself.
    """
    console = _console()
    params = _params(console)
    if params.operate.inbox.source is None:
        _fail(
            console, "params.yaml: operate.inbox.source: found null, expected a folder or s3://bucket/prefix"
        )
    if not os.environ.get("PREFECT_API_URL"):
        _fail(
            console,
            "PREFECT_API_URL isn't set: there is no server to tell; set it, e.g. to http://127.0.0.1:4200/api, or use "
            "`points2model serve`, which starts a server and watches too",
        )
    from flows.processes.prefect_local import use_local_prefect

    try:
        use_local_prefect(Path.cwd())
        from flows.run.server import lets_us_in
        from flows.serve.prefect_api import PrefectApi

        lets_us_in()  # a server that is away is waited for
    except TaskError as error:
        _fail(console, str(error))
    from flows.serve.watch import EVENT, Watcher
    from tasks.inbox.pending import inbox_id

    say = _say(console)
    stopped = _stopped_by_signals()
    say(f"sends {EVENT} of {inbox_id(Path.cwd())} to {os.environ['PREFECT_API_URL']}")
    watcher = threading.Thread(
        target=Watcher(Path.cwd(), PrefectApi(), say).run, args=(stopped,), daemon=True
    )
    watcher.start()
    stopped.wait()
    watcher.join(
        10.0
    )  # a look at a server that doesn't answer may take minutes; nothing is lost by leaving it
    say("stopped")


def _params(console: Console) -> Params:
    from tasks.inbox.pending import check_inbox

    try:
        params = load_params()
        check_inbox(params, Path.cwd())
    except TaskError as error:
        _fail(console, str(error))
    if not Path("dvc.yaml").is_file():
        _fail(console, f"{Path.cwd()}: no dvc.yaml here; cd to the project's folder")
    return params


def _login(console: Console, port: int) -> str:
    """The login of a server that is to be started; shown where it is new, to a terminal alone and to no log."""
    login, is_new = of_server(Path.cwd())
    address = f"http://127.0.0.1:{port}/api"
    say = _say(console)
    if SERVER in os.environ:
        say(f"the UI asks for a login: {SERVER}; another terminal needs {API}={address} and {CLIENT}")
    else:
        if is_new and console.is_terminal:
            # It can be shown here alone: once it is in the environment, no message has it (data/messages.py).
            say(f"the UI asks for a login, shown this once: {login}")
        else:
            say(f"the UI asks for a login: it is in {FILE}")
        say(f'another terminal here: export {API}={address} {CLIENT}="$(cat {FILE})"')
    os.environ[API], os.environ[CLIENT] = address, login
    return login


def _stopped_by_signals() -> threading.Event:
    stopped = threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not cut this short
        stopped.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return stopped


def _say(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {escape(line)}")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True, file=sys.stdout)


def _fail(console: Console, message: str) -> NoReturn:
    console.print(f"[red]failed[/] {escape(message)}")
    raise typer.Exit(1)
