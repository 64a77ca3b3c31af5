"""What a run does in a project apart from the code after another version was installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.run.nothing_to_do import done_stages
from flows.run.pipeline import _record_upgrade
from tasks.code import stages
from tasks.common import installed_tool
from tasks.common.code_identity import ROOT, Sources, identities


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The code of each stage as it is now, of an older version of the tool."""
    folder = tmp_path / "workspace" / "code"
    folder.mkdir(parents=True)
    for stage, parts in identities(stages(), Sources(ROOT)).items():
        (folder / f"{stage}.json").write_text(json.dumps(parts))
    (tmp_path / installed_tool.FILE).write_text('{"version": "0.0.1", "code": "0123"}')
    return tmp_path


def test_the_stages_whose_code_differs_are_named(project: Path) -> None:
    for stage in ("report", "train_teacher"):
        path = project / "workspace" / "code" / f"{stage}.json"
        parts = json.loads(path.read_text())
        path.write_text(json.dumps({**parts, next(iter(parts)): "0"}))
    message = _record_upgrade(project)
    assert message is not None and "the code of report, train_teacher differs: they run again" in message
    assert "version 0.0.1 (code 0123) before" in message
    installed_tool.check(project)
    assert _record_upgrade(project) is None


def test_no_code_that_decides_a_result_differs(project: Path) -> None:
    message = _record_upgrade(project)
    assert message is not None and message.endswith("no stage's code differs")


def test_a_clone_records_nothing(tmp_path: Path) -> None:
    assert _record_upgrade(tmp_path) is None
    assert not any(tmp_path.iterdir())


def test_a_run_has_something_to_do_until_the_version_is_recorded(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out before DVC is opened, of which there is none here."""

    def opened(_: Path) -> None:
        raise AssertionError("DVC was opened")

    monkeypatch.setattr("flows.run.nothing_to_do.DvcRepo", opened)
    monkeypatch.setattr("flows.run.nothing_to_do.has_server", lambda _: False)
    (project / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert done_stages(project, "report", print) is None
    installed_tool.write(project)
    with pytest.raises(AssertionError, match="DVC was opened"):
        done_stages(project, "report", print)
