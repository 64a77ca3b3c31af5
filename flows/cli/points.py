"""The command `points2model import-points`: a trial import; at most a file of the rejected records is written."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flows.cli.console import Console, JsonOption, command_console, print_json

if TYPE_CHECKING:
    from tasks.tools.try_points import Trial

EXAMPLE = (
    "Example: points2model import-points june.json   |   "
    "points2model import-points *.xml --format cvat --rejects rejected.csv --json"
)
SHOWN_FAULTS = 20
SHOWN_FILES = 5
SHOWN_CLASSES = 10


def import_points(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Point files, or folders of them; s3://... too.")
    ],
    params: Annotated[Path, typer.Option(help="The file with section `points`.")] = Path("params.yaml"),
    format_name: Annotated[
        str | None, typer.Option("--format", help="The files' format. Default: points.format.")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Write the rejected records into this CSV file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try an import: what the files contain, what of it fits the data set, and what it would change.

    Before the first ingest (`points2model run --target ingest`), which reads the images, only the files' own content is
    shown and checked. To import the files, put them into the folder points.files and call `points2model run`. The exit
    code is 1 if a record or file needs a correction; records that are skipped, such as boxes among points, don't count.
    """
    from tasks.common.config import load_params
    from tasks.tools.try_points import try_points

    console = command_console(as_json)
    config = load_params(params).points
    if format_name is not None:
        config = config.model_copy(update={"format": format_name})
    trial = try_points(config, files)
    if rejects is not None:
        _write_rejects(rejects, trial.rejected.to_pylist())
    if as_json:
        found = {
            **trial.counts, "reasons": trial.reasons, "files": trial.files,
            "unchecked": trial.unchecked,
            "doubts": [vars(doubt) for doubt in trial.doubts], "faults": [vars(fault) for fault in trial.faults],
        }  # fmt: skip
        print_json(found)
    else:
        _show(console, trial)
        for doubt in trial.doubts:
            console.print(f"[yellow]doubtful[/] {escape(str(doubt))}")
        for fault in trial.faults[:SHOWN_FAULTS]:
            console.text(f"  {fault}")
        if len(trial.faults) > SHOWN_FAULTS:
            console.print(f"  and {len(trial.faults) - SHOWN_FAULTS} more (--rejects FILE.csv writes all)")
    if trial.faults:
        raise typer.Exit(1)


def _show(console: Console, trial: Trial) -> None:
    from rich.table import Table

    from tasks.import_points import in_words

    counts = trial.counts
    table = Table(title="files", title_justify="left")
    columns = ["file", "format", "records"] + (["points", "images"] if trial.unchecked else [])
    for column in columns:
        table.add_column(column, justify="left" if column in ("file", "format") else "right")
    for name, facts in trial.files.items():
        same = facts.get("same_as")
        cells = [f"as {same}" if same else facts["format"], *(str(facts.get(one, "")) for one in columns[2:])]
        table.add_row(escape(name), *map(escape, cells))
    console.print(table)
    if trial.unchecked:
        for name, facts in list(trial.files.items())[:SHOWN_FILES]:
            _show_content(console, name, facts)
    amounts = [f"{counts[name]} {name if counts[name] != 1 else name[:-1]}" for name in ("points", "images")]
    console.print(" on ".join(amounts) + in_words(counts))
    for reason, count in trial.reasons.items():
        console.text(f"{count} {reason}")
    if trial.unchecked:
        console.print(f"[yellow]{escape(trial.unchecked)}[/]")
    else:
        changes = ", ".join(f"{counts[name]} {name}" for name in ("new", "changed", "removed", "same"))
        console.print(f"in the folder of points.files: {changes}")


def _show_content(console: Console, name: str, facts: dict[str, Any]) -> None:
    """Classes, images and first points of a file."""
    if not facts.get("points"):
        return
    classes = sorted(facts["classes"].items(), key=lambda one: -one[1])
    shown = ", ".join(f"{one or 'no class'} ({count})" for one, count in classes[:SHOWN_CLASSES])
    more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
    console.text(f"{name}: {shown}{more}")
    rest = facts["images"] - len(facts["first_images"])
    console.text(f"  images: {', '.join(facts['first_images'])}" + (f" and {rest} more" if rest else ""))
    for point in facts["first_points"]:
        unit = " of the image's sides" if point["shares"] else ""
        console.text(
            f"  ({point['x']:g}, {point['y']:g}){unit} on {point['image']}: {point['class'] or 'no class'}"
        )


def _write_rejects(path: Path, rows: list[dict[str, Any]]) -> None:
    from data.schemas import REJECTED
    from data.storage import atomic_write
    from data.text import safe_cell

    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(REJECTED.names)
        writer.writerows([safe_cell(row[name]) for name in REJECTED.names] for row in rows)
