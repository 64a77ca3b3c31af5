"""Which requests our servers take: those that name this server, and come from no page of another.

A browser sends requests to 127.0.0.1 for any page that is open in it. A page of another origin says so in `Origin` or
`Sec-Fetch-Site`, which pages can't change; a page whose own name was made to lead here (DNS rebinding) has that name in
`Host`. Programs send none of the former two. This stands before a login, not in its place.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from flows.processes.login import LOOPBACK

NAMES = "POINTS2MODEL_HOSTS"
"""Further names by which a server is reached, in its environment: `flows.example, server:4200`, as `Host` has them."""
LOGIN_WITHIN = 10.0
"""Seconds that a websocket has for its login."""
ANY = ("", "0.0.0.0", "::")  # noqa: S104 (named, not bound)
_UI = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Prefect's UI runs its own files alone (its graph of a run needs eval, and workers), and talks to its server alone: a
script that came in by a name in our data would have the login."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": _UI,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
}
"""Of each answer: no other page may frame it, load it as a part of itself, or learn of it by links."""

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


def own_names(host: str, port: int) -> frozenset[str]:
    """What `Host` may be for a server that listens on an address and a port, with what POINTS2MODEL_HOSTS adds."""
    further = {name.strip().lower() for name in os.environ.get(NAMES, "").split(",")} - {""}
    hosts = {*LOOPBACK} if host in ANY else {*LOOPBACK, host.lower()}
    here = {f"[{one}]" if ":" in one else one for one in hosts}
    plain = {f"{name}:{port}" for name in here} | (here if port == 80 else set())
    return frozenset(plain | further)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on an address."""
    return host in LOOPBACK


def origins(names: Iterable[str]) -> list[str]:
    """The origins of a server's own pages."""
    return [f"{scheme}://{name}" for name in sorted(names) for scheme in ("http", "https")]


def refusal(
    names: frozenset[str], headers: Callable[[str], Sequence[str]], method: str | None = None
) -> str | None:
    """Why a request isn't taken; None where it is.

    Args:
        names: what the server is called, see `own_names`.
        headers: gives all values of a header by its name in lower case.
        method: in capitals; None for a websocket.
    """
    hosts, origin = headers("host"), headers("origin")
    if len(hosts) != 1 or hosts[0].lower() not in names:
        found = ", ".join(hosts)[:100]
        return f"Host {found!a} isn't a name of this server; further ones are set by {NAMES}"
    if origin:
        is_own = len(origin) == 1 and origin[0].lower() in origins(names)
        return None if is_own else f"Origin {', '.join(origin)[:100]!a} is another's"
    # A link may lead here; a page may neither frame this nor load anything of it.
    fetch = [",".join(headers(f"sec-fetch-{part}")) for part in ("mode", "dest")]
    is_link = fetch == ["navigate", "document"] and method in ("GET", "HEAD")
    is_ours = ",".join(headers("sec-fetch-site")) in ("", "same-origin", "none")
    return None if is_ours or is_link else "the request comes from another page"


class Guard:
    """An ASGI app that lets another one see only requests which are to be taken, and those to /api only with the login.

    A websocket's login is its first message, as Prefect has it. Prefect checks logins itself, once more.
    """

    def __init__(self, app: Any, names: frozenset[str], login: str) -> None:
        self.app, self.names = app, names
        self._token = login.encode()
        self._login = b"Basic " + base64.b64encode(self._token)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """One connection's request, websocket, or the server's own start and end."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        status, why = self._judge(scope)
        if why is None:
            is_socket = scope["type"] == "websocket"
            receive = self._with_login_first(receive, send) if is_socket else receive
            await self.app(scope, receive, send if is_socket else _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": why[:100]})
        else:
            headers = [(b"content-type", b"application/json")]
            body = json.dumps({"exception_message": why}).encode()
            send = _with_headers(send)
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _judge(self, scope: Message) -> tuple[int, str | None]:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
        why = refusal(self.names, lambda name: headers.get(name, []), scope.get("method"))
        if why is not None:
            return 403, why
        if scope["type"] == "websocket" or not scope["path"].startswith("/api/") or _is_open(scope):
            return 200, None
        shown = headers.get("authorization", [])
        is_known = len(shown) == 1 and hmac.compare_digest(shown[0].encode("latin-1"), self._login)
        return (200, None) if is_known else (401, "Unauthorized")

    def _with_login_first(self, receive: Any, send: Any) -> Any:
        """`receive`, of a websocket that is closed unless its first message is the login, and comes soon."""
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
    """The login of a websocket's first message; b"" where it is something else."""
    try:
        return str(json.loads(message.get("text") or "")["token"]).encode(errors="replace")
    except (ValueError, TypeError, LookupError, RecursionError):
        return b""


def _is_open(scope: Message) -> bool:
    """Whether it is a probe, or the question that a browser sends before a request to another of our own names."""
    return scope["method"] == "OPTIONS" or (
        scope["method"] == "GET" and scope["path"] in ("/api/health", "/api/ready")
    )


def _with_headers(send: Any) -> Any:
    """`send`, with HEADERS in the answer's start."""
    ours = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def sends(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *ours]
        await send(message)

    return sends
