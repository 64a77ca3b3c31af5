"""The command `points2model budget`: what to label next, what it costs, and what it will bring."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flows.cli.console import Console, JsonOption, command_console, print_json

if TYPE_CHECKING:
    from flows.project.budget import Plan, Price
    from tasks.budget.forecast import Batch, Forecaster

EXAMPLE = (
    "Example: points2model budget --price   |   points2model budget --yes   |   "
    "points2model budget --masks 20 --clicks 200 --seeds 2 --json"
)


def budget(
    masks: Annotated[
        int | None,
        typer.Option(min=1, help="Images to draw masks on; default: a quarter more than there are."),
    ] = None,
    clicks: Annotated[
        int | None, typer.Option(min=1, help="Images to click; default: a quarter more than there are.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=2, help="Steps of each student; default: a quarter of student.steps, 200 or more."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Trainings of each part, with other seeds.")] = 1,
    mask_seconds: Annotated[
        float | None, typer.Option(min=0.01, help="Work for a mask; default: from the review, else 79.2.")
    ] = None,
    click_seconds: Annotated[
        float | None, typer.Option(min=0.01, help="Work for a click; default: from the review, else 2.4.")
    ] = None,
    price: Annotated[bool, typer.Option("--price", help="Print what it takes, and train nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Train without a question.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Forecast what more masks and more clicks bring: trains on nested parts of your data, and extends their curves.

    25, 50 and 100% of the images with masks, with 50 and 100% of those with clicks: six short trainings, in folders of
    their own. What is finished is kept, also after Ctrl-C.
    """
    from flows.processes.run_lock import held
    from flows.project.budget import measured, prepare, train
    from flows.project.budget import price as price_of
    from tasks.budget.forecast import Forecaster
    from tasks.budget.record import add_measurement
    from tasks.common.stage_main import WORKSPACE, run_folder
    from tasks.promotion.baseline import REGISTRY, registry_of

    root, console = Path(), command_console(as_json)
    with held(run_folder(root / WORKSPACE, "budget"), "budget", wait=False, say=console.text):
        plan = prepare(root, steps, seeds)
        cost = price_of(plan)
        _show_price(plan, cost, console)
        if price:
            if as_json:
                print_json({"parts": cost.parts, "seconds": round(cost.total, 1), "by_stage": cost.seconds})
            return
        if cost.parts and not yes and not as_json and sys.stdin.isatty():
            typer.confirm("Train now?", abort=True)
        _stop_on_signals(console)
        try:
            train(plan, lambda name, line: console.print(f"[dim]{name} |[/] {escape(line)}"))
        except KeyboardInterrupt:
            console.print("stopped; `points2model budget` goes on from here")
            raise typer.Exit(130) from None
        found = measured(plan, mask_seconds, click_seconds)
    add_measurement(registry_of(root / WORKSPACE), found)
    forecaster = Forecaster(found)
    chosen = _chosen(forecaster, masks, clicks)
    if as_json:
        print_json(_summary(forecaster, chosen))
    else:
        _show(forecaster, chosen, console)
        console.text(f"kept in {REGISTRY}/budget.json; `points2model run` puts it into the report")


def _stop_on_signals(console: Console) -> None:
    """Ctrl-C and `kill` end the running stage first, which is in a process group of its own."""
    from flows.processes.children import stop_all

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        stop_all()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _show_price(plan: Plan, price: Price, console: Console) -> None:
    from tasks.common.progress import format_seconds

    done = len(plan.parts) - price.parts
    finished = (
        f"{done} of {len(plan.parts)} trainings are finished" if done else f"{len(plan.parts)} trainings"
    )
    if not price.parts:
        console.text(f"all {finished.removeprefix(f'{done} of ')}")
        return
    networks = ("teacher", "refiner", "student")
    steps = ", ".join(f"{getattr(plan.params, name).steps:,} ({name})" for name in networks)
    parts = ", ".join(f"{name} {format_seconds(value)}" for name, value in price.seconds.items())
    console.text(f"{finished}, of {steps} steps")
    console.text(f"takes about {format_seconds(price.total)} on this machine: {parts}")


def _chosen(forecaster: Forecaster, masks: int | None, clicks: int | None) -> list[Batch]:
    """The next batch of each kind that the project has, or that was named."""
    from tasks.budget.forecast import GROWTHS

    found = forecaster.batches("masks", GROWTHS[:1]) if masks is None else [forecaster.batch("masks", masks)]
    return found + (
        forecaster.batches("clicks", GROWTHS[:1]) if clicks is None else [forecaster.batch("clicks", clicks)]
    )


def _show(forecaster: Forecaster, chosen: list[Batch], console: Console) -> None:
    from rich.table import Table

    from tasks.budget.words import back_test_sentence, batch_sentence, hours, notes

    measurement = forecaster.measurement
    table = Table(
        title=f"trainings on parts of the data, {measurement.steps['student']:,} steps, AP on "
        f"{measurement.val_images:,} images",
        title_justify="left",
    )
    for column in ("images with masks", "masks", "images with clicks", "clicks", "seed", "AP"):
        table.add_column(column, justify="right")
    for run in measurement.runs:
        counts = (run.mask_images, run.masks, run.click_images, run.clicks, run.seed)
        table.add_row(*(f"{value:,}" for value in counts), f"{run.AP:.1f}")
    console.print(table)
    console.text(back_test_sentence(forecaster.back_test()))
    table = Table(title="what more labels cost and bring", title_justify="left")
    for column in ("more", "images", "labels", "work", "AP", "AP an hour"):
        table.add_column(column, justify="left" if column == "more" else "right")
    for batch in [*forecaster.batches("masks"), *forecaster.batches("clicks")]:
        gain, rate = batch.gain, batch.per_hour
        table.add_row(
            batch.kind, f"{batch.images:,}", f"{batch.labels:,}", hours(batch.hours),
            "no forecast" if gain is None else f"{gain.low:+.1f} to {gain.high:+.1f}",
            "" if rate is None else f"{rate.low:.2f} to {rate.high:.2f}",
        )  # fmt: skip
    console.print(table)
    for note in notes(measurement):
        console.note(note)
    for batch in chosen:
        console.text(batch_sentence(batch))


def _summary(forecaster: Forecaster, chosen: list[Batch]) -> dict[str, Any]:
    """For --json."""
    from tasks.budget.words import batch_sentence, notes

    test = forecaster.back_test()
    rows = [*forecaster.batches("masks"), *forecaster.batches("clicks")]
    return {
        "next": [_as_dict(one) | {"text": batch_sentence(one)} for one in chosen],
        "batches": [_as_dict(one) for one in rows],
        "back_test": {
            "band": None if test.band is None else test.band._asdict(),
            "measured": test.measured, "before": test.before, "error": test.error, "inside": test.is_inside,
            "refused": test.refused,
        },
        "runs": [run.model_dump() for run in forecaster.measurement.runs],
        "notes": notes(forecaster.measurement),
    }  # fmt: skip


def _as_dict(batch: Batch) -> dict[str, Any]:
    return batch._asdict() | {"gain": None if batch.gain is None else batch.gain._asdict()}
