"""The command `points2model experiments`: the main figures of `dvc exp show`, and the params that differ.

`dvc exp show` has a column for each param and metric, more than 400 here; `--only-changed` and `--drop` leave dozens.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flows.cli.console import Console, JsonOption, print_json
from tasks.common.errors import TaskError
from tasks.scoring.metrics import AP, IOU, MODEL_METRICS

if TYPE_CHECKING:
    from rich.table import Table

EXAMPLE = "Example: points2model experiments   |   points2model experiments --commits 5   |   ... --json"
FIGURES = {
    **{metric.label: ("student", metric.key) for metric in MODEL_METRICS if metric.by_class},
    f"teacher {AP.label}": ("teacher", AP.key),
    "pseudo IoU": ("pseudo", f"refined_{IOU.key}"),
}
"""By column, where metrics.json has it; in percent."""
NAME_WIDTH = 22
"""Of an experiment's name in a table for 80 columns."""


@dataclass
class Row:
    """One experiment, or the commit that some start from (`under` is empty then)."""

    name: str
    under: str
    state: str
    created: str | None
    figures: dict[str, float | None]
    params: dict[str, Any]
    changed: dict[str, Any] = field(default_factory=dict)


def experiments(
    commits: Annotated[
        int, typer.Option("--commits", "-n", min=1, help="How many commits back, from HEAD.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """List experiments (`dvc exp run`) below the commit that they start from: AP and the params that differ.

    The best comes first. `dvc exp apply NAME` applies one to the workspace; `dvc exp remove NAME` deletes it.
    """
    from flows.dvc.environment import environment

    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", "-n", str(commits)]
    done = subprocess.run(command, env=environment(Path.cwd()), capture_output=True, text=True, check=False)
    try:
        rows = read_rows(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        message = done.stderr.strip().removeprefix("ERROR: ") or "its output can't be read"
        raise TaskError(f"dvc exp show: {message}") from None
    if as_json:
        print_json({"experiments": [_content(row) for row in rows]})
    else:
        # Without a terminal lines are as long as necessary.
        _show(Console(width=None if sys.stdout.isatty() else 240), rows)


def _content(row: Row) -> dict[str, Any]:
    return {
        "name": row.name, "commit": row.under, "state": row.state, "created": row.created, **row.figures,
        "params": row.changed,
    }  # fmt: skip


def read_rows(shown: list[dict[str, Any]]) -> list[Row]:
    """The rows of `dvc exp show --json`: the workspace, then each commit with its experiments, the best first."""
    rows: list[Row] = []
    for one in shown:
        commit = _row(one, "", "" if one["rev"] == "workspace" else "commit")
        below = []
        for experiment in one.get("experiments") or []:
            executor = experiment.get("executor") or {}
            newest = experiment["revs"][0]
            state = "failed" if newest.get("error") else str(executor.get("state") or "success").lower()
            state = {"success": "done"}.get(state, state)
            row = _row(newest, commit.name, state)
            row.name = experiment.get("name") or row.name
            if state in ("queued", "running"):
                row.figures = dict.fromkeys(FIGURES)  # the file has those of the commit
            below.append(row)
        below.sort(key=lambda row: (row.figures[AP.label] is None, -(row.figures[AP.label] or 0.0), row.name))
        rows += [commit, *below]
    keys = {key for row in rows for key in row.params}
    differing = sorted(key for key in keys if len({json.dumps(row.params.get(key)) for row in rows}) > 1)
    for row in rows:
        row.changed = {key: row.params.get(key) for key in differing}
    return rows


def _row(one: dict[str, Any], under: str, state: str) -> Row:
    data = one.get("data") or {}
    metrics = _merged(data.get("metrics"))
    figures = {name: (metrics.get(part) or {}).get(key) for name, (part, key) in FIGURES.items()}
    name = one.get("name") or one["rev"][:9]
    return Row(name, under, state, data.get("timestamp"), figures, _leaves(_merged(data.get("params"))))


def _merged(files: dict[str, Any] | None) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for file in (files or {}).values():
        if isinstance(content := file.get("data"), dict):
            merged |= content
    return merged


def _leaves(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        leaves |= _leaves(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return leaves


def _show(console: Console, rows: list[Row]) -> None:
    """One table with a column for each param that differs; where that is too wide, the params in a second one."""
    from rich.measure import Measurement

    differing = list(rows[0].changed) if rows else []
    one = _table(rows, list(FIGURES), differing)
    if Measurement.get(console, console.options.update_width(1000), one).maximum <= console.width:
        console.print(one)
    else:
        console.print(_table(rows, ["AP"], [], narrow=True))
        console.print(_params_table(rows))
    if not any(row.under for row in rows):
        console.print("no experiments yet: dvc exp run -S student.lr=0.001", markup=False)


def _table(rows: list[Row], compared: list[str], params: list[str], narrow: bool = False) -> Table:
    """The figures of each row, and these params; `compared` figures with the difference to the commit's.

    A `narrow` table of 80 columns has long names on several lines.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="experiments", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(
        "experiment", no_wrap=not narrow, overflow="fold", max_width=NAME_WIDTH if narrow else None
    )
    table.add_column("state", no_wrap=True)
    for column in FIGURES:
        heading = column.replace(" ", "\n") if narrow else column
        table.add_column(escape(heading), justify="right", no_wrap=narrow)
    for column in params:
        table.add_column(escape(column), justify="right", overflow="fold")
    for row, base in _with_bases(rows):
        cells = [
            _figure(row.figures[key], base.figures.get(key) if row.under and key in compared else None)
            for key in FIGURES
        ]
        cells += [escape(json.dumps(row.changed[key])) for key in params]
        table.add_row(_name(row), escape(row.state), *cells)
    return table


def _params_table(rows: list[Row]) -> Table:
    """The params of each commit, and those of each experiment that differ from its commit's."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    names = Column("experiment", overflow="fold", max_width=NAME_WIDTH)
    table = Table(names, Column("params that differ", overflow="fold"), box=SIMPLE_HEAD, pad_edge=False)
    for row, base in _with_bases(rows):
        own = {
            key: value
            for key, value in row.changed.items()
            if not row.under or value != base.changed.get(key)
        }
        pairs = [f"{key}={json.dumps(value)}" for key, value in own.items()]
        table.add_row(_name(row), escape("\n".join(pairs) or "none"))
    return table


def _with_bases(rows: list[Row]) -> Iterator[tuple[Row, Row]]:
    """Each row with the commit that it starts from; a commit with itself."""
    base = None
    for row in rows:
        base = row if base is None or not row.under else base
        yield row, base


def _name(row: Row) -> str:
    return f"  {escape(row.name)}" if row.under else f"[bold]{escape(row.name)}[/]"


def _figure(value: float | None, base: float | None) -> str:
    if value is None:
        return "-"
    difference = "" if base is None or round(value - base, 1) == 0 else f" ({value - base:+.1f})"
    return f"{value:.1f}{difference}"
