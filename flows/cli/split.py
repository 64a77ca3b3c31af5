"""The command `points2model split`: strong and weak subsets of a data set whose masks are all known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from data.demo.clicks import ClickKind
from data.demo.split import SplitRequest, write_split_files
from data.errors import DataError
from flows.cli.console import Console, print_json

EXAMPLE = (
    "Example: points2model split datasets/nuclei/train.json --out datasets/nuclei/5p --strong 0.05 --seed 0 "
    "--val datasets/nuclei/val.json"
)


def split(
    annotations: Annotated[Path, typer.Argument(help="A COCO file with a mask for every object.")],
    out: Annotated[Path, typer.Option(help="The folder to write; an earlier split in it is replaced.")],
    strong: Annotated[
        str, typer.Option(help="Strong images: a share (0.05; 1.0 is all of them) or a count (20).")
    ],
    seed: Annotated[int, typer.Option(help="Of everything drawn. One seed's 5% are among its 10%.")] = 0,
    clicks: Annotated[ClickKind, typer.Option(help="Where on its object a click lies.")] = "centre",
    jitter: Annotated[
        float, typer.Option(help="Of `jittered` clicks: their deviation, as a share of the object's size.")
    ] = 0.1,
    val: Annotated[Path | None, typer.Option(help="A COCO file to put beside them as val.json.")] = None,
    folder: Annotated[
        str,
        typer.Option(help="Set before each file name, where images lie in a folder below the image root."),
    ] = "",
    val_folder: Annotated[str, typer.Option(help="The same for the images of --val.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Split a COCO file into images with masks and images with clicks, to try the method where the truth is known.

    Writes strong.json, weak.json, kept_aside.json (the hidden masks) and points/clicks.json. Every class gets a strong
    image, as far as there are enough. Name the folder in `ingest.annotations`, and its points/ in `points.files`.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        request = SplitRequest(
            strong=_strong(strong),
            seed=seed,
            clicks=clicks,
            jitter=jitter,
            folder=folder,
            val_folder=val_folder,
        )
        summary = write_split_files(annotations, out, request, val)
    except (DataError, ValueError) as error:
        console.print(f"[red]failed[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    for line in warnings(summary):
        console.print(f"[yellow]note[/] {escape(line)}")
    if as_json:
        print_json(summary)
    else:
        for what, count in summary["counts"].items():
            console.print(f"{count:>9,} {what.replace('_', ' ')}")
        console.print(f"params.yaml: ingest.annotations: {out}, points.files: {out / 'points'}", markup=False)


def warnings(summary: dict[str, Any]) -> list[str]:
    """What a split couldn't do, a sentence each."""
    few, none = summary["classes_without_strong_image"], summary["classes_without_mask"]
    empty, crowds = summary["empty_masks"], summary["crowds_without_click"]
    lines = []
    if few:
        lines.append(f"too few strong images for every class; without one: {', '.join(few)}. Raise --strong.")
    if none:
        lines.append(f"no image shows these classes: {', '.join(none)}.")
    if empty:
        shown = ", ".join(map(str, empty[:20])) + (", ..." if len(empty) > 20 else "")
        lines.append(f"{len(empty)} masks are empty, and so get no click: annotations {shown}.")
    if crowds:
        lines.append(f"{crowds} crowd regions of weak images get no click.")
    return lines


def _strong(text: str) -> float | int:
    """A share where there is a point in it, else a count."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"--strong: found {text!r}, expected a share such as 0.05 or a count such as 20"
        ) from None
