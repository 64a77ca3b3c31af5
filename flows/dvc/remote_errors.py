"""Errors of remotes as messages with a next step, and whether a later attempt may succeed."""

from __future__ import annotations

import errno
import socket

from data.messages import plain

_PASSING_TYPES = (
    "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "ConnectionError",
    "HTTPClientError", "ServerDisconnectedError", "ClientConnectorError", "ClientOSError", "IncompleteReadError",
    "IncompleteRead", "ResponseStreamingError", "FSTimeoutError", "ProxyConnectionError",
)  # fmt: skip
"""Exceptions of botocore, aiohttp and fsspec by name: these packages may be absent with another kind of remote."""
_PASSING_CODES = (
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "Throttling",
    "503",
    "500",
    "502",
)
_PASSING_ERRNO = (
    errno.EREMOTEIO,
    errno.EBUSY,
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
    errno.ECONNREFUSED,
)


def is_passing(error: BaseException) -> bool:
    """Whether a later attempt may succeed: network, busy server. Not: missing right or bucket, full disk."""
    for one in _chain(error):
        if any(kind.__name__ in _PASSING_TYPES for kind in type(one).__mro__):
            return True
        if isinstance(one, (TimeoutError, socket.timeout, ConnectionError)):
            return True
        if isinstance(one, OSError) and one.errno in _PASSING_ERRNO:
            return True
        if _code(one) in _PASSING_CODES:
            return True
    return False


def explain(error: BaseException) -> str:
    """The message in one line without credentials, with the next step if one is known."""
    text = plain(_text(error))
    advice = _advice(error, text)
    return f"{text.rstrip('.')}; {advice}" if advice else text


def _text(error: BaseException) -> str:
    own = str(error).removeprefix("config file error: ").strip()
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        own = str(error.strerror)
    return " ".join((own or type(error).__name__).split())


_ADVICE: dict[str, tuple[str, ...]] = {
    "create the bucket, or correct its name": ("NoSuchBucket",),
    "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --profile or --ask-credentials": (
        "NoCredentialsError", "PartialCredentialsError",
    ),
    "correct the profile (~/.aws/config lists yours)": ("ProfileNotFound",),
    "these credentials lack that right, or are wrong or expired": ("PermissionError",),
    "give the authority's file by --option ssl_verify=FILE": ("SSLError", "SSLCertVerificationError"),
    "check that the address is right and the server is up": ("EndpointConnectionError", "ConnectionError"),
}  # fmt: skip
"""The next step, by names of exceptions and codes of S3; the first match counts."""


def _advice(error: BaseException, text: str) -> str | None:
    names = {kind.__name__ for one in _chain(error) for kind in type(one).__mro__} | set(
        map(_code, _chain(error))
    )
    for advice, known in _ADVICE.items():
        if names.intersection(known):
            return advice
    if isinstance(error, ImportError) and text.count("'") >= 2:
        return f"run `pip install {text.split(chr(39))[1]}`"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "free space there"
    return None


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    return chain


def _code(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
