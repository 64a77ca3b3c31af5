"""The commands `points2model models`, `promote` and `rollback`: the registry from the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from flows.cli.console import Console, print_json
from tasks.common.errors import TaskError

if TYPE_CHECKING:
    from flows.registry.decide import Outcome

MODELS_EXAMPLE = "Example: points2model models   |   points2model models --json"
PROMOTE_EXAMPLE = (
    'Example: points2model promote   |   points2model promote --force --reason "val images were relabelled"'
)
ROLLBACK_EXAMPLE = (
    'Example: points2model rollback   |   points2model rollback --to v3 --reason "misses small ones"'
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
BY_HAND = "by hand"
WIDE = 120
"""Columns of a terminal that has room for all of the table beside each other."""


def models(as_json: JsonOption = False) -> None:
    """List the models that were decided on: AP, difference to the one promoted then, verdict, when, who and why.

    The registry is a folder of plain files, `registry/`. See docs/registry.md.
    """
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    try:
        found = listed(Path.cwd())
    except TaskError as error:
        _fail(console, str(error))
    if as_json:
        print_json(found)
        return
    if not found["models"]:
        console.print("no models yet: `points2model run` promotes the first one that it trains")
        return
    console = Console(highlight=False)
    console.print(_table(found, wide=console.width >= WIDE))


def promote(
    force: Annotated[
        bool, typer.Option("--force", help="Whatever the comparison says; recorded as such. Needs --reason.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = BY_HAND,
    as_json: JsonOption = False,
) -> None:
    """Make the present student (workspace/student) the promoted model, which `predict` uses by default.

    Runs do so themselves where params.yaml says `operate.promote: automatic` and stage `compare` finds it good enough.
    """
    if force and reason.strip() in ("", BY_HAND):
        _fail(
            Console(stderr=as_json, highlight=False, soft_wrap=True),
            "--force: found no --reason; expected why the comparison doesn't count, which the registry keeps for "
            'others to read, such as: points2model promote --force --reason "val images were relabelled"',
        )

    def act(root: Path) -> Outcome:
        from flows.registry import decide  # dvc takes a second that --help shouldn't

        return decide.promote(root, force=force, reason=reason)

    _act(act, f"promote: {reason}", as_json)


def rollback(
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Default: the one promoted before the present one.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = BY_HAND,
    as_json: JsonOption = False,
) -> None:
    """Make a former promoted version the promoted one again, byte for byte, from DVC's cache or remote."""

    def act(root: Path) -> Outcome:
        from flows.registry import decide

        return decide.roll_back(root, to, reason)

    _act(act, f"rollback: {reason}", as_json)


def listed(root: Path) -> dict[str, Any]:
    """`promoted`, `baseline`, and `models`: one row a version, the newest last."""
    from tasks.promotion.baseline import REGISTRY
    from tasks.promotion.registry import Registry

    registry = Registry(root / REGISTRY)
    promoted = registry.promoted()
    rows = [
        {
            "version": entry.version,
            "promoted": entry.version == promoted.version,
            "decision": entry.decision,
            "forced": any(e.version == entry.version and e.action == "forced" for e in promoted.history),
            "AP": entry.comparison.overall.candidate,
            "against": entry.comparison.baseline.version,
            "difference": entry.comparison.overall.difference,
            "verdict": entry.comparison.verdict,
            "reasons": entry.comparison.reasons,
            "when": entry.when,
            "who": entry.who,
            "reason": entry.reason,
            "commit": entry.code.commit,
            "model": entry.model,
        }
        for entry in registry.entries()
    ]
    return {
        "promoted": promoted.version,
        "baseline": registry.baseline().version,
        "models": rows,
        "history": [event.model_dump(mode="json") for event in promoted.history],
    }


def _table(found: dict[str, Any], *, wide: bool) -> Table:
    """A row a model. The narrow form is for 80 columns: what is long wraps, and nothing is cut."""
    table = Table(title="models", title_justify="left")
    columns = ["version", "AP", "against", "difference", "verdict", "when (UTC)", "who", "why"]
    if not wide:
        table = Table(
            title="models (* is promoted)", title_justify="left", box=SIMPLE_HEAD, collapse_padding=True
        )
        columns = ["", "AP", "vs", "diff.", "verdict", "when (UTC)", "why (who)"]
    for column in columns:
        long = column in ("verdict", "when (UTC)", "who", "why", "why (who)")
        right = column in ("AP", "difference", "diff.")
        table.add_column(
            column, justify="right" if right else "left", no_wrap=not long, overflow="fold",
            width=None if wide else {"verdict": 17, "when (UTC)": 10}.get(column),
        )  # fmt: skip
    for row in found["models"]:
        decided = row["decision"] + " by force" * row["forced"]
        who, why = escape(row["who"].split(" <")[0]), escape(row["reason"])
        table.add_row(
            escape(row["version"]) + (" [green]promoted[/]" if wide else " [green]*[/]") * row["promoted"],
            _figure(row["AP"], "{:.1f}"),
            escape(row["against"] or "-"),
            _figure(row["difference"], "{:+.2f}"),
            f"{row['verdict'].replace('_', ' ')}: {decided}",
            row["when"][:16].replace("T", " "),
            *([who, why] if wide else [f"{why} ({who})"]),
        )
    refused = [row for row in found["models"] if row["decision"] == "refused"]
    if refused:
        last = refused[-1]
        table.caption = f"{last['version']} is refused: {escape(' '.join(last['reasons']))}"
        table.caption_justify = "left"
    return table


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _act(act: Callable[[Path], Outcome], why: str, as_json: bool) -> None:
    """Does it while no run is under way, and says what came of it."""
    from flows.processes.run_lock import RunLockError, held

    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    try:
        with held(Path.cwd(), why, wait=False, say=lambda line: console.print(escape(line))):
            outcome = act(Path.cwd())
    except (TaskError, RunLockError) as error:
        _fail(console, str(error))
    except OSError as error:
        _fail(console, f"{error.filename or 'registry'}: {error.strerror or error}")
    if as_json:
        print_json({"decision": outcome.decision, "version": outcome.version, "text": outcome.text})
    else:
        console.print(escape(outcome.text))


def _fail(console: Console, message: str) -> NoReturn:
    console.print(f"[red]failed[/] {escape(message)}")
    raise typer.Exit(1) from None
