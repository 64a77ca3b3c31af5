"""The address of reports for browsers: pages served over HTTP can't link to files."""

from __future__ import annotations

import os

VARIABLE = "POINTS2MODEL_REPORTS_URL"
"""The environment variable with the address where reports are served; read where the flow runs."""
HOST, PORT = "127.0.0.1", 4243


def report_address(md5: str) -> str:
    """The address of the report with this hash, the one in dvc.lock; flows/serve/report_server.py serves it."""
    return f"{_base()}/reports/{md5}.html"


def newest_address() -> str:
    """The address of the project's newest report."""
    return f"{_base()}/report.html"


def _base() -> str:
    return (os.environ.get(VARIABLE) or f"http://{HOST}:{PORT}").rstrip("/")
