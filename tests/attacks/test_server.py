"""Attacks on what listens: Prefect's API as `serve` starts it, its websockets and UI, and the server of reports."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from data.errors import DataError
from flows.processes.children import begin
from flows.processes.login import (
    API,
    CLIENT,
    FILE,
    REPORTS,
    REPORTS_FILE,
    SERVER,
    is_ours,
    new_login,
    of_server,
    read,
    set_client_login,
)
from flows.processes.request_guard import LOGIN_WITHIN, NAMES, own_names
from flows.processes.server_process import LOG
from flows.serve import report_server
from flows.serve.report_server import REPORT, ReportServer
from flows.serve.serve import LocalServer, responds
from tasks.common.errors import TaskError
from tests.attacks.attack import Attack, check
from tests.attacks.browser import CHROMIUM, Tab, chromium, evil_server
from tests.prefect_processes import free_port
from tests.tasks.conftest import ROOT

EVIL = "http://evil.example"
PAGE = b"<!doctype html><title>Report</title>" + b"x" * 100
MD5 = hashlib.md5(PAGE, usedforsecurity=False).hexdigest()


class Refused(Exception):
    """An answer that isn't of success, or a connection that is closed."""


@dataclass
class Place:
    """A project that is served, with a deployment, and its reports."""

    root: Path
    port: int
    login: str
    reports: ReportServer
    flow: str = ""
    deployment: str = ""
    run: str = ""
    artifact: str = ""
    before: Any = field(default=None)

    @property
    def auth(self) -> httpx.BasicAuth:
        return httpx.BasicAuth(*self.login.split(":"))

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def reports_port(self) -> int:
        return int(self.reports.server_address[1])

    def ask(self, path: str, method: str = "POST", **question: Any) -> Any:
        """An answer of Prefect's API to who has the login; once more where SQLite is locked, on a busy machine."""
        for _ in range(60):
            answer = httpx.request(method, f"{self.api}{path}", json=question, auth=self.auth, timeout=60)
            if answer.status_code != 503:
                break
            time.sleep(0.5)
        answer.raise_for_status()
        return answer.json()

    def state(self) -> Any:
        """The deployment as it is, and how many runs and deployments there are."""
        deployment = self.ask(f"/deployments/{self.deployment}", "GET")
        kept = {name: deployment[name] for name in ("entrypoint", "pull_steps", "updated", "name")}
        return kept, self.ask("/flow_runs/count"), self.ask("/deployments/count")


@pytest.fixture(scope="module")
def place(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("served")
    (root / ".prefect").mkdir(mode=0o700)
    shutil.copy(prefect_database, root / ".prefect" / "prefect.db")
    Repo.init(str(root), no_scm=True).close()
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / REPORT).parent.mkdir()
    (root / REPORT).write_bytes(PAGE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(root / ".prefect"))
        patch.delenv(SERVER, raising=False)
        login, is_new = of_server(root)
        assert is_new
        server = LocalServer(root, free_port(), login, print)
        reports = ReportServer(root, of_server(root, REPORTS_FILE)[0], port=0)
        threading.Thread(target=reports.serve_forever, daemon=True).start()
        place = Place(root, server.port, login, reports)
        try:
            server.start()
            place.flow = place.ask("/flows/", name="victim")["id"]
            place.deployment = place.ask(
                "/deployments/", name="victim", flow_id=place.flow, entrypoint="good.py:flow"
            )["id"]
            place.run = place.ask("/flow_runs/", flow_id=place.flow, state={"type": "RUNNING"})["id"]
            step = {"flow_run_id": place.run, "task_key": "a", "dynamic_key": "a", "name": "a"}
            place.ask("/task_runs/", **step, state={"type": "COMPLETED"})
            place.ask(f"/flow_runs/{place.run}/set_state", state={"type": "COMPLETED"}, force=True)
            page = "# Summary\n<img src=x onerror=window.owned=1>\n[a link](javascript:window.owned=1)"
            place.artifact = place.ask("/artifacts/", key="evil", type="markdown", data=page)["id"]
            place.before = place.state()
            yield place
            assert place.state() == place.before, "an attack has changed something"
        finally:
            reports.shutdown()
            reports.server_close()
            server.stop()
            begin()  # other tests start processes too


