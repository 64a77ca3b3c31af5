"""The command `points2model review`: the page on which a person looks at pseudo masks and decides, and corrections that
were made in a label tool."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import Console, JsonOption, command_console, print_json
from tasks.common.errors import TaskError

if TYPE_CHECKING:
    from tasks.common.config import Params

PORT = 4244
"""Of the page."""
EXAMPLE = (
    "Example: points2model review   |   points2model review --reviewer anna --port 4245 --no-open   |   points2model "
    "review --import corrected.json --sent to-label-studio"
)


class Reviewed(StrEnum):
    """Images whose unchanged objects are accepted."""

    marked = "marked"
    changed = "changed"
    all = "all"


def review(
    reviewer: Annotated[
        str | None,
        typer.Option(help="Whose decisions they are, and the name of their file; by default the user's."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = PORT,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    audit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Judge a random sample of N pseudo masks, for an estimate of how many are right. It is drawn once; "
            "later calls go on with it.",
        ),
    ] = None,
    redraw: Annotated[
        bool,
        typer.Option("--redraw", help="With --audit: draw another sample; judgements of the former one end."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="With --audit: of the draw.")] = 0,
    import_file: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="FILE",
            help="Read what a label tool exported after `points2model export --to`, as decisions: CVAT XML, Label "
            "Studio's JSON, COCO, or any other format of docs/masks.md.",
        ),
    ] = None,
    sent: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With --import: the export that the tool was given. Default: the masks as they are now.",
        ),
    ] = None,
    reviewed: Annotated[
        Reviewed,
        typer.Option(
            help="With --import: where objects that didn't change are accepted: on images that the tool marks as "
            "finished (Label Studio: submitted; CVAT: tag `reviewed`), also on images with a change, or on all images "
            "of the file."
        ),
    ] = Reviewed.marked,
    skip_contradicted: Annotated[
        bool,
        typer.Option(
            "--skip-contradicted",
            help="With --import: leave out objects on which another reviewer decided otherwise.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --import: show what would be decided; write nothing.")
    ] = False,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="With --import: undo all decisions that came from this file."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at pseudo masks, the worst first, and accept, reject or change them, on a page of this machine.

    Each decision is saved at once, in the folder of review.decisions; the next run honours it. Ctrl-C ends it.

    With --import there is no page: what a person corrected in a label tool becomes decisions. A mask that changed is
    drawn, an object that is gone is rejected, a new one is added, another class is taken over. The same file twice
    adds nothing; of a file with faults nothing is written; --undo takes it all back. See docs/round-trip.md.
    """
    from flows.serve.review.server import user_name

    name = user_name() if reviewer is None else reviewer
    if not name:
        raise TaskError("this user has no name; choose one with --reviewer, e.g. --reviewer anna")
    if import_file is None:
        for option, given in (
            ("--sent", sent),
            ("--dry-run", dry_run),
            ("--skip-contradicted", skip_contradicted),
            ("--undo", undo),
        ):
            if given:
                raise TaskError(f"{option} goes with --import FILE")
        if redraw and audit is None:
            raise TaskError("--redraw goes with --audit N")
        _page(name, port, open_page, audit, redraw, seed)
        return
    if audit is not None:
        raise TaskError("expected one of --audit, on the page, and --import, of a file")
    if undo:
        if sent is not None or skip_contradicted:
            raise TaskError(
                "--undo takes back what --import FILE wrote; --sent and --skip-contradicted don't go with it"
            )
        _undo_import(import_file, name, dry_run, as_json)
        return
    _import(import_file, name, sent, reviewed, skip_contradicted, dry_run, as_json)


def _page(reviewer: str, port: int, open_page: bool, audit: int | None, redraw: bool, seed: int) -> None:
    from flows.processes.login import of_server
    from flows.serve.review.app import Project
    from flows.serve.review.server import FILE, VARIABLE, address, listener, make_server, open_browser
    from tasks.common.config import load_params

    console = Console(stderr=True, soft_wrap=True)
    root = Path.cwd()
    params = load_params()
    listed, sample = (None, None) if audit is None else _sample(params, root, audit, redraw, seed, console)
    project = Project(params, root, reviewer, listed, sample)
    project.desk()
    login, is_new = of_server(root, FILE, VARIABLE)
    with listener(port) as listening:
        place = address(listening)
        server = make_server(project, login, listening.getsockname()[1])
        console.text(f"review: {place}   (Ctrl-C ends it)")
        opened = open_page and open_browser(root, place, login)
        if not opened:
            shown = f"shown this once: {login}" if is_new and console.is_terminal else f"it is in {FILE}"
            console.text(f"the page needs a login: {shown}")
        server.run([listening])
    console.print("ended; each decision is saved. The next `points2model run` honours them")


