"""Everything on one machine: a Prefect server, the deployment with its schedule and trigger, and the watcher."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from data.errors import Fault
from flows.processes.children import stop_all, stream
from flows.processes.server_process import COMMAND, HOST_SETTING, LOG, PORT_SETTING, server_environment
from flows.processes.temporary_server import STARTUP
from flows.serve.report_server import reports_served
from flows.serve.review.server import review_served
from flows.serve.run_log import RunLog
from flows.serve.watch import EVENT, Watcher
from tasks.common.config import OperateConfig, Params
from tasks.common.errors import TaskError
from tasks.inbox.pending import inbox_id

HOST = "127.0.0.1"
PARTING = 45.0
"""Seconds for a run that is under way to end, and report its state, when serving ends."""
RESTART = 5.0
"""Seconds until a process or thread that ended is restarted."""

Say = Callable[[str], None]


class LocalServer:
    """A Prefect server on this machine, which ends with this process, and is restarted if it dies."""

    def __init__(self, root: Path, port: int, login: str, say: Say) -> None:
        self.root, self.port, self.say, self._login = root, port, say, login
        self.url = f"http://{HOST}:{port}/api"
        self._listener: socket.socket | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="server")

    def start(self) -> None:
        """Starts the server; returns when it responds.

        The port is held until `stop`, also while the server is restarted: another process that listens there would get
        the login from our clients and from the browser. Requests wait meanwhile.

        Raises:
            TaskError: the port is in use, or the server doesn't start.
        """
        try:
            self._listener = socket.create_server((HOST, self.port))
        except OSError as error:
            step = f"use that server with PREFECT_API_URL={self.url}, or choose another port with --port"
            found = os.strerror(error.errno or 0)
            raise TaskError(str(Fault(f"port {self.port}", HOST, found, "a free port", step))) from None
        self._thread.start()
        end = time.monotonic() + STARTUP
        while not responds(self.url):
            if time.monotonic() > end or not self._thread.is_alive():
                raise TaskError(
                    f"the Prefect server doesn't start within {STARTUP:.0f} s; see {self.root / LOG}"
                )
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends the server."""
        self._stopping.set()
        stop_all()
        if self._thread.ident is not None:
            self._thread.join()
        if self._listener is not None:
            self._listener.close()

    def _keep_up(self) -> None:
        assert self._listener is not None
        socket_number = self._listener.fileno()
        log_path = self.root / LOG
        log_path.parent.mkdir(parents=True, exist_ok=True)
        place = {HOST_SETTING: HOST, PORT_SETTING: str(self.port)}
        env = {**server_environment(self._login), **place, "PREFECT_SERVER_LOGGING_LEVEL": "WARNING"}
        while not self._stopping.is_set():
            with log_path.open("a", encoding="utf-8") as file:

                def on_line(line: str, file: Any = file) -> None:
                    file.write(line + "\n")
                    file.flush()

                code = stream(
                    [*COMMAND, str(socket_number)], cwd=self.root, env=env, on_line=on_line,
                    pass_fds=(socket_number,),
                )  # fmt: skip
            if not self._stopping.is_set():
                self.say(f"the server ended with code {code} ({LOG}); it is restarted")
                self._stopping.wait(RESTART)


class Deployment:
    """The deployment of `annotation_to_model`: on schedule, on the event, by hand; one run at a time.

    Each run is a process of its own; runs that are due meanwhile wait for it. The deployment is served in a thread, so
    that the caller can handle signals.
    """

    def __init__(self, name: str, operate: OperateConfig, say: Say) -> None:
        self.name, self.operate, self.say = name, operate, say
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runner: Any = None
        self._thread = threading.Thread(target=self._keep_up, name="deployment", daemon=True)

    def start(self) -> None:
        """Starts serving; returns when the server has the deployment."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Cancels a run that is under way, pauses the schedule, and stops serving."""
        self._stopping.set()
        if self._loop is not None and self._runner is not None and self._runner.started:
            asyncio.run_coroutine_threadsafe(self._runner.astop(), self._loop)
        if self._thread.ident is not None:
            self._thread.join(PARTING)  # with a limit: without a server it retries for minutes
            from prefect.logging.handlers import APILogHandler

            # Send the last log lines of a cancelled run while there is a server; they are sent every other second.
            APILogHandler().flush()

    def _keep_up(self) -> None:
        while not self._stopping.is_set():
            try:
                asyncio.run(self._serve())
            except Exception as error:  # no connection to the server for too long
                self._ready.set()
                if not self._stopping.is_set():
                    self.say(f"serving ended: {error or type(error).__name__}; it is restarted")
            self._stopping.wait(RESTART)

    async def _serve(self) -> None:
        from prefect.runner import Runner

        from flows.run.pipeline import annotation_to_model

        # It logs every ten seconds how many runs are waiting.
        logging.getLogger("prefect.runner").setLevel(logging.WARNING)
        self._loop = asyncio.get_running_loop()
        self._runner = Runner(name=self.name, limit=1, pause_on_shutdown=True)
        deployment = await annotation_to_model.ato_deployment(
            name=self.name,
            schedules=schedules(self.operate),
            triggers=triggers(self.name, self.operate),
            description="The pipeline of this project: points2model serve",
            tags=["points2model"],
        )
        await self._runner.aadd_deployment(deployment)
        self._ready.set()
        if not self._stopping.is_set():
            await self._runner.start()


