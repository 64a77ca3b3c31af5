"""The command `points2model use`: another recipe's values in params.yaml, shown before they are written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from flows.cli.console import Console, print_json

EXAMPLE = (
    "Example: points2model use nuclei --show   |   points2model use coco_10p --yes   |   "
    "points2model use demo --all"
)
PARAMS = Path("params.yaml")


def use(
    recipe: Annotated[str, typer.Argument(help="A name in recipes/, or a params file of your own.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Take all of it: where data are, title, machine and operation too.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Show what would change, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Switch params.yaml to a recipe: the values that change are shown, then it asks.

    Your own sections stay (ingest, points, report.title, runtime, operate), with their comments; the rest is the
    recipe's, with its comments. What you tried stays in git and in DVC's cache: `points2model use` back costs nothing.
    """
    from data.storage import atomic_write
    from tasks.common.errors import TaskError
    from tasks.tools.recipes import find_recipe, switch

    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    try:
        found = switch(find_recipe(recipe), PARAMS, everything=everything)
    except TaskError as error:
        if as_json:
            print_json({"state": "Failed", "error": str(error)})
        console.print(Text.assemble(("failed ", "red"), str(error)))
        raise typer.Exit(1) from None
    same = PARAMS.is_file() and PARAMS.read_text(encoding="utf-8") == found.text
    if not as_json:
        _show(console, found.name, found.changes, same)
        _show_kept(console, found.kept)
    written = not same and not show and (yes or _agreed(console, as_json))
    if written:
        with atomic_write(PARAMS) as partial:
            partial.write_text(found.text, encoding="utf-8")
    if as_json:
        print_json({"recipe": found.name, "changes": found.changes, "kept": found.kept, "written": written})
    elif written:
        console.print(
            f"{PARAMS} is {escape(found.name)} now; look with `points2model doctor`, then `points2model run`"
        )
    if not (same or show or written):
        raise typer.Exit(1)


def _show(console: Console, name: str, lines: list[str], same: bool) -> None:
    if same or not lines:
        console.print(f"{PARAMS} has the values of {escape(name)}" + ("" if same else "; comments differ"))
        return
    console.print(Text(f"--- {PARAMS}\n+++ {name}", style="bold"))
    for line in lines:
        console.print(Text(line, style="red" if line[0] == "-" else "green"))


def _show_kept(console: Console, lines: list[str]) -> None:
    if lines:
        console.print(f"kept from {PARAMS} (--all takes the recipe's):")
        for line in lines:
            console.print(Text(f"  {line}", style="dim"))


def _agreed(console: Console, as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        console.print("nothing was written: give --yes where nobody can be asked")
        return False
    return typer.confirm(f"write {PARAMS}?")
