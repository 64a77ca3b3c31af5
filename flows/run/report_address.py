"""Where a browser finds reports: pages served over HTTP can't link to files."""

from __future__ import annotations

import os

VARIABLE = "POINTS2MODEL_REPORTS_URL"
"""Names the address where reports are served, in the environment of what runs the flow."""
HOST, PORT = "127.0.0.1", 4243


def report_address(md5: str) -> str:
    """The address of the report with this hash, as DVC has it; flows/serve/report_server.py answers there."""
    return f"{_base()}/reports/{md5}.html"


def newest_address() -> str:
    """The address of the project's present report."""
    return f"{_base()}/report.html"


def _base() -> str:
    return (os.environ.get(VARIABLE) or f"http://{HOST}:{PORT}").rstrip("/")