def _sample(
    params: Params, root: Path, count: int, redraw: bool, seed: int, console: Console
) -> tuple[list[str], str]:
    """The objects of the random sample in random order, and its id; it is drawn if there is none."""
    from tasks.reporting.figures import count as counted
    from tasks.tools.random_sample import open_sample

    opened = open_sample(root / params.review.decisions, root / "workspace", count, seed, redraw)
    sample = opened.sample
    size = counted(len(sample.objects), "mask")
    console.text(
        f"audit: a random sample of {size}, {'drawn now' if opened.is_new else f'drawn {sample.drawn[:10]}'}"
    )
    if len(sample.objects) != count and not opened.is_new:
        console.note(f"--audit {count} goes on with that sample; --redraw draws another")
    if opened.changed:
        console.note(
            f"{len(opened.changed):,} of its masks have changed since and are left out: the estimate is of the former "
            "masks; --redraw draws a sample of the present ones"
        )
    gone = set(opened.changed)
    return [one.object for one in sample.objects if one.object not in gone], sample.id


def _import(
    file: Path, reviewer: str, sent: Path | None, reviewed: Reviewed, skip: bool, dry_run: bool, as_json: bool
) -> None:
    from tasks.common.config import load_params
    from tasks.tools.import_review import import_review

    folder = Path(load_params().review.decisions)
    summary = import_review(
        file, folder, Path("workspace"), reviewer, sent=sent, reviewed=reviewed.value, skip_contradicted=skip,
        dry_run=dry_run,
    )  # fmt: skip
    if as_json:
        print_json(summary)
    _show(command_console(as_json), summary, reviewed, sent is not None)


def _undo_import(file: Path, reviewer: str, dry_run: bool, as_json: bool) -> None:
    from tasks.common.config import load_params
    from tasks.reporting.figures import count
    from tasks.reporting.review import WORDS
    from tasks.tools.import_review import undo_import

    summary = undo_import(file, Path(load_params().review.decisions), reviewer, dry_run=dry_run)
    if as_json:
        print_json(summary)
    facts = ", ".join(f"{number:,} {WORDS[action]}" for action, number in summary["actions"].items())
    verb = "would be" if dry_run else "were"
    number = count(sum(summary["actions"].values()), "decision")
    command_console(as_json).text(f"{number} of {reviewer} {verb} undone: {facts}")


def _show(console: Console, summary: dict[str, Any], reviewed: Reviewed, has_sent: bool) -> None:
    from tasks.reporting.figures import count
    from tasks.reporting.review import WORDS

    counts = summary["counts"]
    facts = [f"{number:,} {WORDS[action]}" for action, number in summary["actions"].items()]
    verb = "would be" if summary["dry_run"] else "were"
    console.text(
        f"{count(counts['images'], 'image')}, {count(counts['unchanged'], 'object')} unchanged; "
        f"{count(sum(summary['actions'].values()), 'decision')} of {summary['reviewer']} {verb} written"
        + (f": {', '.join(facts)}" if facts else "")
    )
    matched = f"{counts['matched_by_id']:,} by id, {counts['matched_by_iou']:,} by IoU"
    console.text(f"objects matched: {matched}; {counts['known']:,} decisions were there before")
    accepted = summary["actions"].get("accept", 0)
    if reviewed is Reviewed.marked and counts["unchanged"] and not counts["marked"]:
        console.note(
            "the file marks no image as finished, so no unchanged mask is accepted; --reviewed changed or all does"
        )
    elif not accepted and reviewed is not Reviewed.all and counts["unchanged"] and not counts["known"]:
        console.note("no unchanged mask is accepted on images that don't count as reviewed; see --reviewed")
    if summary["actions"].get("reject") and not has_sent:
        console.note(
            "without --sent FOLDER, masks that the tool never had count as gone from the file, so they are rejected; "
            "--dry-run shows how many"
        )
    if counts["skipped"]:
        console.note(
            f"left out, since another reviewer decided otherwise: {count(counts['skipped'], 'object')}"
        )
    if summary["boxes"]:
        console.note(f"left out, since they are no masks: {summary['boxes']:,} rectangles")
