"""Prefect's server behind flows/processes/request_guard.py and a login, in a process that ends with the server.

    PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD python -m flows.processes.server_process

Host and port are Prefect's settings PREFECT_SERVER_API_HOST and _PORT, by default 127.0.0.1 and 4200. `points2model
serve` and flows/processes/temporary_server.py start it with -P, so that the current folder isn't imported from, and
with the number of a socket that already listens: no other process can take the port before the server is up, or between
two servers. With the further argument WITH_INPUT the server ends when its standard input ends.

The process ends by `os._exit`: the queues of Prefect 3.8 are in a library whose threads can keep the interpreter alive
after the server has closed and written everything.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from pathlib import Path

from data.errors import Fault
from flows.processes.login import API, CLIENT, SERVER, check
from flows.processes.request_guard import Guard, is_loopback, origins, own_names
from tasks.common.errors import TaskError

COMMAND = (sys.executable, "-P", "-m", "flows.processes.server_process")
WITH_INPUT = "--until-end-of-input"
HOST_SETTING, PORT_SETTING = "PREFECT_SERVER_API_HOST", "PREFECT_SERVER_API_PORT"
LOG = Path(".prefect/logs/server.log")
SHUTDOWN = 5
"""Seconds that running requests have when the server ends."""


def server_environment(login: str) -> dict[str, str]:
    """This process's environment for COMMAND in any folder."""
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), SERVER: login}


def main(arguments: list[str]) -> None:
    """Serves until a signal or, with WITH_INPUT, the end of the standard input; then ends the process."""
    code: object = 0
    try:
        with_input = WITH_INPUT in arguments
        _serve(socket.socket(fileno=int(arguments[0])) if arguments else None, with_input)
    except TaskError as error:
        print(error, file=sys.stderr)
        code = 2
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _serve(listener: socket.socket | None, with_input: bool) -> None:
    host = os.environ.get(HOST_SETTING) or "127.0.0.1"
    port = int(os.environ.get(PORT_SETTING) or 4200) if listener is None else listener.getsockname()[1]
    login = _login(host)
    names = own_names(host, port)
    # Prefect reads its settings when it is imported. The UI sends its requests to the server that it comes from.
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(origins(names))
    os.environ.setdefault("PREFECT_UI_API_URL", "/api")
    for variable in (API, CLIENT):  # settings of clients
        os.environ.pop(variable, None)
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    server = uvicorn.Server(
        uvicorn.Config(
            Guard(create_app(final=True), names, login), host=host, port=port, lifespan="on",
            log_level=settings.logging_level.lower(), proxy_headers=False, server_header=False,
            timeout_keep_alive=settings.api.keepalive_timeout, timeout_graceful_shutdown=SHUTDOWN,
            ws_ping_interval=settings.api.websocket_ping_interval,
            ws_ping_timeout=settings.api.websocket_ping_timeout,
        )
    )  # fmt: skip
    if with_input:
        threading.Thread(target=_end_with_input, args=(server,), daemon=True).start()
    server.run([listener] if listener is not None else None)


def _login(host: str) -> str:
    login = os.environ.get(SERVER)
    if login is None:
        who = "every user of this machine" if is_loopback(host) else f"everybody who reaches {host}"
        expected = f"a login, since without one {who} can run commands as this user"
        step = f'export {SERVER}="$(python -m flows.processes.login)", which makes one'
        raise TaskError(str(Fault(SERVER, f"server on {host}", "nothing", expected, step)))
    return check(login, SERVER)


def _end_with_input(server: object) -> None:
    """The process that started this one has the other end of the pipe; the kernel closes it when that process dies."""
    while os.read(0, 64):
        pass
    vars(server)["should_exit"] = True
    threading.Timer(2 * SHUTDOWN, os._exit, (1,)).start()


if __name__ == "__main__":
    main(sys.argv[1:])
