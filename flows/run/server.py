"""Whether the Prefect server of the settings answers, and takes our login."""

from __future__ import annotations

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from data.errors import Fault
from flows.processes.login import API, CLIENT, FILE
from tasks.common.errors import TaskError

LOGIN_TIMEOUT = 60.0
"""Seconds; a busy server may take half of that."""


def lets_us_in() -> bool:
    """Whether the server of Prefect's settings answers.

    Raises:
        TaskError: it refuses our login, or the name that we call it by.
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
        answer = error.response
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        found = (
            f"a refusal (401) {'of the login that is set' if api.auth_string or api.key else 'without it'}"
        )
        step = f'export {CLIENT}="$(cat {FILE})" in the folder whose `points2model serve` that server is'
        raise TaskError(str(Fault(CLIENT, str(api.url), found, "the login of that server", step)))
    if answer.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.FORBIDDEN):
        raise TaskError(f"{API}: {api.url}: the server refuses us: {answer.status_code} {answer.text[:500]}")
    return True


def no_answer() -> TaskError:
    """What is said where nobody answers at PREFECT_API_URL."""
    step = f"start that server, correct {API}, or unset it: then a server of our own is started"
    return TaskError(
        str(Fault(API, str(get_current_settings().api.url), "no answer", "a Prefect server", step))
    )