def triggers(name: str, operate: OperateConfig) -> list[Any]:
    """Prefect's trigger for new points in the inbox: one or none."""
    from prefect.events import DeploymentEventTrigger

    if operate.inbox.source is None:
        return []
    return [
        DeploymentEventTrigger(
            name=f"new points: {name}",
            expect={EVENT},
            match={"prefect.resource.id": inbox_id(Path.cwd())},
            parameters={"reason": "{{ event.payload.reason }}"},
            threshold=1,
            within=timedelta(0),
        )
    ]


def schedules(operate: OperateConfig) -> list[Any]:
    """Prefect's schedules of `operate.schedule`: one or none.

    Raises:
        TaskError: the cron line or the time zone is wrong.
    """
    from prefect.schedules import Cron

    if operate.schedule is None:
        return []
    where = "params.yaml"
    try:
        ZoneInfo(operate.timezone)
    except (ZoneInfoNotFoundError, ValueError):
        expected = "a name of the IANA time zone database"
        fault = Fault(
            where, "operate.timezone", repr(operate.timezone), expected, "write e.g. Europe/Berlin or UTC"
        )
        raise TaskError(str(fault)) from None
    try:
        return [Cron(operate.schedule, timezone=operate.timezone, parameters={"reason": "schedule"})]
    except ValueError:
        expected = "a cron line: minute, hour, day of month, month, day of week"
        step = 'write e.g. "0 2 * * *" for 2 o\'clock each night, or null for no schedule'
        raise TaskError(
            str(Fault(where, "operate.schedule", repr(operate.schedule), expected, step))
        ) from None


def responds(url: str, timeout: float = 5.0) -> bool:
    """Whether a Prefect server on this machine responds at `url`, which ends in /api."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=timeout) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def serve(
    root: Path,
    params: Params,
    *,
    port: int | None,
    login: str | None,
    reports_port: int,
    review_port: int,
    name: str,
    say: Say,
    stopped: threading.Event,
) -> None:
    """Serves the pipeline of the project at `root`, the current folder, until `stopped` is set; then stops all.

    Args:
        root: the project's folder.
        params: its params.
        port: of the server to start; None uses the one of PREFECT_API_URL. In both cases that variable must be the
            server's address, and PREFECT_API_AUTH_STRING its login, before Prefect is imported, which reads them once.
        login: of the server to start.
        reports_port: for reports; if it is in use, or 0, a free one is taken.
        review_port: for the review page, likewise.
        name: of the deployment.
        say: takes lines for people.
        stopped: ends serving.

    Raises:
        TaskError: the settings are wrong, the port is in use, or no server responds.
    """
    url = os.environ["PREFECT_API_URL"]
    schedules(params.operate)
    server = None if port is None or login is None else LocalServer(root, port, login, say)
    from flows.run.gpu_limit import ensure_gpu_limit  # here, since it imports Prefect
    from flows.run.server import check_server
    from flows.serve.prefect_api import PrefectApi

    if server is None:
        check_server()
    api = PrefectApi()
    deployment, runs, meanwhile = Deployment(name, params.operate, say), RunLog(name, api, say), ExitStack()
    try:
        if server is not None:
            say(f"starting a Prefect server on {url.removesuffix('/api')} ...")
            server.start()
        ensure_gpu_limit()
        meanwhile.enter_context(reports_served(root, say, reports_port))
        meanwhile.enter_context(review_served(root, params, say, review_port))
        deployment.start()
        say(f"serving annotation_to_model/{name}; the UI: {url.removesuffix('/api')}")
        say(_description(params.operate))
        threading.Thread(target=runs.run, args=(stopped,), name="runs", daemon=True).start()
        meanwhile.callback(runs.update)  # at the end, for a run that is cancelled then
        if params.operate.inbox.source is not None:
            watcher = Watcher(root, api, say)
            threading.Thread(target=watcher.run, args=(stopped,), name="watcher", daemon=True).start()
        stopped.wait()
        say("stopping ...")
    finally:
        stopped.set()
        deployment.stop()
        meanwhile.close()
        if server is not None:
            server.stop()
    say("stopped")


def _description(operate: OperateConfig) -> str:
    schedule = f"on schedule {operate.schedule!r} ({operate.timezone})" if operate.schedule else "no schedule"
    inbox = f"when points arrive in {operate.inbox.source}" if operate.inbox.source else "no inbox"
    return f"runs: {schedule}; {inbox}; by hand"
