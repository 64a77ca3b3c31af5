"""The command `points2model suggest`: which images to label next."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import Console, JsonOption, command_console, log_progress, print_json
from tasks.common.errors import TaskError

EXAMPLE = (
    "Example: points2model suggest --masks 40 --to cvat   |   "
    "points2model suggest --clicks 500 --images new/ --out next"
)
LISTED = 20
"""Images of the table on a terminal; the files have all."""


class Tool(StrEnum):
    """Label tools that a task can be written for."""

    cvat = "cvat"
    label_studio = "label-studio"
    coco = "coco"
    yolo_seg = "yolo-seg"


def suggest(
    masks: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Choose N images that get masks of all their objects."),
    ] = None,
    clicks: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Choose images to click, with about N objects in all."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Images to choose from: a folder, file, pattern or s3://BUCKET/PREFIX; may be given several times. "
            "Default: the weak images of the project; for clicks, those without any."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the list, the contact sheet and the task.")] = Path(
        "suggested"
    ),
    to: Annotated[
        Tool | None,
        typer.Option(
            help="With --masks: write a task for a label tool too, with the masks that there are, to correct."
        ),
    ] = None,
    image_url: Annotated[
        str | None,
        typer.Option(
            help="With label-studio: what precedes an image's name in its address. Default: local files."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Whose predictions count: `promoted`, a version (v3), or a folder. Default: the promoted model, else "
            "the student, else the teacher."
        ),
    ] = None,
    params: Annotated[Path, typer.Option(help="The settings, which name the folder of decisions.")] = Path(
        "params.yaml"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Choose the images whose labels would help most: unlike those with masks, with rare classes, with objects that
    the model misses.

    OUT/suggestion.csv has them with the reasons, contact-sheet.html shows them with the masks that there are. A run
    that was stopped goes on where it was. See docs/suggest.md.
    """
    from data.annotations.writers.label_studio import LOCAL_FILES
    from models.weights import CheckpointError
    from tasks.common.config import load_params
    from tasks.suggestion.suggest import SuggestRequest
    from tasks.suggestion.suggest import suggest as task
    from tasks.tools.model_source import find_model

    console = command_console(as_json)
    log_progress()
    root = Path.cwd()
    try:
        found = find_model(model or _default(root, console), root)
    except CheckpointError as error:
        raise TaskError(str(error)) from None
    settings = load_params(params) if params.exists() or not images else None
    request = SuggestRequest(
        masks, clicks, tuple(images or ()), None if to is None else to.value, image_url or LOCAL_FILES
    )
    summary = task(
        request, found, found.inference(params if params.exists() else None), out, root,
        decisions=None if settings is None else root / settings.review.decisions, device=device,
    )  # fmt: skip
    if as_json:
        print_json(summary)
    _show(console, summary, request.masks, out, to)


def _default(root: Path, console: Console) -> str:
    """The promoted model, else the student of the workspace, else its teacher."""
    from flows.registry.current import promoted_model
    from tasks.promotion.baseline import REGISTRY
    from tasks.promotion.registry import Registry

    if Registry(root / REGISTRY).promoted().version is not None:
        promoted = promoted_model(root)
        console.text(promoted.description())
        return str(promoted.folder)
    for name in ("student", "teacher"):
        folder = root / "workspace" / name
        if (folder / "model.json").is_file():
            console.text(f"model: the {name}; nothing is promoted")
            return str(folder.relative_to(root))
    raise TaskError(
        f"{root}: found no model: nothing is promoted, and workspace/ has no student or teacher;"
        " run `points2model run --target train_teacher`, or name one with --model"
    )


def _show(console: Console, summary: dict[str, Any], wanted: int | None, out: Path, to: Tool | None) -> None:
    from rich.table import Table

    from tasks.common.progress import format_seconds
    from tasks.reporting.figures import count
    from tasks.suggestion.suggest import SHEET, TABLE

    chosen = summary["images"]
    table = Table("", "image", "objects", "first reason", box=None, pad_edge=False)
    for one in chosen[:LISTED]:
        table.add_row(str(one["rank"]), one["image"], f"{one['objects']:.0f}", one["reasons"][0])
    Console(stderr=console.stderr).print(table)
    if len(chosen) > LISTED:
        console.text(f"and {len(chosen) - LISTED:,} more in {out / TABLE}")
    each = summary["cost"]
    cost = f", {format_seconds(summary['seconds'])} at {each['seconds']:g} s each; source: {each['source']}"
    about = f"about {summary['objects']:,.0f} objects{cost}"
    console.text(f"{count(len(chosen), 'image')} of {summary['candidates']:,}, with {about}")
    console.text(f"{out / SHEET}: the images, with the masks that there are")
    if to is not None:
        console.text(f"{out / to.value}: the task for {to.value}; docs/suggest.md has the way back")
    if wanted is not None and len(chosen) < wanted:
        console.note(f"--masks {wanted}: there are only {count(len(chosen), 'image')} to choose from")
    if summary["unreadable"]:
        console.note(f"{count(len(summary['unreadable']), 'image')} can't be read and left out:")
        for fault in summary["unreadable"]:
            console.text(f"  - {fault}")
    if summary["classes_nowhere"]:
        console.note(
            f"no image shows {', '.join(summary['classes_nowhere'])}: no mask, no click, and the model finds none"
        )
