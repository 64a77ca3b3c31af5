"""Whether the Prefect server of the settings responds, and accepts our login."""

from __future__ import annotations

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from data.errors import Fault
from flows.processes.login import API, CLIENT, FILE
from tasks.common.errors import TaskError

LOGIN_TIMEOUT = 60.0
"""Seconds; a busy server may take half of that."""


def check_server() -> None:
    """Checks that the server of Prefect's settings responds and accepts our login.

    Raises:
        TaskError: it doesn't.
    """
    if not server_responds():
        step = f"start that server, correct {API}, or unset it: then a server of our own is started"
        address = str(get_current_settings().api.url)
        raise TaskError(str(Fault(API, address, "no response", "a Prefect server", step)))


def server_responds() -> bool:
    """Whether the server of Prefect's settings responds.

    Raises:
        TaskError: it rejects our login, or its name in the address.
    """
    api = get_current_settings().api
    try:
        # Prefect's client, for its settings: certificates, further headers. One request.
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": LOGIN_TIMEOUT}, sync_client=True) as client,
        ):
            client.request("GET", "/admin/version")
        return True
    except httpx.HTTPStatusError as error:
        response = error.response
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    if response.status_code == httpx.codes.UNAUTHORIZED:
        has_login = bool(api.auth_string or api.key)
        found = f"401 Unauthorized {'for the login that is set' if has_login else 'without a login'}"
        step = f'export {CLIENT}="$(cat {FILE})" in the folder whose `points2model serve` that server is'
        raise TaskError(str(Fault(CLIENT, str(api.url), found, "the login of that server", step)))
    if response.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.FORBIDDEN):
        raise TaskError(
            f"{API}: {api.url}: the server rejects our requests: {response.status_code} {response.text[:500]}"
        )
    return True
