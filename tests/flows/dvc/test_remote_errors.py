"""Which errors of a remote may pass by themselves: by type, code and number, wherever in the chain they are."""

from __future__ import annotations

import errno

import pytest

from flows.dvc.remote_errors import is_passing


class EndpointConnectionError(Exception):
    """Called as botocore's, which needn't be installed."""


class ClientError(Exception):
    """With a code, as botocore's."""

    def __init__(self, code: str) -> None:
        super().__init__("An error occurred")
        self.response = {"Error": {"Code": code}}


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (EndpointConnectionError("no route"), True),
        (TimeoutError("slow"), True),
        (ConnectionResetError("gone"), True),
        (OSError(errno.ETIMEDOUT, "timed out"), True),
        (OSError(errno.EREMOTEIO, "remote I/O"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (PermissionError(errno.EACCES, "denied"), False),
        (ClientError("SlowDown"), True),
        (ClientError("503"), True),
        (ClientError("NoSuchBucket"), False),
        (ClientError("403"), False),
        (ValueError("unknown"), False),
    ],
)
def test_what_may_pass(error: Exception, passing: bool) -> None:
    assert is_passing(error) is passing
    assert is_passing(_caused(error)) is passing
    assert is_passing(_while_handling(error)) is passing


def _caused(error: Exception) -> Exception:
    """`raise ... from error`, as DVC does."""
    try:
        raise RuntimeError("push failed") from error
    except RuntimeError as found:
        return found


def _while_handling(error: Exception) -> Exception:
    """An error that was raised while `error` was handled, as fsspec does."""
    try:
        try:
            raise error
        except Exception:
            raise RuntimeError("push failed")  # noqa: B904
    except RuntimeError as found:
        return found
