"""A run's artifacts in Prefect's UI: a summary, AP against the promoted model, a link to the report, a picture.

Keys are the same in each run, so that the UI shows their history. An artifact that the server has already isn't written
again, except the summary: a run that had nothing to do takes seconds.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prefect import get_run_logger
from prefect.artifacts import (
    Artifact,
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.client.schemas.objects import Artifact as Stored
from prefect.runtime import flow_run

from flows.run.report_address import report_address

if TYPE_CHECKING:
    from flows.run.intake import Intake
    from flows.run.summary import RunFacts

SUMMARY, AP, LINK, GALLERY = "run-summary", "ap-against-promoted", "report", "gallery"
NOTED = 20
"""Rejected files that are listed with their reasons."""


def publish(root: Path, stages: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> None:
    """Writes the artifacts of the current run, as far as there is something to show. Errors are warnings in its log.

    Args:
        root: the project's folder.
        stages: the result of each: StageRun as dicts.
        notes: other events, a sentence each.
    """
    # Imported here: it takes half a second, which would delay the run's first stage.
    from flows.run.summary import RunFacts

    run = RunFacts(root, str(flow_run.name), stages, [note for note in notes if note])
    parts: dict[str, Callable[[RunFacts], None]] = {
        "the summary": _summary,
        "the table of AP": _ap,
        "the link to the report": _link,
        "the gallery": _gallery,
    }
    for what, write in parts.items():
        try:
            write(run)
        except Exception as error:  # any: the run's work is done
            message = f"{what} isn't shown in Prefect's UI ({type(error).__name__}: {error})"
            get_run_logger().warning("%s", message)


def intake_notes(intake: Intake) -> list[str]:
    """The intake for `publish`: a summary, each rejected file, and problems."""
    if intake.inbox is None:
        return []
    notes = [f"Inbox {intake.inbox}: {intake}."]
    if intake.left_out:
        reasons = ", ".join(
            f"{count:,} {reason.replace('_', ' ')}" for reason, count in intake.left_out.items()
        )
        notes.append(f"Not usable in the files taken in: {reasons}.")
    rejected = intake.of("rejected")
    notes += [str(one) for one in rejected[:NOTED]]
    if len(rejected) > NOTED:
        notes.append(f"{len(rejected) - NOTED} more files were rejected: see the run's log.")
    return notes + intake.problems


def _summary(run: RunFacts) -> None:
    from flows.run.summary import headline, summary

    report = run.out("report")
    create_markdown_artifact(
        summary(run, report_address(report) if report else None),
        key=SUMMARY,
        description=headline(run),
    )


def _ap(run: RunFacts) -> None:
    from flows.run.summary import ap_caption, ap_table

    mark = run.out("compare") or run.out("evaluate")
    if mark is None or _is_stored(AP, mark):
        return
    table = ap_table(run)
    if table is not None:
        create_table_artifact(table, key=AP, description=f"{ap_caption(run)} {_version(mark)}")


def _link(run: RunFacts) -> None:
    report = run.out("report")
    if report is None or _is_stored(LINK, report):
        return
    create_link_artifact(
        report_address(report),
        "The report",
        key=LINK,
        description=f"If that address doesn't respond, start `points2model reports` in the project. {_version(report)}",
    )


def _gallery(run: RunFacts) -> None:
    report = run.out("report")
    if report is None or not run.done("evaluate") or _is_stored(GALLERY, report):
        return
    from tasks.common.config import load_params
    from tasks.reporting.picture import gallery_picture

    picture = gallery_picture(run.workspace, load_params(run.root / "params.yaml").report)
    # A data URL with the picture itself: Prefect stores addresses only.
    address = "data:image/svg+xml;base64," + base64.b64encode(picture.encode()).decode("ascii")
    create_image_artifact(
        address,
        key=GALLERY,
        description=f"A few images; [the report]({report_address(report)}) has more. {_version(report)}",
    )


def _version(mark: str) -> str:
    return f"Version {mark[:12]}."


def _is_stored(key: str, mark: str) -> bool:
    """Whether the newest artifact of this key is of the same version."""
    newest = cast(Stored | None, Artifact.get(key))
    return newest is not None and _version(mark) in (newest.description or "")
