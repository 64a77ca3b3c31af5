"""A real headless Chromium, driven by its own protocol, and a web server of somebody who means harm."""

from __future__ import annotations

import http.client
import http.server
import itertools
import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import connect
from websockets.sync.connection import Connection

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
    # Newer browsers stop some of these attacks themselves; it is ours that is judged here.
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
)  # fmt: skip


class Tab:
    """A page of the browser."""

    def __init__(self, socket: Connection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.answers: dict[str, list[int]] = {}
        """Status codes by path, of all that the page has asked for."""
        self.blocked: list[str] = []
        """What a page's policy has kept from it."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> Any:
        """A command of the protocol, and what it gives."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": arguments}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("method") == "Network.responseReceived":
                answer = message["params"]["response"]
                self.answers.setdefault(urlsplit(answer["url"]).path, []).append(answer["status"])
            if message.get("method") == "Log.entryAdded":
                entry = message["params"]["entry"]
                self.blocked += [entry["text"]] * (entry["source"] == "security")
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def open(self, address: str) -> None:
        """Goes there, and waits until the page is there."""
        self.call("Page.navigate", url=address)
        self.wait_for(f"document.readyState === 'complete' && location.href !== 'about:blank' && {address!r}")

    def run(self, script: str) -> Any:
        """What JavaScript gives, a promise's outcome too."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60) -> Any:
        """What JavaScript gives, once it counts as true."""
        end = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < end, self.run("document.documentElement.outerHTML")[:3000]
            time.sleep(0.1)
        return found


@contextmanager
def chromium(folder: Path, proxy: str) -> Iterator[Tab]:
    """A browser with an empty profile, for which all names but this machine's are behind a proxy."""
    assert CHROMIUM is not None
    profile = folder / "profile"
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"--proxy-server={proxy}", "about:blank"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        place, end = profile / "DevToolsActivePort", time.monotonic() + 60
        while not (place.is_file() and place.read_text().count("\n")):
            assert time.monotonic() < end and process.poll() is None, (folder / "chromium.log").read_text()
            time.sleep(0.05)
        port = int(place.read_text().split("\n")[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            (page,) = (one for one in json.load(answer) if one["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Evil(http.server.BaseHTTPRequestHandler):
    """Answers with its page; as a proxy it hands on all but that, as a name server does that has changed its mind."""

    page = b""

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        if place.path == "/attack.html" or not place.hostname:
            self._reply(200, "text/html", self.page)
            return
        length = int(self.headers.get("Content-Length", 0))
        there = http.client.HTTPConnection("127.0.0.1", place.port, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name != "Proxy-Connection"}
        there.request(
            self.command, place.path + "?" * bool(place.query) + place.query,
            self.rfile.read(length) if length else None, headers,
        )  # fmt: skip
        answer = there.getresponse()
        self._reply(answer.status, answer.headers.get_content_type(), answer.read())

    do_POST = do_OPTIONS = do_DELETE = do_PATCH = do_GET

    def _reply(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def evil_server(page: str) -> Iterator[str]:
    """Serves a page on http://127.0.0.1:PORT/attack.html, and as a proxy on every name that isn't this machine's."""
    handler = type("Evil", (_Evil,), {"page": page.encode()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a browser that has ended
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
