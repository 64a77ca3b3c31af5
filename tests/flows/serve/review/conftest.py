"""The made project of tests/tasks/review, and a client of its page."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from flows.serve.review.app import Project
from flows.serve.review.server import guarded
from tasks.common.config import Params
from tests.tasks.review.conftest import made_project, params, project

__all__ = ["made_project", "params", "project"]

LOGIN = "points2model:0123456789abcdef0123"
PORT = 4244


@pytest.fixture
def served(project: Path, params: Params) -> Project:
    return Project(params, project, "anna")


@pytest.fixture
def client(served: Project) -> TestClient:
    """One that sends what the page sends."""
    found = TestClient(guarded(served, LOGIN, PORT), base_url=f"http://127.0.0.1:{PORT}")
    found.auth = tuple(LOGIN.split(":"))  # type: ignore[assignment]
    return found
