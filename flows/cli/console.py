"""What every command shares: the console, how it fails, and JSON for scripts."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import rich.console
import typer
from rich.console import ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text
from typer.core import TyperCommand

from data.errors import DataError
from data.messages import guard_logs, plain, redact
from tasks.common.errors import NO_PROJECT, TaskError

MIN_WIDTH = 20
"""Columns; without a terminal the variable COLUMNS may be less."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


class Console(rich.console.Console):
    """rich's console, with text made `plain`: a name can't move the cursor, and no secret is shown.

    Markup is interpreted as rich does; `text`, `note` and `failed` print text without it.
    """

    def __init__(self, **options: Any) -> None:
        columns = os.environ.get("COLUMNS", "")
        if columns.isdigit() and int(columns) < MIN_WIDTH and options.get("width") is None:
            options["width"] = 80  # rich prints nothing at a width of 0
        super().__init__(**{"emoji": False, "highlight": False, **options})

    def text(self, text: str) -> None:
        """Prints text without interpreting markup in it."""
        self.print(escape(text))

    def note(self, text: str) -> None:
        """Prints a note."""
        self.print(f"[yellow]note[/] {escape(text)}")

    def failed(self, text: str) -> None:
        """Prints why the command fails."""
        self.print(f"[red]failed[/] {escape(text)}")

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string that is printed with its markup passes here, a table's cells included."""
        return super().render_str(plain(text, lines=True), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Text that is styled without markup passes here."""
        if isinstance(renderable, Text) and (text := plain(renderable.plain, lines=True)) != renderable.plain:
            renderable = Text(
                text, renderable.style, justify=renderable.justify, overflow=renderable.overflow
            )
        return super().render(renderable, options)


def command_console(as_json: bool = False) -> Console:
    """The console of a command: stdout, or stderr where stdout is for JSON. Lines aren't wrapped."""
    return Console(stderr=as_json, soft_wrap=True)


class Command(TyperCommand):
    """A command whose errors that a user can fix end it with their message and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (DataError, TaskError) as error:
            command_console(ctx.params.get("as_json", False)).failed(str(error))
            raise typer.Exit(1) from None


def check_project(root: Path) -> None:
    """Raises TaskError where there is no project."""
    if not (root / "dvc.yaml").is_file():
        raise TaskError(f"{root}: no dvc.yaml here; {NO_PROJECT}")


def log_progress() -> None:
    """Logs the progress of long work to stderr."""
    guard_logs()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "dvc"):
        logging.getLogger(name).setLevel(logging.WARNING)


def print_json(content: Any) -> None:
    """Prints one JSON object on stdout: in ASCII, which any locale has, and without secrets."""
    print(json.dumps(_redacted(content), indent=2))


def _redacted(content: Any) -> Any:
    if isinstance(content, str):
        return redact(content)
    if isinstance(content, dict):
        return {_redacted(key): _redacted(value) for key, value in content.items()}
    return [_redacted(one) for one in content] if isinstance(content, (list, tuple)) else content
