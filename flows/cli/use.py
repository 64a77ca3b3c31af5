"""The command `points2model use`: writes a recipe's values into params.yaml, and shows them before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from flows.cli.console import Console, JsonOption, command_console, print_json
from tasks.common.errors import NO_PROJECT, TaskError

if TYPE_CHECKING:
    from tasks.tools.recipes import Switch

EXAMPLE = (
    "Example: points2model use nuclei --show   |   points2model use coco_10p --yes   |   "
    "points2model use demo --all   |   points2model use --model-of models/student"
)
PARAMS = Path("params.yaml")


def use(
    recipe: Annotated[
        str | None, typer.Argument(help="A name in recipes/, or a params file of your own.")
    ] = None,
    model_of: Annotated[
        Path | None,
        typer.Option(
            "--model-of",
            help="Instead of a recipe, a checkpoint's folder: section model gets its network, to start from it.",
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Take all sections: those of your data, title, machine and operation too."
        ),
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Show the changes, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without a prompt.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Switch params.yaml to a recipe: the values that change are shown, and written after a prompt.

    Your own sections stay (ingest, points, report.title, runtime, operate), with their comments; the rest is the
    recipe's, with its comments. Results of the former params stay in DVC's cache: switching back costs nothing.
    """
    from data.storage import atomic_write

    console = command_console(as_json)
    if not (PARAMS.is_file() or Path("dvc.yaml").is_file()):
        raise TaskError(f"{Path.cwd()}: neither params.yaml nor dvc.yaml here; {NO_PROJECT}")
    try:
        found = _switch(recipe, model_of, everything)
    except TaskError as error:
        if as_json:
            print_json({"state": "Failed", "error": str(error)})
        raise
    same = PARAMS.is_file() and PARAMS.read_text(encoding="utf-8") == found.text
    if not as_json:
        _show(console, found.name, found.changes, same)
        _show_kept(console, found.kept)
    written = not same and not show and (yes or _is_confirmed(console, as_json))
    if written:
        with atomic_write(PARAMS) as partial:
            partial.write_text(found.text, encoding="utf-8")
    if as_json:
        print_json({"recipe": found.name, "changes": found.changes, "kept": found.kept, "written": written})
    elif written:
        step = (
            ""
            if model_of is None
            else f"set start: checkpoint and checkpoint: {model_of} in teacher or student, "
        )
        verb = "is" if model_of is None else "has"
        console.text(
            f"{PARAMS} {verb} {found.name} now; next: {step}`points2model doctor`, then `points2model run`"
        )
    if not (same or show or written):
        raise typer.Exit(1)


def _switch(recipe: str | None, model_of: Path | None, everything: bool) -> Switch:
    from tasks.tools.recipes import find_recipe, switch

    if (recipe is None) == (model_of is None):
        raise TaskError("use: name a recipe, or a checkpoint with --model-of, and not both")
    if model_of is None:
        return switch(find_recipe(str(recipe)), PARAMS, everything=everything)
    from tasks.tools.model_section import with_network_of

    return with_network_of(model_of, PARAMS)


def _show(console: Console, name: str, lines: list[str], same: bool) -> None:
    if same or not lines:
        console.text(f"{PARAMS} has the values of {name}" + ("" if same else "; comments differ"))
        return
    console.print(Text(f"--- {PARAMS}\n+++ {name}", style="bold"))
    for line in lines:
        console.print(Text(line, style="red" if line[0] == "-" else "green"))


def _show_kept(console: Console, lines: list[str]) -> None:
    if lines:
        console.print(f"kept from {PARAMS} (--all takes the recipe's):")
        for line in lines:
            console.print(Text(f"  {line}", style="dim"))


def _is_confirmed(console: Console, as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        console.print("nothing was written: give --yes if there is no terminal for a prompt")
        return False
    return typer.confirm(f"write {PARAMS}?")
