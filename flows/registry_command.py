"""The commands `points2model models`, `promote` and `rollback`: the registry from the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tasks.errors import TaskError

if TYPE_CHECKING:
    from flows.promotion import Outcome

MODELS_EXAMPLE = "Example: points2model models   |   points2model models --json"
PROMOTE_EXAMPLE = (
    'Example: points2model promote   |   points2model promote --force --reason "val images were relabelled"'
)
ROLLBACK_EXAMPLE = (
    'Example: points2model rollback   |   points2model rollback --to v3 --reason "misses small ones"'
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
BY_HAND = "by hand"


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
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if not found["models"]:
        console.print("no models yet: `points2model run` promotes the first one that it trains")
        return
    Console(highlight=False).print(_table(found))


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
        from flows import promotion  # dvc takes a second that --help shouldn't

        return promotion.promote(root, force=force, reason=reason)

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
        from flows import promotion

        return promotion.roll_back(root, to, reason)

    _act(act, f"rollback: {reason}", as_json)


def listed(root: Path) -> dict[str, Any]:
    """`promoted`, `baseline`, and `models`: one row a version, the newest last."""
    from tasks.baseline import REGISTRY
    from tasks.registry import Registry

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


def _table(found: dict[str, Any]) -> Table:
    table = Table(title="models", title_justify="left")
    for column, justify in (("version", "left"), ("AP", "right"), ("against", "left"), ("difference", "right"),
                            ("verdict", "left"), ("when (UTC)", "left"), ("who", "left"), ("why", "left")):  # fmt: skip
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in found["models"]:
        decided = row["decision"] + " by force" * row["forced"]
        table.add_row(
            row["version"] + " [green]promoted[/]" * row["promoted"],
            _figure(row["AP"], "{:.1f}"),
            row["against"] or "-",
            _figure(row["difference"], "{:+.2f}"),
            f"{row['verdict'].replace('_', ' ')}: {decided}",
            row["when"][:16].replace("T", " "),
            escape(row["who"].split(" <")[0]),
            escape(row["reason"]),
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
    from flows.run_lock import RunLockError, held

    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    try:
        with held(Path.cwd(), why, wait=False, say=console.print):
            outcome = act(Path.cwd())
    except (TaskError, RunLockError) as error:
        _fail(console, str(error))
    except OSError as error:
        _fail(console, f"{error.filename or 'registry'}: {error.strerror or error}")
    if as_json:
        print(
            json.dumps(
                {"decision": outcome.decision, "version": outcome.version, "text": outcome.text}, indent=2
            )
        )
    else:
        console.print(escape(outcome.text))


def _fail(console: Console, message: str) -> NoReturn:
    console.print(f"[red]failed[/] {escape(message)}")
    raise typer.Exit(1) from None
