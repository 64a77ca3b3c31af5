"""Where commands print: to people, in `plain` text whatever the names in it are, and to scripts as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from data.messages import plain, redact

NARROWEST = 20
"""Columns; COLUMNS may say less where no terminal is."""


class Console(rich.console.Console):
    """rich's, whose text is `plain`: a name can't move the cursor, and no secret is shown.

    Markup is interpreted as rich does: names are given through `rich.markup.escape`.
    """

    def __init__(self, **options: Any) -> None:
        columns = os.environ.get("COLUMNS", "")
        if columns.isdigit() and int(columns) < NARROWEST and options.get("width") is None:
            options["width"] = 80  # rich would print nothing at a width of 0
        super().__init__(**{"emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """What each string that is printed passes, with its markup, a table's cells too."""
        return super().render_str(plain(text, lines=True), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What all else passes: texts that are styled without markup."""
        if isinstance(renderable, Text) and (text := plain(renderable.plain, lines=True)) != renderable.plain:
            renderable = Text(
                text, renderable.style, justify=renderable.justify, overflow=renderable.overflow
            )
        return super().render(renderable, options)


def print_json(content: Any) -> None:
    """Prints one JSON object on stdout: in ASCII, which any locale has, and without secrets."""
    print(json.dumps(_redacted(content), indent=2))


def _redacted(content: Any) -> Any:
    if isinstance(content, str):
        return redact(content)
    if isinstance(content, dict):
        return {_redacted(key): _redacted(value) for key, value in content.items()}
    return [_redacted(one) for one in content] if isinstance(content, (list, tuple)) else content
