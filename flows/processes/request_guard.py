"""Which requests the servers accept: those that name this server and don't come from another server's page.

A browser sends requests to 127.0.0.1 on behalf of any open page. The headers `Origin` and `Sec-Fetch-Site` show the
origin of the page, and pages can't change them. A page whose domain name resolves to this machine (DNS rebinding) has
that name in `Host`. Programs other than browsers send neither `Origin` nor `Sec-Fetch-Site`. The login is checked too.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from flows.processes.login import LOOPBACK

NAMES = "POINTS2MODEL_HOSTS"
"""Environment variable with further names of a server, in the form of `Host`: `flows.example, server:4200`."""
LOGIN_WITHIN = 10.0
"""Seconds within which a websocket must send its login."""
ANY = ("", "0.0.0.0", "::")  # noqa: S104 (compared, not bound)
_UI = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Prefect's UI may run only its own files (its graph of a run needs eval and workers) and connect only to its server: a
script injected through a name in the data would have the login."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": _UI,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
}
"""Headers of each response: no other page may frame it, embed it, or see its address in `Referer`."""

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


def own_names(host: str, port: int) -> frozenset[str]:
    """The values of `Host` that a server on an address and a port accepts, with those of POINTS2MODEL_HOSTS."""
    further = {name.strip().lower() for name in os.environ.get(NAMES, "").split(",")} - {""}
    hosts = {*LOOPBACK} if host in ANY else {*LOOPBACK, host.lower()}
    here = {f"[{one}]" if ":" in one else one for one in hosts}
    plain = {f"{name}:{port}" for name in here} | (here if port == 80 else set())
    return frozenset(plain | further)


def is_loopback(host: str) -> bool:
    """Whether a server on this address can be reached from this machine only."""
    return host in LOOPBACK


def origins(names: Iterable[str]) -> list[str]:
    """The origins of a server's own pages."""
    return [f"{scheme}://{name}" for name in sorted(names) for scheme in ("http", "https")]


def refusal(
    names: frozenset[str], headers: Callable[[str], Sequence[str]], method: str | None = None
) -> str | None:
    """The reason why a request is refused; None if it is accepted.

    Args:
        names: the server's names, see `own_names`.
        headers: returns all values of a header, by its name in lower case.
        method: in capitals; None for a websocket.
    """
    hosts, origin = headers("host"), headers("origin")
    if len(hosts) != 1 or hosts[0].lower() not in names:
        found = ", ".join(hosts)[:100]
        return f"Host {found!a} isn't a name of this server; {NAMES} adds further names"
    if origin:
        is_own = len(origin) == 1 and origin[0].lower() in origins(names)
        return None if is_own else f"Origin {', '.join(origin)[:100]!a} is another server's"
    # A link may lead here; a page may neither frame nor load anything of this server.
    fetch = [",".join(headers(f"sec-fetch-{part}")) for part in ("mode", "dest")]
    is_link = fetch == ["navigate", "document"] and method in ("GET", "HEAD")
    is_ours = ",".join(headers("sec-fetch-site")) in ("", "same-origin", "none")
    return None if is_ours or is_link else "the request comes from another page"


class Guard:
    """An ASGI app that passes only accepted requests on to another app, and those to /api only with the login.

    The first message of a websocket is its login, as in Prefect's protocol. Prefect checks logins again.
    """

    def __init__(
        self, app: Any, names: frozenset[str], login: str, headers: Mapping[str, str] = HEADERS
    ) -> None:
        """
        Args:
            app: gets accepted requests.
            names: see `own_names`.
            login: `user:password`.
            headers: of each response.
        """
        self.app, self.names = app, names
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._token = login.encode()
        self._login = b"Basic " + base64.b64encode(self._token)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Handles a request, a websocket, or the start and end of the server."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        status, why = self._check(scope)
        if why is None:
            is_socket = scope["type"] == "websocket"
            receive = self._with_login_first(receive, send) if is_socket else receive
            await self.app(scope, receive, send if is_socket else self._with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": why[:100]})
        else:
            headers = [(b"content-type", b"application/json")]
            body = json.dumps({"exception_message": why}).encode()
            send = self._with_headers(send)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _check(self, scope: Message) -> tuple[int, str | None]:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
        why = refusal(self.names, lambda name: headers.get(name, []), scope.get("method"))
        if why is not None:
            return 403, why
        if scope["type"] == "websocket" or not scope["path"].startswith("/api/") or _is_open(scope):
            return 200, None
        sent = headers.get("authorization", [])
        is_known = len(sent) == 1 and hmac.compare_digest(sent[0].encode("latin-1"), self._login)
        return (200, None) if is_known else (401, "Unauthorized")

    def _with_headers(self, send: Any) -> Any:
        """`send` that adds the headers to the response."""

        async def sends(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        return sends

    def _with_login_first(self, receive: Any, send: Any) -> Any:
        """`receive` for a websocket; closes it unless its first message is the login and comes within LOGIN_WITHIN."""
        is_known = False
        end = time.monotonic() + LOGIN_WITHIN

        async def receives() -> Message:
            nonlocal is_known
            message: Message
            if is_known:
                message = await receive()
                return message
            try:
                message = await asyncio.wait_for(receive(), max(0, end - time.monotonic()))
            except TimeoutError:
                message = {"type": "websocket.receive"}
            if message["type"] == "websocket.receive":
                is_known = hmac.compare_digest(_token(message), self._token)
                if not is_known:
                    await send({"type": "websocket.close", "code": 1008, "reason": "Unauthorized"})
                    return {"type": "websocket.disconnect", "code": 1008}
            return message

        return receives


def _token(message: Message) -> bytes:
    """The login in the first message of a websocket; b"" if it has none."""
    try:
        return str(json.loads(message.get("text") or "")["token"]).encode(errors="replace")
    except (ValueError, TypeError, LookupError, RecursionError):
        return b""


def _is_open(scope: Message) -> bool:
    """Whether it is a health check, or the preflight request of a browser for another name of this server."""
    return scope["method"] == "OPTIONS" or (
        scope["method"] == "GET" and scope["path"] in ("/api/health", "/api/ready")
    )
