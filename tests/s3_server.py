"""A real S3 server in a process of its own (moto), and a proxy before it that breaks what passes through."""

from __future__ import annotations

import http.client
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SECRET = "S3CRETofTheTestsNobodyMaySee"  # noqa: S105  (moto takes any)
THOUSANDS = "thousands"
"""A bucket that is there from the start: imgs/0000.txt to imgs/2499.txt, each holding its name."""
FAULTS = ("500", "503", "drop", "flip")
Plan = Callable[[str, str, int], str | None]
"""(method, path with query, how manyth request of this method and path) to the fault that this answer gets."""


def environment(endpoint: str) -> dict[str, str]:
    """All that boto3's chain needs, and nothing of the machine's own."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIDOFTHETESTS",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/absent/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/absent/credentials",
        "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": "127.0.0.1",
    }


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """moto's server on a free port of this machine; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        command = [sys.executable, str(Path(__file__)), str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _serve(port: int) -> None:
    """The server's own process. Thousands of objects are put straight into its memory, which takes no time."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import main

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    backend.create_bucket(THOUSANDS, "us-east-1")
    for n in range(2500):
        backend.put_object(THOUSANDS, f"imgs/{n:04d}.txt", f"{n:04d}.txt".encode())
    main(["-H", "127.0.0.1", "-p", str(port)])


@dataclass
class Proxy:
    """Passes requests on to `upstream`; what `plan` says happens to an answer. Notes what was asked."""

    upstream: str
    plan: Plan = lambda method, path, nth: None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path with query, Range header)"""
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def gets(self) -> list[str]:
        """Paths of the objects that were asked for; listings aside."""
        return [path for method, path, _ in self.requests if method == "GET" and "list-type" not in path]


def at_random(share: float, seed: int, kinds: tuple[str, ...] = FAULTS) -> Plan:
    """Such a share of all answers gets a fault."""
    draw = random.Random(seed)
    return lambda method, path, nth: draw.choice(kinds) if draw.random() < share else None


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """A fault-injecting proxy before `upstream`."""
    state = Proxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with state.lock:
                same = [
                    1 for method, path, _ in state.requests if (method, path) == (self.command, self.path)
                ]
                state.requests.append((self.command, self.path, self.headers.get("Range")))
                fault = state.plan(self.command, self.path, len(same))
            if fault in ("500", "503"):
                code = {"500": "InternalError", "503": "SlowDown"}[fault]
                body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
                self.answer(int(fault), {"Content-Type": "application/xml"}, body)
                return
            connection = http.client.HTTPConnection(state.upstream.removeprefix("http://"), timeout=60)
            connection.request(self.command, self.path, content, dict(self.headers))
            response = connection.getresponse()
            body = response.read()
            headers = dict(response.getheaders())
            connection.close()
            if fault == "flip" and body:
                at = len(body) // 2
                body = body[:at] + bytes([body[at] ^ 0x10]) + body[at + 1 :]
            self.answer(response.status, headers, body, cut=fault == "drop")

        def answer(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
            self.send_response_only(status)
            length = headers.get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that was killed leaves broken pipes

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.address = f"http://127.0.0.1:{server.server_address[1]}"
        yield state
        server.shutdown()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
