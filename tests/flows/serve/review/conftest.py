"""The made project of tests/tasks/review, and a client of its page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from flows.serve.review.app import Project
from flows.serve.review.server import guarded
from tasks.common.config import Params
from tests.attacks.browser import Tab, chromium
from tests.tasks.review.conftest import made_project, params, project

__all__ = ["made_project", "params", "project"]

LOGIN = "points2model:0123456789abcdef0123"
PORT = 4244
SETTLED = "window.page && page.shown && document.body.dataset.busy === ''"
"""In JavaScript: the page shows an object and waits for nothing."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A real browser."""
    with chromium(tmp_path_factory.mktemp("chromium"), "http://127.0.0.1:9") as tab:
        tab.call(
            "Emulation.setDeviceMetricsOverride", width=1000, height=700, deviceScaleFactor=1, mobile=False
        )
        yield tab


@pytest.fixture
def served(project: Path, params: Params) -> Project:
    return Project(params, project, "anna")


@pytest.fixture
def client(served: Project) -> TestClient:
    """One that sends what the page sends."""
    found = TestClient(guarded(served, LOGIN, PORT), base_url=f"http://127.0.0.1:{PORT}")
    found.auth = tuple(LOGIN.split(":"))  # type: ignore[assignment]
    return found
