"""Renders report.html and its further pages from their templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.messages import plain
from tasks.common.progress import format_seconds
from tasks.reporting.figures import count, difference, figure

REPORT_TEMPLATE = "report.html.j2"
STATUS_WORDS = {
    "ok": "refined",
    "rough": "kept rough",
    "empty": "without a mask",
    "failed": "failed",
}


def render(template: str, /, **content: Any) -> str:
    """The page of a template with `content`, its variables."""
    environment = templates(Path(__file__).parent)
    environment.filters |= {"figure": figure, "cell": _cell, "score": "{:g}".format}
    environment.globals |= {"difference_of": difference, "status_words": STATUS_WORDS}
    return environment.get_template(template).render(**content)


def templates(folder: Path) -> Environment:
    """Of pages that need no other file: a missing variable is an error, and text is shown as text."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"count": count, "duration": format_seconds}
    return environment


def _cell(value: Any) -> str:
    """A count, or a score of 0 to 1."""
    return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else f"{value:,}"


def _shown(value: Any) -> Any:
    """Text without characters that a page shouldn't show; HTML (pictures, charts) stays."""
    return plain(value, lines=True) if type(value) is str else value