def basic(login: str | bytes) -> str:
    return "Basic " + base64.b64encode(login if isinstance(login, bytes) else login.encode()).decode()


def raw(port: int, lines: list[str], body: str = "", timeout: float = 30) -> str:
    """What a server gives to bytes that no client would send."""
    text = "\r\n".join(
        [*lines, *([f"Content-Length: {len(body)}"] if body else []), "Connection: close", "", body]
    )
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(text.encode("latin-1"))
        content = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                content += chunk
    answer = content.decode("latin-1")
    status = answer.split(" ", 2)[1] if answer.startswith("HTTP/") else "0"
    if not status.startswith("2"):
        raise Refused(answer or "closed")
    return answer


Act = Callable[[Place], str]


def to_api(
    *headers: str, path: str = "/api/deployments/filter", method: str = "POST", body: str = "{}",
    host: str = "127.0.0.1:{port}", with_login: bool = True,
) -> Act:  # fmt: skip
    """A request to Prefect's API, with the right login where it isn't that which is tried."""

    def act(place: Place) -> str:
        port = str(place.port)
        lines = [f"{method} {path.format(port=port, deployment=place.deployment)} HTTP/1.1"]
        lines += [f"Host: {host.format(port=port)}"] * bool(host)
        lines += [f"Authorization: {basic(place.login)}"] * with_login
        lines += [header.format(port=port) for header in headers]
        return raw(place.port, [*lines, "Content-Type: application/json"], body)

    return act


def to_reports(
    *headers: str, path: str = "/report.html", method: str = "GET", host: str = "127.0.0.1:{port}",
    with_login: bool = True,
) -> Act:  # fmt: skip
    """A request to the server of reports, likewise."""

    def act(place: Place) -> str:
        port, login = str(place.reports_port), read(place.root / REPORTS_FILE) or ""
        lines = [f"{method} {path} HTTP/1.1", *[f"Host: {host.format(port=port)}"] * bool(host)]
        lines += [f"Authorization: {basic(login)}"] * with_login
        return raw(place.reports_port, [*lines, *(header.format(port=port) for header in headers)])

    return act


def over_websocket(path: str, token: Any = None, *, origin: Any = None, host: str | None = None) -> Act:
    """What comes through a websocket of Prefect's."""

    async def talk(place: Place) -> str:
        address = f"ws://{host or '127.0.0.1'}:{place.port}/api/{path}"
        here: Any = {"host": "127.0.0.1", "port": place.port}
        try:
            async with connect(address, subprotocols=["prefect"], origin=origin, proxy=None, **here) as one:
                shown = place.login if token == RIGHT else token
                await one.send(json.dumps({"type": "auth", "token": shown}))
                answer = await asyncio.wait_for(one.recv(), 20)
                return str(answer)
        except (InvalidStatus, ConnectionClosed) as error:
            raise Refused(str(error)) from None

    return lambda place: asyncio.run(talk(place))


def silent_websocket(place: Place) -> str:
    """One that is open without a login."""

    async def wait() -> str:
        async with connect(
            f"{place.api.replace('http', 'ws')}/events/in", subprotocols=["prefect"], proxy=None
        ) as one:  # type: ignore[list-item]
            try:
                return str(await asyncio.wait_for(one.recv(), LOGIN_WITHIN + 20))
            except ConnectionClosed as error:
                raise Refused(str(error)) from None

    return asyncio.run(wait())


def wrong(login: Callable[[str], str | bytes]) -> Act:
    """A login that isn't the right one."""
    return lambda place: to_api(f"Authorization: {basic(login(place.login))}", with_login=False)(place)


def file_is(make: Callable[[Path], None]) -> Act:
    """A start of a server where the login's file is something else."""

    def act(place: Place) -> str:
        root = place.root / f"{time.monotonic_ns()}"
        (root / FILE).parent.mkdir(parents=True)
        make(root / FILE)
        return of_server(root)[0]

    return act


