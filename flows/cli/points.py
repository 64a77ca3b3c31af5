"""The command `points2model import-points`: a trial import; at most a file of the rejected records is written."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from flows.cli.console import Console, JsonOption, command_console, print_json

EXAMPLE = (
    "Example: points2model import-points june.json   |   "
    "points2model import-points *.xml --format cvat --rejects rejected.csv --json"
)
SHOWN_FAULTS = 20


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

    Run `points2model run --target ingest` before, which reads the images. To import the files, put them into the folder
    points.files and call `points2model run`. The exit code is 1 if a record or file needs a correction; records
    that are skipped, such as boxes among points, don't count.
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
            "doubts": [vars(doubt) for doubt in trial.doubts], "faults": [vars(fault) for fault in trial.faults],
        }  # fmt: skip
        print_json(found)
    else:
        _show(console, trial.counts, trial.reasons, trial.files)
        for doubt in trial.doubts:
            console.print(f"[yellow]doubtful[/] {escape(str(doubt))}")
        for fault in trial.faults[:SHOWN_FAULTS]:
            console.text(f"  {fault}")
        if len(trial.faults) > SHOWN_FAULTS:
            console.print(f"  and {len(trial.faults) - SHOWN_FAULTS} more (--rejects FILE.csv writes all)")
    if trial.faults:
        raise typer.Exit(1)


def _show(
    console: Console, counts: dict[str, int], reasons: dict[str, int], files: dict[str, dict[str, Any]]
) -> None:
    from rich.table import Table

    table = Table(title="files", title_justify="left")
    for column in ("file", "format", "records"):
        table.add_column(column, justify="right" if column == "records" else "left")
    for name, facts in files.items():
        same = facts.get("same_as")
        table.add_row(
            escape(name), escape(f"as {same}" if same else facts["format"]), str(facts.get("records", ""))
        )
    console.print(table)
    console.print(f"{counts['points']} points on {counts['images']} images")
    for reason, count in reasons.items():
        console.text(f"{count} {reason}")
    changes = ", ".join(f"{counts[name]} {name}" for name in ("new", "changed", "removed", "same"))
    console.print(f"in the folder of points.files: {changes}")


def _write_rejects(path: Path, rows: list[dict[str, Any]]) -> None:
    from data.schemas import REJECTED
    from data.storage import atomic_write
    from data.text import safe_cell

    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(REJECTED.names)
        writer.writerows([safe_cell(row[name]) for name in REJECTED.names] for row in rows)
