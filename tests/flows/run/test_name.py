"""What runs are called."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from prefect import flow, get_client
from prefect.runtime import flow_run

from flows.run.name import compose, rename_run, run_name

NOON = datetime(2026, 11, 3, 12, 5, 9)


@pytest.mark.parametrize(
    ("reason", "target", "expected"),
    [
        ("12 new points in 3 files", "report", "12 new points in 3 files, 3 Nov 12:05:09"),
        ("schedule", "report", "schedule, 3 Nov 12:05:09"),
        ("by hand", "report", "by hand: report, 3 Nov 12:05:09"),
        ("nightly", "train_teacher", "nightly: train_teacher, 3 Nov 12:05:09"),
    ],
)
def test_compose(reason: str, target: str, expected: str) -> None:
    assert compose(reason, target, NOON) == expected


@pytest.mark.parametrize(
    ("params", "offset"),
    [
        ("operate: {timezone: Asia/Tokyo}", 9 * 3600),
        ("operate: {timezone: Nowhere/Town}", None),
        ("operate: {timezone: /etc/passwd}", None),
        ("operate: 3", None),
        ("{", None),
        (None, None),
    ],
)
def test_the_time_is_the_schedules(
    params: str | None, offset: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if params is not None:
        (tmp_path / "params.yaml").write_text(params)
    from flows.run.name import _timezone

    zone = _timezone(Path("params.yaml"))
    assert (zone is None) == (offset is None)
    if zone is not None and offset is not None:
        assert NOON.replace(tzinfo=zone).utcoffset().total_seconds() == offset  # type: ignore[union-attr]
    assert compose("schedule", "report").startswith("schedule, ")


@pytest.mark.usefixtures("prefect_server")
def test_a_run_is_named_at_its_start_and_anew_when_it_knows_more() -> None:
    seen = []

    def name() -> str:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(flow_run.id).name

    @flow(flow_run_name=run_name)
    def line(target: str = "report", reason: str = "by hand") -> None:
        seen.append(name())
        rename_run("12 new points in 3 files")
        seen.append(name())

    line(reason="nightly")
    assert [one.rpartition(", ")[0] for one in seen] == ["nightly", "12 new points in 3 files"]


def test_renaming_what_is_no_run_is_only_told(caplog: pytest.LogCaptureFixture) -> None:
    rename_run("nothing")
    assert "the run can't be renamed" in caplog.text