def another_owner(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path.write_text(new_login())
    path.chmod(0o600)
    os.chown(path, 65534, 65534)


def made_with_no_umask(place: Place) -> str:
    """Two first starts at once, where nothing would be kept from anybody."""
    root = place.root / "first"
    found: list[tuple[str, bool]] = []
    before = os.umask(0)
    try:
        threads = [threading.Thread(target=lambda: found.append(of_server(root))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((root / FILE).parent.stat().st_mode) == 0o700
    assert len({login for login, _ in found}) == 1 and sum(is_new for _, is_new in found) == 1
    return "one login"


def from_environment(value: str) -> Act:
    def act(place: Place) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(SERVER, value)
            return of_server(place.root)[0]

    return act


def shown_to_another_user(place: Place) -> str:
    """Our client, where another user has taken the server's port while it is off."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    code = "import os, socket, sys, time\nos.setuid(65534)\ns = socket.create_server(('127.0.0.1', 0))\n"
    code += "print(s.getsockname()[1], flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(API, f"http://127.0.0.1:{port}/api")
            patch.setenv(CLIENT, "")
            set_client_login(place.root)
            shown = os.environ[CLIENT]
            patch.setenv(API, place.api)
            assert is_ours(place.port)
            set_client_login(place.root)
            assert os.environ[CLIENT] == place.login
        process.kill()
    return shown or "nothing"


def looked_for_in_processes(place: Place) -> str:
    """What any user of the machine sees: command lines; and what is kept: logs."""
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert any(b"flows.processes.server_process" in line for line in lines)
    texts = [line.decode(errors="replace") for line in lines] + (place.root / LOG).read_text().splitlines()
    return "\n".join(text for text in texts if place.login in text or "Traceback" in text)


def slowly(place: Place) -> str:
    """A request that never ends, a byte at a time; it must not hold a thread for ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_server, "REQUEST_SECONDS", 0.5)
        with socket.create_connection(("127.0.0.1", place.reports_port), 10) as connection:
            connection.sendall(b"GET /report.html HTTP/1.1\r\n")
            for _ in range(100):
                time.sleep(0.1)
                try:
                    connection.sendall(b"X")
                except OSError:
                    raise Refused("cut off") from None
    return "held"


def many(place: Place) -> str:
    """Connections that send nothing: the oldest one ends for each further one, so that reports are served meanwhile."""
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", place.reports_port), 3))
            for _ in range(2 * report_server.MAX_CONNECTIONS)
        ]
        assert held[0].recv(1) == b""
        told = to_reports()(place)
        with pytest.raises(TimeoutError):
            held[-1].recv(1)
        return told


def on_another_address(place: Place) -> str:
    """Reports on the machine's address of IP version 6."""
    with ReportServer(place.root, place.login, host="::1", port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = httpx.get(server.address, auth=place.auth, trust_env=False).text
        server.shutdown()
    assert server.address.startswith("http://[::1]:")
    return told


def for_others(place: Place) -> str:
    """A server for other machines that has no login."""
    return str(ReportServer(place.root, None, host="0.0.0.0", port=0))  # noqa: S104


def logs_in_as_client(login: str | None, host: str = "127.0.0.1") -> Act:
    """`points2model run` and `watch` before they begin."""

    def act(place: Place) -> str:
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        from flows.run.server import server_responds

        address = f"http://{host}:{place.port}/api"
        shown = place.login if login == RIGHT else login
        with temporary_settings({PREFECT_API_URL: address, PREFECT_API_AUTH_STRING: shown}):
            return f"let in: {server_responds()}"

    return act


def through_a_proxy(place: Place) -> str:
    """Our client where the environment names a proxy, which would read the login."""
    with socket.create_server(("127.0.0.1", 0)) as proxy, pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            patch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        told = logs_in_as_client(RIGHT)(place) + logs_in_as_client(RIGHT, "localhost")(place)
        assert responds(place.api)
        proxy.settimeout(0)
        with pytest.raises(BlockingIOError):
            proxy.accept()
    return told


def with_its_settings(place: Place) -> str:
    """Our client's first request, whose headers a proxy before the server may need."""
    from prefect.settings import PREFECT_CLIENT_CUSTOM_HEADERS, temporary_settings

    with temporary_settings({PREFECT_CLIENT_CUSTOM_HEADERS: {"Origin": EVIL}}):
        return logs_in_as_client(RIGHT)(place)


def fetched(site: str, mode: str, dest: str) -> tuple[str, ...]:
    """What a browser says of a request that a page makes."""
    return f"Sec-Fetch-Site: {site}", f"Sec-Fetch-Mode: {mode}", f"Sec-Fetch-Dest: {dest}"


def file_of(content: str, mode: int = 0o600) -> Act:
    """A start where the login's file has this content and mode."""

    def make(path: Path) -> None:
        path.write_text(content)
        path.chmod(mode)

    return file_is(make)


OPEN: Any = {"with_login": False}
GET: Any = {"method": "GET", "body": ""}
ASKS: Any = {"method": "OPTIONS", "body": "", "with_login": False}
STEPS = '{"name": "victim", "flow_id": "{flow}", "pull_steps": [{"a": {"script": "touch owned"}}]}'
LIST, RUN = "/api/deployments/filter", "/api/deployments/{deployment}/create_flow_run"
NAMED, NOT_OURS, NOT_HERE = (
    ("isn't a name of this server", NAMES),
    ("403", "is another server's"),
    ("403", "another page"),
)
UNAUTHORIZED, SECRET = ("401", "Unauthorized"), ("points2model:",)
SENT, CORS, RIGHT = "Access-Control-Request-Method: POST", "access-control-allow-origin", "right"
LINK, FRAME = fetched("same-site", "navigate", "document"), fetched("same-site", "navigate", "iframe")
GUARDED = ("200 OK", "x-frame-options: DENY", "frame-ancestors 'none'", "nosniff")
SHOWN, BY_HASH = "<title>Report", f"/reports/{MD5}/report.html"

ATTACKS = [
    # Host
    Attack("own name in capitals", to_api(host="LOCALHOST:{port}"), ("200 OK",), refused=False),
    Attack("foreign name (DNS rebinding)", to_api(host="evil.example:{port}"), ("403", *NAMED)),
    Attack("own name with a dot", to_api(host="localhost.:{port}"), NAMED),
    Attack("own name, another port", to_api(host="127.0.0.1:1"), NAMED),
    Attack("address of the machine that isn't the server's", to_api(host="127.0.0.2:{port}"), NAMED),
    Attack("address in another notation", to_api(host="2130706433:{port}"), NAMED),
    Attack("name that begins with ours", to_api(host="127.0.0.1:{port}.evil.example"), NAMED),
    Attack("two Hosts, the first ours", to_api("Host: evil.example"), ("400",)),
    Attack("no Host", to_api(host=""), ("400",)),
    Attack("foreign Host, our own as forwarded", to_api("X-Forwarded-Host: localhost:{port}", host=EVIL), NAMED),
    Attack("whole address as target", to_api(host=EVIL, path="http://127.0.0.1:{port}/api/health", **GET), NAMED),
    Attack("UI under a foreign name", to_api(host="evil.example", path="/", **GET), NAMED),
    # Origin
    Attack("page of another site", to_api(f"Origin: {EVIL}"), NOT_OURS),
    Attack("page without an origin", to_api("Origin: null"), NOT_OURS),
    Attack("page of another port of this machine", to_api("Origin: http://localhost:8888"), NOT_OURS),
    Attack("origin that begins with ours", to_api("Origin: http://127.0.0.1:{port}.evil.example"), NOT_OURS),
    Attack("origin with ours as user", to_api("Origin: http://127.0.0.1:{port}@evil.example"), NOT_OURS),
    Attack("two origins", to_api("Origin: http://127.0.0.1:{port}", f"Origin: {EVIL}"), NOT_OURS),
    Attack("our own page", to_api("Origin: http://localhost:{port}"), ("200 OK",), refused=False),
    Attack("preflight of another site", to_api(f"Origin: {EVIL}", SENT, path=LIST, **ASKS), NOT_OURS, (CORS,)),
    Attack(
        "preflight of our other name", to_api("Origin: http://localhost:{port}", SENT, **ASKS),
        (f"{CORS}: http://localhost:",), (f"{CORS}: *",), refused=False,
    ),
    Attack("script of another page", to_api(*fetched("cross-site", "no-cors", "script"), **GET), NOT_HERE),
    Attack("frame of another page", to_api(*FRAME, path="/v2/", **GET), NOT_HERE),
    Attack("form of another page that hides its origin", to_api(*LINK, path=RUN), NOT_HERE),
    Attack("link of another page", to_api(*LINK, path="/v2/", **GET, **OPEN), GUARDED, refused=False),
    # login
    Attack("no login", to_api(**OPEN), UNAUTHORIZED),
    Attack("run without a login", to_api(path=RUN, **OPEN), UNAUTHORIZED),
    Attack("deployment replaced without one", to_api(path="/api/deployments/", body=STEPS, **OPEN), UNAUTHORIZED),
    Attack("empty login", wrong(lambda _: ""), UNAUTHORIZED),
    Attack("wrong password", wrong(lambda login: login[:-1] + "!"), UNAUTHORIZED),
    Attack("half of the password", wrong(lambda login: login[:-8]), UNAUTHORIZED),
    Attack("another user", wrong(lambda login: "admin:" + login.split(":")[1]), UNAUTHORIZED),
    Attack("login that is no text", wrong(lambda _: b"\xff\xfe:\x00"), UNAUTHORIZED),
    Attack("login with letters that aren't ASCII", wrong(lambda _: "jörg:passwörter"), UNAUTHORIZED),
    Attack("key of Prefect's cloud", to_api("Authorization: Bearer x", **OPEN), UNAUTHORIZED),
    Attack("two logins, the first right", to_api("Authorization: Basic eDp5"), UNAUTHORIZED),
    Attack("way round by a probe", to_api(path="/api/health/../deployments/filter", **OPEN), UNAUTHORIZED),
    Attack("way round by a probe's name", to_api(path="/api/variables/name/health", **GET, **OPEN), UNAUTHORIZED),
    Attack("way round by an escaped path", to_api(path="/%61pi/deployments/filter", **OPEN), UNAUTHORIZED),
    Attack("probe", to_api(path="/api/health", **GET, **OPEN), ("200 OK", "true"), refused=False),
    Attack("method that is none", to_api(method="TRACE", **OPEN), UNAUTHORIZED),
    Attack("headers of a megabyte", to_api(f"X: {'x' * 2**20}"), ("400",)),
    # websockets
    Attack("events from another site", over_websocket("events/in", RIGHT, origin=EVIL), ("403",)),
    Attack("logs from another site", over_websocket("logs/out", RIGHT, origin="null"), ("403",)),
    Attack("events under a foreign name", over_websocket("events/in", RIGHT, host="evil.example"), ("403",)),
    Attack("events without a login", over_websocket("events/in"), ("1008",)),
    Attack("logs with a wrong login", over_websocket("logs/out", "points2model:x"), ("1008",)),
    Attack("events with a login that is no text", over_websocket("events/in", [1]), ("1008",)),
    Attack("events without a message", silent_websocket, ("1008",)),
    Attack("our own client's events", over_websocket("events/in", RIGHT), ("auth_success",), refused=False),
    # our own client
    Attack("client without a login", logs_in_as_client(None), (CLIENT, "401 Unauthorized without", f"$(cat {FILE})")),
    Attack("client with a wrong login", logs_in_as_client("anna:wrong"), (CLIENT, "for the login that"), ("wrong",)),
    Attack("client of a server by another name", logs_in_as_client(RIGHT, "127.1"), (API, "403", NAMES)),
    Attack("client with the login", logs_in_as_client(RIGHT), ("let in: True",), refused=False),
    Attack("client with further headers", with_its_settings, ("403", "is another server's")),
    Attack("proxy in the environment", through_a_proxy, ("True", "let in: True"), refused=False),
    Attack("another user's server on our port", shown_to_another_user, ("nothing",), SECRET, refused=False),
    Attack("login in command lines and logs", looked_for_in_processes, (), SECRET, refused=False),
    # the login's file
    Attack("file that all may read", file_of(new_login(), 0o644), ("login: found mode 0644", "remove it"), SECRET),
    Attack("file that is a link", file_is(lambda path: path.symlink_to("/etc/hostname")), ("a symbolic link",)),
    Attack("file that is empty", file_of(""), ("an empty file", "remove it")),
    Attack("file that is a pipe", file_is(lambda path: os.mkfifo(path, 0o600)), ("a folder, a pipe or a device",)),
    Attack("file that is a folder", file_is(lambda path: path.mkdir(0o700)), ("a folder, a pipe or a device",)),
    Attack("file without a password", file_of("points2model:\n"), ("characters that aren't one",)),
    Attack("file of another user", file_is(another_owner), ("a file of user 65534",)),
    Attack("eight first starts at once", made_with_no_umask, refused=False),
    Attack("empty login in the environment", from_environment(""), (SERVER, "found nothing")),
    Attack("short login in the environment", from_environment("anna:secret"), (SERVER, "11 char"), ("anna:secret",)),
    # reports
    Attack("newest report without a login", to_reports(**OPEN), ("401", "WWW-Authenticate: Basic"), (SHOWN,)),
    Attack("newest report with another login", to_reports(f"Authorization: {basic(new_login())}", **OPEN), ("401",)),
    Attack("report by its hash", to_reports(path=BY_HASH, **OPEN), (SHOWN, "default-src 'none'"), refused=False),
    Attack("report by the address in links", to_reports(path=f"/reports/{MD5}.html", **OPEN),
           ("302", f"Location: {MD5}/report.html"), (SHOWN,)),
    Attack("page of a report that has none", to_reports(path=f"/reports/{MD5}/report/weak.html", **OPEN), ("404",)),
    Attack("page of the newest without a login", to_reports(path="/report/weak.html", **OPEN), ("401",)),
    Attack("file above a report's pages",
           to_reports(path=f"/reports/{MD5}/report/../../../.prefect/login"), ("404",), SECRET),
    Attack("file above the newest's pages", to_reports(path="/report/../../.prefect/login"), ("404",), SECRET),
    Attack("report by another hash", to_reports(path=f"/reports/{'0' * 32}.html", **OPEN), ("404",), ("Python",)),
    Attack("report under a foreign name", to_reports(host="evil.example"), NAMED, (SHOWN,)),
    Attack("report by its hash under one", to_reports(host="evil.example:{port}", path=BY_HASH), NAMED, (SHOWN,)),
    Attack("report with two Hosts", to_reports("Host: evil.example"), NAMED),
    Attack("report without a Host", to_reports(host=""), NAMED),
    Attack("report for another site", to_reports(f"Origin: {EVIL}"), NOT_OURS),
    Attack("report in a frame", to_reports(*FRAME), NOT_HERE),
    Attack("report by a link of the UI", to_reports(*LINK, path=BY_HASH, **OPEN), (SHOWN,), refused=False),
    Attack("file above the reports", to_reports(path="/reports/../../.prefect/login"), ("404",), SECRET),
    Attack("file above them, escaped", to_reports(path="/reports/%2e%2e/%2e%2e/.prefect/login"), ("404",), SECRET),
    Attack("report as a whole address", to_reports(path=f"http://evil.example{BY_HASH}", **OPEN), ("401",)),
    Attack("head of a report", to_reports(method="HEAD"), (f"Length: {len(PAGE)}",), ("<title>",), refused=False),
    Attack("report that is to be replaced", to_reports(method="PUT"), ("501",), (SHOWN,)),
    Attack("report with headers of a megabyte", to_reports(f"X: {'x' * 2**20}"), (), (SHOWN,)),
    Attack("report with a thousand headers", to_reports(*(f"X{n}: 1" for n in range(1000))), ("431",)),
    Attack("request for a report that never ends", slowly, ("cut off",)),
    Attack("more connections than there are places", many, (SHOWN,), refused=False),
    Attack("reports on ::1", on_another_address, (SHOWN,), refused=False),
    Attack("reports for other machines without a login", for_others, ("--host", "no login", "listen on 127.0.0.1")),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, place: Place) -> None:
    check(attack, place, (DataError, TaskError, Refused))


def test_reports_that_other_machines_reach_all_ask_for_the_login(place: Place) -> None:
    with ReportServer(place.root, place.login, host="0.0.0.0", port=0) as server:  # noqa: S104
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/reports/{MD5}"
        for page in (f"{address}.html", f"{address}/report.html", f"{address}/report/weak.html"):
            assert httpx.get(page).status_code == 401
        assert httpx.get(f"{address}.html", auth=place.auth, follow_redirects=True).content == PAGE
        server.shutdown()


def test_a_run_with_another_login_says_so(place: Place, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text("stages: {report: {cmd: touch ran, outs: [ran]}}")
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        API: place.api,
        CLIENT: "anna:wrong",
        "PREFECT_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", "run"],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in output, output
    assert f"failed {CLIENT}: {place.api}: found 401 Unauthorized for the login that is set" in output
    assert f'Next: export {CLIENT}="$(cat .prefect/login)"' in output and "wrong" not in output
    assert not (tmp_path / "ran").exists()


def test_compose_listens_to_this_machine_and_starts_nothing_without_a_login() -> None:
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(ports) == {"server", "reports"}
    assert all(port.startswith("127.0.0.1:") for listed in ports.values() for port in listed)
    for name, variable in {"server": SERVER, "worker": CLIENT, "watcher": CLIENT, "reports": REPORTS}.items():
        assert "${POINTS2MODEL_AUTH:?" in services[name]["environment"][variable], name
    assert services["server"]["command"] == ["python", "-m", "flows.processes.server_process"]


def test_nothing_of_ours_starts_a_server_without_a_login() -> None:
    """Prefect's client starts one of its own where it has no address."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(ValueError, match="No Prefect API URL"):
        get_client(sync_client=True)


def test_names_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES, " Flows.Example , server:4200")
    local = {"127.0.0.1:80", "localhost:80", "[::1]:80", "127.0.0.1", "localhost", "[::1]"}
    assert own_names("127.0.0.1", 80) == local | {"flows.example", "server:4200"}
    monkeypatch.delenv(NAMES)
    assert own_names("10.1.2.3", 81) == {"127.0.0.1:81", "localhost:81", "[::1]:81", "10.1.2.3:81"}
    assert own_names("0.0.0.0", 81) == {"127.0.0.1:81", "localhost:81", "[::1]:81"}  # noqa: S104


@pytest.fixture(scope="module")
def evil() -> Iterator[str]:
    with evil_server(Path(__file__).with_name("evil.html").read_text()) as address:
        yield address


@pytest.fixture(scope="module")
def tab(evil: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with chromium(tmp_path_factory.mktemp("browser"), evil) as tab:
        yield tab


def attacked(tab: Tab, page: str, server: str, reports: str, place: Place) -> dict[str, str]:
    """What a page gets that a browser has open."""
    tab.open(page)
    tab.answers.clear()
    address = f"{reports}/reports/{MD5}.html"
    found: dict[str, str] = tab.run(f"attack({server!r}, {address!r}, {place.deployment!r}, {place.flow!r})")
    assert place.state() == place.before, found
    return found


def test_a_page_of_another_origin_gets_and_does_nothing(tab: Tab, evil: str, place: Place) -> None:
    api, reports = f"http://127.0.0.1:{place.port}", f"http://127.0.0.1:{place.reports_port}"
    found = attacked(tab, f"{evil}/attack.html", api, reports, place)
    assert len(found) == 11 and set(found.values()) == {""}, found
    assert set(tab.answers[f"/reports/{MD5}.html"]) == set(tab.answers["/"]) == {403}


def test_a_page_whose_name_leads_here_gets_and_does_nothing(tab: Tab, place: Place) -> None:
    """DNS rebinding: the page is of the server's own origin, as the browser sees it."""
    api, reports = (f"http://evil.example:{port}" for port in (place.port, place.reports_port))
    found = attacked(tab, f"{api}/attack.html", api, reports, place)
    assert len(found) == 11 and set(found.values()) == {""}, found
    assert set(tab.answers["/api/health"]) == set(tab.answers[f"/reports/{MD5}.html"]) == {403}


@pytest.mark.slow  # Prefect's whole UI in a browser
def test_our_own_ui_works_once_somebody_has_logged_in(tab: Tab, place: Place) -> None:
    for name in ("127.0.0.1", "localhost"):
        tab.open(f"http://{name}:{place.port}/")
        tab.wait_for("document.querySelector('input') && location.pathname.includes('login')")
        tab.answers.clear()
        tab.run("document.querySelector('input').focus()")
        tab.call("Input.insertText", text=place.login)
        tab.run("document.querySelector('button[type=submit], form button').click()")
        tab.wait_for(
            "document.body.innerText.includes('Deployments') && !location.pathname.includes('login')"
        )
        tab.open(f"http://{name}:{place.port}/deployments")
        tab.wait_for("document.body.innerText.includes('victim')")
        asked = {path: codes for path, codes in tab.answers.items() if path.startswith("/api/")}
        assert asked and all(code < 400 for codes in asked.values() for code in codes), asked


@pytest.mark.slow  # Prefect's whole UI in a browser
def test_the_ui_runs_its_own_files_and_talks_to_its_server_alone(tab: Tab, evil: str, place: Place) -> None:
    """Names of files and classes come into artifacts; a script in the UI would have the login."""
    shown = base64.b64encode(place.login.encode()).decode()
    tab.blocked.clear()
    for ui in ("v2", "v1"):  # Prefect has two, of which a cookie remembers one
        tab.open(f"http://127.0.0.1:{place.port}/")
        tab.run(f"localStorage.setItem('prefect-password', {shown!r})")
        tab.run(f"document.cookie = 'prefect_ui_version={ui}; path=/'")
        base = f"http://127.0.0.1:{place.port}{'/v2' if ui == 'v2' else ''}"
        tab.open(f"{base}/runs/flow-run/{place.run}")
        tab.wait_for(
            "!!document.querySelector('canvas')"
        )  # the run's graph, which needs more than other pages
        tab.open(f"{base}/artifacts/artifact/{place.artifact}")
        tab.wait_for("[...document.querySelectorAll('h1')].some(one => one.innerText.includes('Summary'))")
        tab.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.owned=1>')")
        assert tab.run(f"fetch('{evil}/', {{mode: 'no-cors'}}).then(() => 'sent', () => 'kept')") == "kept"
        time.sleep(1)  # a picture that isn't there fails somewhat later
        assert tab.run("window.owned === undefined")
    # What else the policy keeps back is the UI's report on what people do in it, and nothing that it needs.
    needless = ("inline event handler", evil, "amplitude.com")
    assert all(any(part in text for part in needless) for text in tab.blocked), tab.blocked


def test_a_report_is_shown_as_it_is_meant(tab: Tab, place: Place) -> None:
    """Its styles and pictures aren't kept from it by what keeps scripts away."""
    style = b"<!doctype html><style>p{color:rgb(1,2,3)}</style><p style='margin:7px'>x</p>"
    style += b"<img src='data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='><script>document.title='ran'</script>"
    (place.root / REPORT).write_bytes(style)
    try:
        md5 = hashlib.md5(style, usedforsecurity=False).hexdigest()
        tab.open(f"http://127.0.0.1:{place.reports_port}/reports/{md5}.html")
        assert tab.run("getComputedStyle(document.querySelector('p')).color") == "rgb(1, 2, 3)"
        assert tab.run("getComputedStyle(document.querySelector('p')).margin") == "7px"
        assert tab.run("document.querySelector('img').naturalWidth") == 1
        assert tab.run("document.title") == ""
    finally:
        (place.root / REPORT).write_bytes(PAGE)
