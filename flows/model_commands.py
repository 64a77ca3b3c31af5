"""Commands on single models, outside the pipeline: importing published weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from data.errors import DataError
from tasks.errors import TaskError

IMPORT_EXAMPLE = (
    "Example: points2model import-checkpoint SOLOv2_R101_coco10p.pth --out models/coco10p --categories coco"
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def import_checkpoint(
    file: Annotated[Path, typer.Argument(help=".pth, .pt or .pkl; nothing in it is executed.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, or for a backbone's weights.")],
    categories: Annotated[
        str | None,
        typer.Option(help="coco, bdd100k, a COCO JSON file, or a list of {id, name}. Default: numbers 1..C."),
    ] = None,
    settings: Annotated[
        str | None,
        typer.Option(
            help="student or teacher: whose grids and size ranges, which no tensor tells. Default: those of a "
            "config.yaml beside FILE, else student, as are SOLOv2's own."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The config.yaml that the reference's training wrote.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a published file ours: the reference's SOLOv2 or MaskRefineNet, or an MSRA backbone (R-50.pkl, R-101.pkl).

    What it is and how large is found from its tensors; each one's name and shape is checked.
    """
    from tasks import import_checkpoint as task  # torch takes seconds that --help shouldn't

    console = _console(as_json)
    try:
        done = task.import_checkpoint(file, out, categories=categories, settings=settings, config=config)
    except (TaskError, DataError) as error:
        fail(console, str(error))
    if as_json:
        _print({"kind": done.kind, "path": str(done.path), "text": done.text})
    else:
        console.print(escape(f"{done.path}: {done.text}"))


def _console(as_json: bool) -> Console:
    """Where a command talks to people; log lines go to stderr."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    return Console(stderr=as_json, highlight=False, soft_wrap=True)


def _print(summary: dict[str, Any]) -> None:
    print(json.dumps(summary, indent=2))


def fail(console: Console, message: str) -> NoReturn:
    """Says why, and ends with code 1."""
    console.print(f"[red]failed[/] {escape(message)}")
    raise typer.Exit(1)
