"""The command `points2model split`: strong and weak subsets of a data set whose masks are all known."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.cli.console import Console, JsonOption, print_json
from tasks.common.errors import TaskError

EXAMPLE = (
    "Example: points2model split datasets/nuclei/train.json --out datasets/nuclei/5p --strong 0.05 --seed 0 "
    "--val datasets/nuclei/val.json"
)
ClickKind = Literal["centre", "random", "jittered"]
"""As in data/demo/clicks.py, which takes too long to import for --help."""


def split(
    annotations: Annotated[Path, typer.Argument(help="A COCO file with a mask for every object.")],
    out: Annotated[Path, typer.Option(help="The folder to write; an earlier split in it is replaced.")],
    strong: Annotated[
        str, typer.Option(help="Strong images: a share (0.05; 1.0 is all of them) or a count (20).")
    ],
    seed: Annotated[int, typer.Option(help="Of all random draws. One seed's 5% are a part of its 10%.")] = 0,
    clicks: Annotated[ClickKind, typer.Option(help="Where on its object a click is.")] = "centre",
    jitter: Annotated[
        float, typer.Option(help="Standard deviation of `jittered` clicks, as a share of the object's size.")
    ] = 0.1,
    val: Annotated[Path | None, typer.Option(help="A COCO file to copy to val.json.")] = None,
    folder: Annotated[
        str,
        typer.Option(help="Put before each file name, where images are in a folder below the image root."),
    ] = "",
    val_folder: Annotated[str, typer.Option(help="The same for the images of --val.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Split a COCO file into images with masks and images with clicks, to try the method where all masks are known.

    Writes strong.json, weak.json, kept_aside.json (the hidden masks) and points/clicks.json. Every class gets a strong
    image, as far as there are enough. It ends with the command that makes a project of them.
    """
    from data.demo.split import SplitRequest, write_split_files

    request = SplitRequest(
        strong=_strong(strong), seed=seed, clicks=clicks, jitter=jitter, folder=folder, val_folder=val_folder
    )
    try:
        summary = write_split_files(annotations, out, request, val)
    except ValueError as error:
        raise TaskError(str(error)) from None
    console = Console(stderr=True, soft_wrap=True)
    for line in warnings(summary):
        console.note(line)
    if as_json:
        print_json(summary)
    else:
        for what, count in summary["counts"].items():
            console.print(f"{count:>9,} {what.replace('_', ' ')}")
        files = {"masks": "strong.json"} | ({"val": "val.json"} if val is not None else {})
        if summary["counts"]["weak_images"]:
            files |= {"kept-aside": "kept_aside.json", "points": "points"}
        options = " ".join(f"--{flag} {shlex.quote(str(out / name))}" for flag, name in files.items())
        console.text(f"next: `points2model init PROJECT --images IMAGES {options}`")


def warnings(summary: dict[str, Any]) -> list[str]:
    """What the split couldn't do, a sentence each."""
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
    """A count if it is a whole number, else a share."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise TaskError(
            f"--strong: found {text!r}, expected a share such as 0.05 or a count such as 20"
        ) from None
