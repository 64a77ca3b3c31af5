"""The commands `points2model models`, `promote` and `rollback`: show and change the registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from flows.cli.console import Console, JsonOption, command_console, print_json
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

BY_HAND = "by hand"
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait while a run is under way here; without it, fail.")
]


def models(as_json: JsonOption = False) -> None:
    """List the models that were promoted or refused: AP, difference to the one promoted then, verdict, when, who, why.

    The registry is a folder of plain files, `registry/`. See docs/registry.md.
    """
    found = listed(Path.cwd())
    if as_json:
        print_json(found)
    elif found["models"]:
        _show(found, Console())
    else:
        command_console().print("no models yet: `points2model run` promotes the first one that it trains")


def promote(
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Promote it whatever the comparison's verdict is, and record that. Needs --reason.",
        ),
    ] = False,
    reason: Annotated[
        str, typer.Option(help="Why, for the record. With --force it must say why the verdict doesn't count.")
    ] = BY_HAND,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the current student (workspace/student) the promoted model, which `predict` uses by default.

    A run does so by itself if `operate.promote` is `automatic` and stage `compare` finds the student good enough.
    """
    if force and reason.strip() in ("", BY_HAND):
        raise TaskError(
            "--force: found no --reason; expected why the comparison doesn't count, which the registry keeps for "
            'others to read, such as: points2model promote --force --reason "val images were relabelled"'
        )
    from flows.registry import decide

    _change(
        lambda: decide.promote(Path.cwd(), force=force, reason=reason), f"promote: {reason}", wait, as_json
    )


def rollback(
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Default: the one promoted before the current one.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = BY_HAND,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Promote a formerly promoted version again, byte for byte, from DVC's cache or remote."""
    from flows.registry import decide

    _change(lambda: decide.roll_back(Path.cwd(), to, reason), f"rollback: {reason}", wait, as_json)


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


def _show(found: dict[str, Any], console: Console) -> None:
    """A table of figures, a table of reasons, and why the last refused model was refused; fits 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    table = Table(
        title="models (* is the promoted one)", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    for column in ("version", "AP", "against", "difference", "verdict: decision", "when (UTC)"):
        justify: Literal["left", "right"] = "right" if column in ("AP", "difference") else "left"
        table.add_column(column, justify=justify, no_wrap="verdict" not in column, overflow="fold")
    reasons = Table("version", Column("why (who)", overflow="fold"), box=SIMPLE_HEAD, pad_edge=False)
    for row in found["models"]:
        table.add_row(
            escape(row["version"]) + " [green]*[/]" * row["promoted"],
            _figure(row["AP"], "{:.1f}"),
            escape(row["against"] or "-"),
            _figure(row["difference"], "{:+.2f}"),
            f"{row['verdict'].replace('_', ' ')}: {row['decision']}" + " by force" * row["forced"],
            row["when"][:16].replace("T", " "),
        )
        reasons.add_row(escape(row["version"]), escape(f"{row['reason']} ({row['who'].split(' <')[0]})"))
    console.print(table)
    console.print(reasons)
    refused = [row for row in found["models"] if row["decision"] == "refused"]
    if refused:
        console.text(f"{refused[-1]['version']} is refused: {' '.join(refused[-1]['reasons'])}")


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _change(change: Callable[[], Outcome], why: str, wait: bool, as_json: bool) -> None:
    """Changes the registry while no run is under way, and prints the outcome."""
    from flows.processes.run_lock import held

    console = command_console(as_json)
    try:
        with held(Path.cwd(), why, wait=wait, say=console.text):
            outcome = change()
    except OSError as error:
        raise TaskError(f"{error.filename or 'registry'}: {error.strerror or error}") from None
    if as_json:
        print_json({"decision": outcome.decision, "version": outcome.version, "text": outcome.text})
    else:
        console.text(outcome.text)
