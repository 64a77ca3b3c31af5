"""A run in words and tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.run.artifacts import intake_notes
from flows.run.intake import Intake
from flows.run.summary import RunFacts, ap_caption, ap_table, headline, summary
from tasks.inbox.ledger import Arrival, State
from tests.flows.finished import DONE, comparison, stage, write_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A finished project's files that the summary reads."""
    write_project(tmp_path)
    return tmp_path


def test_a_whole_run(project: Path) -> None:
    run = RunFacts(project, "12 new points, 3 Nov", DONE, ["Took in a_b.json"])
    text = summary(run, "http://x/reports/a.html")
    for line in (
        "# 12 new points, 3 Nov",
        "**Completed**",
        r"- Took in a\_b.json",
        "- Points: 1,200 on 14 images, 3 rejected (2 outside image, 1 unknown image), 1 whole files rejected",
        f"- [The report](http://x/reports/a.html), in the file `{project}/workspace/report.html`",
        "| AP | 41.2 | 45.0 | +3.8 |",
        "| mean IoU, % | 40.0 | 52.5 | +12.5 |",
        "1,190 of 1,200 points became masks.",
        r"| import\_points | Cached | 1.2 |  |",
        "| report | Completed | 1.2 | restored from the cache |",
    ):
        assert line in text.splitlines(), line
    assert headline(run) == "3 of 4 stages ran; student AP 45.0 (teacher 41.2); worse than tolerated"
    assert "- Verdict on the student: **worse than tolerated**" in text.splitlines()


def test_after_a_failure_nothing_older_is_shown(project: Path) -> None:
    stages = [
        stage("import_points"),
        stage("train_student", "Failed", "NaN in step 3\n```\n| x |"),
        stage("report", "Not run"),
    ]
    stages += [stage("evaluate", "Not run"), stage("compare", "Not run")]
    run = RunFacts(project, "nightly", stages)
    text = summary(run, None)
    assert headline(run) == "failed: train_student"
    assert "**Failed: train_student**" in text
    assert "## Why train_student failed\n\n````\nNaN in step 3\n```\n| x |\n````" in text
    assert "Points: 1,200" in text  # these are of this run
    assert not any(word in text for word in ("The report", "mask AP", "worse"))
    assert ap_table(run) is None
    assert ap_caption(run) == "Mask AP on the validation images, in percent."


def test_the_table_against_the_promoted_model(project: Path) -> None:
    run = RunFacts(project, "nightly", DONE)
    table = ap_table(run)
    assert table == [
        {
            "class": "all", "objects": "", "teacher": "41.2", "student": "45.0",
            "promoted (v3)": "40.0", "difference": "+1.2", "95% interval": "−0.5 to +2.9", "tolerated": "yes",
        },
        {
            "class": "class_1", "objects": "1,000", "teacher": "30.0", "student": "35.0",
            "promoted (v3)": "40.0", "difference": "−6.0", "95% interval": "–", "tolerated": "no",
        },
        {
            "class": "class_2", "objects": "2,000", "teacher": "20.0", "student": "–",
            "promoted (v3)": "–", "difference": "–", "95% interval": "–", "tolerated": "",
        },
    ]  # fmt: skip
    assert len({tuple(row) for row in table}) == 1  # the UI takes its columns from the first row
    assert "**worse than tolerated**" in ap_caption(run)


def test_without_a_promoted_model_the_table_has_teacher_and_student(project: Path) -> None:
    (project / "workspace/comparison/comparison.json").write_text(json.dumps(comparison(None)))
    run = RunFacts(project, "nightly", DONE)
    assert [list(row) for row in ap_table(run) or []] == [["class", "objects", "teacher", "student"]] * 3
    assert "No model is promoted yet." in ap_caption(run)


def test_another_pipelines_run_has_a_summary_too(tmp_path: Path) -> None:
    text = summary(
        RunFacts(tmp_path, "by hand <b>", [stage("evaluate"), stage("compare"), stage("report")]), None
    )
    assert text.startswith("# by hand &lt;b&gt;\n\n**Completed**\n\n| stage | state |")


def test_what_came_in_is_noted_with_each_rejected_file() -> None:
    def arrival(n: int, state: State) -> Arrival:
        reason = "not JSON" if state == "rejected" else ""
        return Arrival(f"file{n}.json", "a" * 64, None, state, reason, 4, "inbox", "2026-11-03T12:00:00Z")

    assert intake_notes(Intake()) == []
    few = Intake(
        "inbox", [arrival(0, "taken"), arrival(1, "rejected")], 4, {"outside_image": 2}, [], ["See to x."]
    )
    assert intake_notes(few) == [
        "Inbox inbox: 4 new points in 1 file, 1 file rejected.",
        "Not usable in the files taken in: 2 outside image.",
        "file1.json: rejected: not JSON",
        "See to x.",
    ]
    many = Intake("s3://b/p", [arrival(n, "rejected") for n in range(30)])
    assert len(intake_notes(many)) == 22
    assert intake_notes(many)[-1] == "10 more files were rejected: see the run's log."
