"""The commands `points2model serve` and `points2model watch`, for runs that start by themselves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import Console, check_project
from flows.cli.review import PORT as REVIEW_PORT
from flows.run.report_address import PORT as REPORTS_PORT
from tasks.common.errors import TaskError

if TYPE_CHECKING:
    from tasks.common.config import Params

SERVE_EXAMPLE = "Example: points2model serve   |   points2model serve --port 4201 --reports-port 4245"
WATCH_EXAMPLE = "Example: PREFECT_API_URL=http://127.0.0.1:4200/api points2model watch"


def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The server's port, on 127.0.0.1.")] = 4200,
    reports_port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="The port for reports, on 127.0.0.1; 0 takes a free one."),
    ] = REPORTS_PORT,
    review_port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="The port for the review page, likewise."),
    ] = REVIEW_PORT,
    name: Annotated[
        str, typer.Option(help="The deployment's name; each project on a shared server needs its own.")
    ] = "serve",
) -> None:
    """Run the pipeline on operate.schedule, when points arrive in operate.inbox, and by hand.

    Starts a Prefect server with a UI and a login, unless PREFECT_API_URL names one, the deployment, and a watcher of
    the inbox. Ctrl-C ends all of them: a run that is under way is cancelled, and the next one continues it. By hand:
    `prefect deployment run annotation_to_model/serve`, or the UI.
    """
    from flows.processes.login import API

    console = Console(soft_wrap=True)
    params = _params()
    # The log of this service includes the lines of Prefect and of the runs.
    for variable in ("PREFECT_LOGGING_LEVEL", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"):
        os.environ.setdefault(variable, "INFO")
    from flows.processes.prefect_local import use_local_prefect

    login = _login(console, port) if API not in os.environ else None
    use_local_prefect(Path.cwd())
    from flows.serve.serve import serve as serve_project

    serve_project(
        Path.cwd(), params, port=None if login is None else port, login=login, reports_port=reports_port,
        review_port=review_port, name=name, say=_log_to(console), stopped=_stopped_by_signals(),
    )  # fmt: skip


def watch() -> None:
    """Watch operate.inbox, and send an event to the server of PREFECT_API_URL when there are enough new points.

    For a set-up with a worker (docs/orchestration.md); `points2model serve` watches the inbox by itself. Ctrl-C
    ends it.
    """
    if _params().operate.inbox.source is None:
        raise TaskError(
            "params.yaml: operate.inbox.source: found null, expected a folder or s3://bucket/prefix"
        )
    if not os.environ.get("PREFECT_API_URL"):
        raise TaskError(
            "PREFECT_API_URL isn't set, so there is no server to send events to; set it, e.g. to "
            "http://127.0.0.1:4200/api, or use `points2model serve`, which starts a server and watches too"
        )
    from flows.processes.prefect_local import use_local_prefect

    use_local_prefect(Path.cwd())
    from flows.run.server import server_responds
    from flows.serve.prefect_api import PrefectApi

    server_responds()  # a wrong login is an error now; the watcher retries while there is no response
    from flows.serve.watch import EVENT, Watcher
    from tasks.inbox.pending import inbox_id

    say = _log_to(Console(soft_wrap=True))
    stopped = _stopped_by_signals()
    say(f"sends {EVENT} of {inbox_id(Path.cwd())} to {os.environ['PREFECT_API_URL']}")
    watcher = threading.Thread(
        target=Watcher(Path.cwd(), PrefectApi(), say).run, args=(stopped,), daemon=True
    )
    watcher.start()
    stopped.wait()
    watcher.join(10.0)  # no longer: a request to a server that doesn't respond may take minutes
    say("stopped")


def _params() -> Params:
    from tasks.common.config import load_params
    from tasks.inbox.pending import check_inbox

    params = load_params()
    check_inbox(params, Path.cwd())
    check_project(Path.cwd())
    return params


def _login(console: Console, port: int) -> str:
    """The login of the server to start. A new one is shown, on a terminal only and not in a log."""
    from flows.processes.login import API, CLIENT, FILE, SERVER, of_server

    login, is_new = of_server(Path.cwd())
    address = f"http://127.0.0.1:{port}/api"
    say = _log_to(console)
    if SERVER in os.environ:
        say(f"the UI needs a login: {SERVER}; another terminal needs {API}={address} and {CLIENT}")
    else:
        if is_new and console.is_terminal:
            # Only here: once it is in the environment, it is removed from all messages (data/messages.py).
            say(f"the UI needs a login, shown this once: {login}")
        else:
            say(f"the UI needs a login: it is in {FILE}")
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


def _log_to(console: Console) -> Callable[[str], None]:
    return lambda line: console.text(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}")
